// node classify.mjs MODEL WAV [K]: the K best labels of a WAV file, a line each, `label<TAB>score`.

import { existsSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { dirname, join } from 'node:path'
import ort from 'onnxruntime-node'
import { Classifier, ModelError, StapesError } from './stapes.mjs'
import { readWave } from './wave.mjs'

const [model, wave, k = '5'] = process.argv.slice(2)
try {
  if (!wave || !/^[1-9]\d*$/.test(k)) throw new ModelError('usage: node classify.mjs MODEL WAV [K], K a whole number from 1 up')
  const classifier = await Classifier.open(ort, opened(model), model)
  const { samples, rate } = readWave(readFileSync(wave))
  const predictions = await classifier.classify(samples, rate)
  for (const { label, score } of predictions.slice(0, Number(k))) console.log(`${label}\t${score.toFixed(6)}`)
} catch (error) {
  if (!(error instanceof StapesError) && error.code === undefined) throw error // of ours or the file system's, or else a bug
  console.error(`classify: ${error.message}`)
  process.exitCode = error instanceof ModelError || error.path === model ? 2 : 1
}

/** The file at `path`, read in pieces: the weights in it stay where they are. */
function opened(path) {
  const file = openSync(path)
  const read = (begin, end) => {
    const bytes = new Uint8Array(end - begin)
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, begin))
  }
  return { size: fstatSync(file).size, read, has: (name) => existsSync(join(dirname(path), name)) }
}
