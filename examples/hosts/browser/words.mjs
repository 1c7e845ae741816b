/** What was heard, written where it was heard: labels that move with the spectrogram. */

const SURE = 0.5 // of a score
const AGAIN = 2 // answers in a row, so that what flickers at an edge is not written

export class Words {
  #place
  #seconds
  #written = [] // {at, span}, the oldest first
  #last
  #times = 0

  constructor(place) {
    this.#place = place
  }

  /** Starts anew, for the last `seconds`. */
  reset(seconds) {
    this.#seconds = seconds
    this.#place.replaceChildren()
    this.#written = []
    this.#last = undefined
  }

  /** The best label at `at` seconds. */
  hear({ label, score }, at) {
    this.#times = label === this.#last ? this.#times + 1 : 1
    this.#last = label
    if (score < SURE || this.#times < AGAIN || this.#written.at(-1)?.span.textContent === label) return
    const span = document.createElement('span')
    span.textContent = label
    this.#place.append(span)
    this.#written.push({ at, span })
  }

  /** Moves all to where they are `now`, in seconds; those that left are gone. */
  move(now) {
    while (this.#written.length > 1 && now - this.#written[0].at > this.#seconds) this.#written.shift().span.remove()
    for (const { at, span } of this.#written) span.style.left = `${100 * (1 - (now - at) / this.#seconds)}%`
  }
}
