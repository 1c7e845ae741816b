/** In the audio thread: the microphone's sound as mono blocks, posted to the page. */

const BLOCK = 1024 // 64 ms at 16 kHz: few messages, and still smooth to the eye

class Recorder extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK)
  #filled = 0

  process([channels]) {
    for (let i = 0; i < (channels[0]?.length ?? 0); i++) {
      let sum = 0
      for (const channel of channels) sum += channel[i]
      this.#block[this.#filled++] = sum / channels.length
      if (this.#filled < BLOCK) continue
      this.port.postMessage(this.#block, [this.#block.buffer])
      this.#block = new Float32Array(BLOCK)
      this.#filled = 0
    }
    return true
  }
}

registerProcessor('recorder', Recorder)
