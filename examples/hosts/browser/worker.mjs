/** Off the page's thread: the model. Messages in are {id, open} or {id, classify}; the answer has the same id. */

import * as ort from './ort/ort.wasm.bundle.min.mjs'
import { Classifier, StapesError } from './stapes.mjs'

ort.env.wasm.wasmPaths = new URL('ort/', import.meta.url).href
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1
ort.env.logLevel = 'error'

let classifier

async function open({ model, weights }) {
  const has = (name) => weights.some(({ path }) => path === name)
  const file = { size: model.length, read: (begin, end) => model.subarray(begin, end), has }
  const opened = await Classifier.open(ort, file, model, { externalData: weights })
  await classifier?.close()
  classifier = opened
  return classifier.manifest
}

async function classify({ samples, rate }) {
  const start = performance.now()
  const predictions = await classifier.classify(samples, rate)
  return { predictions, ms: performance.now() - start, samples }
}

let last = Promise.resolve() // one at a time, in order: a new model does not overtake a clip
self.onmessage = ({ data: { id, ...asked } }) => {
  last = last
    .then(() => (asked.open ? open(asked.open) : classify(asked.classify)))
    .then((answer) => self.postMessage({ id, answer }))
    .catch((error) => self.postMessage({ id, error: error instanceof StapesError ? error.message : `${error.name}: ${error.message}` }))
}
self.postMessage({ ready: true })
