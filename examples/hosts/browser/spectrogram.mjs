/** A spectrogram that scrolls: power of Hann windows on the mel axis, 70 dB below the loudest, as colours. */

const FRAME = 512
const HOP_S = 0.01
const ROWS = 128
const RANGE_DB = 70
const QUIETEST_DB = -30 // of full scale: softer sounds than this do not grow bright
const COLOURS = [[11, 10, 26], [49, 24, 102], [122, 36, 129], [206, 66, 108], [251, 136, 97], [253, 219, 150]]

const mel = (hz) => 2595 * Math.log10(1 + hz / 700)
const hertz = (mels) => 700 * (10 ** (mels / 2595) - 1)

export class Spectrogram {
  #canvas
  #strip = document.createElement('canvas') // a pixel a column, newest at the right
  #rate
  #rest = new Float32Array(0)
  #loudest = QUIETEST_DB

  constructor(canvas) {
    this.#canvas = canvas
    new ResizeObserver(() => this.paint()).observe(canvas)
  }

  /** Starts anew, for the last `seconds` of a sound at `rate`. */
  reset(rate, seconds) {
    this.#rate = rate
    this.#rest = new Float32Array(FRAME / 2) // the first frame is centred on the first sample
    this.#loudest = QUIETEST_DB
    this.#strip.width = Math.max(1, Math.round(seconds / HOP_S))
    this.#strip.height = ROWS
    this.#pen.fillStyle = `rgb(${COLOURS[0]})`
    this.#pen.fillRect(0, 0, this.#strip.width, ROWS)
  }

  /** Where `hz` lies, from 0 at the bottom to 1 at the top. */
  height(hz) {
    return mel(hz) / mel(this.#rate / 2)
  }

  /** Goes on with `samples`. */
  push(samples) {
    const sound = new Float32Array(this.#rest.length + samples.length)
    sound.set(this.#rest)
    sound.set(samples, this.#rest.length)
    const hop = Math.round(HOP_S * this.#rate)
    const columns = Math.max(0, Math.floor((sound.length - FRAME) / hop) + 1)
    this.#rest = sound.slice(columns * hop)
    if (!columns) return
    const levels = Array.from({ length: columns }, (_, i) => this.#levels(sound.subarray(i * hop, i * hop + FRAME)))
    this.#loudest = levels.flatMap((column) => Math.max(...column)).reduce((a, b) => Math.max(a, b), this.#loudest)
    const { width } = this.#strip
    this.#pen.drawImage(this.#strip, -columns, 0)
    this.#pen.putImageData(this.#image(levels), width - columns, 0)
  }

  /** Shows what was pushed. */
  paint() {
    const { width, height } = this.#canvas.getBoundingClientRect()
    this.#canvas.width = Math.round(width * devicePixelRatio)
    this.#canvas.height = Math.round(height * devicePixelRatio)
    if (this.#rate) this.#canvas.getContext('2d').drawImage(this.#strip, 0, 0, this.#canvas.width, this.#canvas.height)
  }

  get #pen() {
    return this.#strip.getContext('2d', { willReadFrequently: true })
  }

  /** A frame's power in dB for every row, low to high. */
  #levels(frame) {
    const power = powers(frame)
    const top = mel(this.#rate / 2)
    return Float32Array.from({ length: ROWS }, (_, row) => {
      const bin = (hertz((row / (ROWS - 1)) * top) / this.#rate) * FRAME
      const [low, part] = [Math.min(Math.floor(bin), FRAME / 2 - 1), bin % 1]
      return 10 * Math.log10(power[low] * (1 - part) + power[low + 1] * part + 1e-12)
    })
  }

  #image(levels) {
    const image = new ImageData(levels.length, ROWS)
    levels.forEach((column, x) => {
      column.forEach((level, row) => {
        const place = Math.min(1, Math.max(0, 1 + (level - this.#loudest) / RANGE_DB)) * (COLOURS.length - 1)
        const [low, part] = [Math.min(Math.floor(place), COLOURS.length - 2), place - Math.min(Math.floor(place), COLOURS.length - 2)]
        const at = 4 * ((ROWS - 1 - row) * levels.length + x)
        for (let c = 0; c < 3; c++) image.data[at + c] = COLOURS[low][c] * (1 - part) + COLOURS[low + 1][c] * part
        image.data[at + 3] = 255
      })
    })
    return image
  }
}

const HANN = Float64Array.from({ length: FRAME }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / FRAME))
const COSINE = Float64Array.from({ length: FRAME / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / FRAME))
const SINE = Float64Array.from({ length: FRAME / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / FRAME))

/** Power of each frequency of a frame, a full-scale sine being 1: a radix-2 FFT, (FRAME / 2 + 1,). */
function powers(frame) {
  const re = new Float64Array(FRAME)
  const im = new Float64Array(FRAME)
  for (let i = 0, j = 0; i < FRAME; i++) {
    re[j] = (frame[i] * HANN[i] * 4) / FRAME
    let bit = FRAME >> 1
    for (; j & bit; bit >>= 1) j ^= bit // j counts with its bits reversed
    j |= bit
  }
  for (let half = 1; half < FRAME; half *= 2) {
    const step = FRAME / (2 * half)
    for (let start = 0; start < FRAME; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const [a, b] = [start + k, start + k + half]
        const [c, s] = [COSINE[k * step], SINE[k * step]]
        const [x, y] = [re[b] * c - im[b] * s, re[b] * s + im[b] * c]
        ;[re[b], im[b]] = [re[a] - x, im[a] - y]
        ;[re[a], im[a]] = [re[a] + x, im[a] + y]
      }
    }
  }
  return Float64Array.from({ length: FRAME / 2 + 1 }, (_, k) => re[k] ** 2 + im[k] ** 2)
}
