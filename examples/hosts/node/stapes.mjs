/**
 * The contract of an artifact in JavaScript, one copy for Node and the browser: what the file says of itself, the checks a host
 * owes it, and a run. It depends on no package: ONNX Runtime is handed in, as onnxruntime-node or onnxruntime-web.
 */

/** The newest manifest this reader knows. */
export const SCHEMA = 1

/** Samples that one clip may have: beyond it the runtime's own 32-bit sizes end. */
export const MOST_SAMPLES = 2 ** 31 - 1

/** What is wrong with a model or a clip, in one sentence. */
export class StapesError extends Error {}

/** The model cannot be used, whatever the clip. */
export class ModelError extends StapesError {}

/** A model that is open: feed it samples. */
export class Classifier {
  #ort
  #session

  /**
   * `file` is what the manifest is read from: {size, read(begin, end) -> Uint8Array, has(name) -> whether that file lies beside it}.
   * `model` and `options` go to ONNX Runtime: a path or the bytes, and where there are bytes, externalData for the files beside them.
   */
  static async open(ort, file, model, options = {}) {
    const { manifest, locations } = describe(file)
    const missing = locations.find((location) => !file.has(location))
    if (missing !== undefined) {
      throw new ModelError(`the model keeps its weights in ${missing}, which is not beside it: keep both files together`)
    }
    const session = await ort.InferenceSession.create(model, options).catch((error) => {
      throw new ModelError(`ONNX Runtime cannot open the model: ${line(error)}`)
    })
    for (const name of ['waveform', 'lengths']) {
      if (!session.inputNames.includes(name)) throw new ModelError(`the model has no input ${name}: export it with stapes`)
    }
    if (!session.outputNames.includes('scores')) throw new ModelError('the model has no output scores: export it with stapes')
    return new Classifier(ort, session, manifest)
  }

  constructor(ort, session, manifest) {
    this.#ort = ort
    this.#session = session
    this.manifest = manifest
  }

  /** Every label with its score, best first, for mono samples at `rate` Hz: [{label, score, index}]. */
  async classify(samples, rate) {
    const { labels } = this.manifest
    this.#check(samples, rate)
    const feeds = {
      waveform: new this.#ort.Tensor('float32', samples, [1, samples.length]),
      lengths: new this.#ort.Tensor('int64', BigInt64Array.of(BigInt(samples.length)), [1])
    }
    const { scores } = await this.#session.run(feeds, ['scores']).catch((error) => {
      throw new StapesError(`ONNX Runtime cannot run the model on ${samples.length} samples: ${line(error)}`)
    })
    if (scores.data.length !== labels.length) {
      throw new ModelError(`the model gives ${scores.data.length} scores for ${labels.length} labels: export it again`)
    }
    const found = labels.map((label, index) => ({ label, score: scores.data[index], index }))
    return found.sort((a, b) => b.score - a.score || a.index - b.index)
  }

  close() {
    return this.#session.release()
  }

  #check(samples, rate) {
    const { manifest } = this
    const shortest = Math.max(1, manifest.frontend.min_samples)
    if (!(samples instanceof Float32Array)) throw new StapesError('samples are a Float32Array, from -1 to 1')
    if (rate !== manifest.rate) {
      throw new StapesError(`the clip has ${rate} Hz and the model takes ${manifest.rate} Hz: resample the clip`)
    }
    if (samples.length > MOST_SAMPLES) {
      throw new StapesError(`the clip has ${samples.length} samples, more than the ${MOST_SAMPLES} that one run takes: cut it`)
    }
    if (samples.length < shortest) {
      throw new StapesError(`the clip has ${samples.length} samples and the model needs ${shortest} at ${rate} Hz: give a longer clip`)
    }
    const bad = samples.findIndex((sample) => !Number.isFinite(sample))
    if (bad >= 0) throw new StapesError(`sample ${bad} of the clip is ${samples[bad]}: give finite samples`)
  }
}

/** The file's manifest, and the names of the files beside it that hold its weights. */
export function describe(file) {
  const metadata = new Map()
  const locations = new Set()
  let graphs = 0
  try {
    for (const { number, begin, end } of fields(file, 0, file.size)) {
      if (number === METADATA_PROPS) metadata.set(...pair(file, begin, end))
      if (number !== GRAPH) continue
      graphs += 1
      for (const tensor of fields(file, begin, end)) {
        if (tensor.number !== INITIALIZER) continue
        for (const field of fields(file, tensor.begin, tensor.end)) {
          if (field.number !== EXTERNAL_DATA) continue
          const [key, value] = pair(file, field.begin, field.end)
          if (key === 'location') locations.add(value)
        }
      }
    }
    if (graphs !== 1) throw new RangeError(`${graphs} graphs in it`)
  } catch (error) {
    throw new ModelError(`the model is not an ONNX file, or a truncated one (${line(error)})`)
  }
  if (!metadata.has('stapes')) throw new ModelError('the model is an ONNX file without a stapes manifest: make one with stapes export')
  return { manifest: checked(metadata.get('stapes')), locations: [...locations] }
}

/** The manifest in `text`, as far as a host relies on it. */
function checked(text) {
  const damaged = (what) => new ModelError(`the model's manifest ${what}: export the model again`)
  let manifest
  try {
    manifest = JSON.parse(text)
  } catch (error) {
    throw damaged(`is not JSON (${line(error)})`)
  }
  if (!Number.isInteger(manifest?.schema) || manifest.schema < 1) throw damaged('has no schema number')
  if (manifest.schema > SCHEMA) {
    throw new ModelError(`the model has manifest schema ${manifest.schema} and this host reads up to ${SCHEMA}: upgrade the host`)
  }
  const { rate, labels, frontend, frontend_in_graph: whole } = manifest
  if (!Number.isInteger(rate) || rate < 1) throw damaged('has no rate')
  if (!Array.isArray(labels) || !labels.length || labels.some((label) => typeof label !== 'string')) throw damaged('has no labels')
  if (!Number.isInteger(frontend?.min_samples)) throw damaged('does not say how many samples the model needs')
  if (whole !== true) throw new ModelError('the model has no frontend in its graph, which this host needs: export it with stapes')
  return manifest
}

// ModelProto in protobuf's wire format: each field is a varint tag (number << 3 | wire type), then its value.
const [GRAPH, METADATA_PROPS] = [7, 14] // in ModelProto
const INITIALIZER = 5 // in GraphProto
const EXTERNAL_DATA = 13 // in TensorProto
const [VARINT, FIXED64, BYTES, FIXED32] = [0, 1, 2, 5] // wire types
const LARGEST_TEXT = 2 ** 25 // bytes read before anything in them is believed

/** Number, begin and end of every field with content in [at, end); what is in them is not read. */
function* fields(file, at, end) {
  while (at < end) {
    let tag, size
    ;[tag, at] = varint(file, at, end)
    const [number, wire] = [Math.floor(tag / 8), tag % 8]
    if (number < 1 || number >= 2 ** 29) throw new RangeError(`field ${number}`)
    if (wire === VARINT) at = varint(file, at, end)[1]
    else if (wire === FIXED32) at += 4
    else if (wire === FIXED64) at += 8
    else if (wire === BYTES) {
      ;[size, at] = varint(file, at, end)
      if (at + size > end) throw new RangeError(`field ${number} ends behind the end`)
      yield { number, begin: at, end: at + size }
      at += size
    } else throw new RangeError(`wire type ${wire}`)
  }
}

/** The number at `at`, exact below 2^53, and where it ends. */
function varint(file, at, end) {
  const bytes = file.read(at, Math.min(at + 10, end))
  let value = 0
  for (let i = 0; i < bytes.length; i++) {
    value += (bytes[i] & 0x7f) * 2 ** (7 * i)
    if (bytes[i] < 0x80) return [value, at + i + 1]
  }
  throw new RangeError('a number without an end')
}

/** StringStringEntryProto: key is field 1, value is field 2. */
function pair(file, begin, end) {
  const found = ['', '']
  if (end - begin > LARGEST_TEXT) throw new RangeError(`metadata of ${end - begin} bytes`)
  for (const { number, begin: from, end: to } of fields(file, begin, end)) {
    if (number > 2) throw new RangeError('metadata that is no pair of strings')
    found[number - 1] = new TextDecoder('utf-8', { fatal: true }).decode(file.read(from, to))
  }
  return found
}

/** The first line of an error that others made. */
function line(error) {
  return String(error?.message ?? error).split('\n', 1)[0].slice(0, 300)
}
