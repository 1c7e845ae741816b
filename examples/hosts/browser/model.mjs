/** The model in its worker, for the page: promises instead of messages. */

import { StapesError } from './stapes.mjs'

export class Model {
  #asked = new Map()
  #next = 0
  #worker
  #ready

  constructor() {
    this.#worker = new Worker('worker.mjs', { type: 'module' })
    this.#ready = new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => (data.ready ? resolve() : this.#settle(data))
      this.#worker.onerror = () => {
        const failed = new StapesError('ONNX Runtime did not start: run npm install in this folder, and use a current browser')
        reject(failed)
        for (const { reject } of this.#asked.values()) reject(failed)
      }
    })
  }

  /** The manifest of the model in the bytes; `weights`, [{path, data}], are the files that lie beside it. */
  open(model, weights = []) {
    return this.#ask({ open: { model, weights } }, [model.buffer])
  }

  /** {predictions, ms, samples} of mono samples at `rate`. The samples are handed over, and come back with the answer. */
  classify(samples, rate) {
    return this.#ask({ classify: { samples, rate } }, [samples.buffer])
  }

  async #ask(message, handed) {
    await this.#ready
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject })
      this.#worker.postMessage({ id, ...message }, handed)
    })
  }

  #settle({ id, answer, error }) {
    const { resolve, reject } = this.#asked.get(id)
    this.#asked.delete(id)
    if (error === undefined) resolve(answer)
    else reject(new StapesError(error))
  }
}
