// What a JavaScript host of a stapes file needs beside ONNX Runtime: the manifest, which its JavaScript API does not show, checks that say
// in a sentence what is wrong with a sound, and labels in order. Runs in Node and in browsers; see docs/artifact.md for the contract.

const SCHEMA = 1; // the newest manifest that this file understands
const MOST_SAMPLES = 2 ** 26; // of one call: 70 minutes at 16 kHz

/** What is wrong with a model or a sound, in one sentence. */
export class StapesError extends Error {}

/** A model: its manifest, its session, and how to ask it. */
export class Model {
  /** `source`: what ort's InferenceSession.create takes; `bytes`: the file, a Uint8Array. */
  static async load(ort, source, bytes, name = "the model") {
    const manifest = manifestOf(bytes, name);
    try {
      return new Model(ort, await ort.InferenceSession.create(source), manifest);
    } catch (error) {
      const file = /external/i.test(error?.message) && weightsFile(bytes);
      if (file) throw new StapesError(`${name} keeps its weights in ${file}: put that file beside it, and load it by its path, as a page cannot`);
      throw new StapesError(`ONNX Runtime cannot load ${name}: ${firstLine(error)}`);
    }
  }

  constructor(ort, session, manifest) {
    Object.assign(this, { ort, session, manifest });
  }

  /** The `top` best of one clip, [{label, score, index}], best first. `samples`: one channel, full scale at 1, a Float32Array. */
  async classify(samples, rate, top = 5) {
    check(samples, rate, this.manifest);
    if (!Number.isInteger(top) || top < 1) throw new StapesError(`the number of labels to show is a whole number from 1 on, not ${top}`);
    const feeds = {
      waveform: new this.ort.Tensor("float32", samples, [1, samples.length]),
      lengths: new this.ort.Tensor("int64", BigInt64Array.of(BigInt(samples.length)), [1]),
    };
    const { scores } = await this.session.run(feeds, ["scores"]);
    return Array.from(scores.data, (score, index) => ({ label: this.manifest.labels[index], score, index }))
      .sort((a, b) => b.score - a.score || a.index - b.index)
      .slice(0, top);
  }
}

/** The manifest in an ONNX file. Found without an ONNX library: entries of the outermost message's field 14, pairs of strings. */
export function manifestOf(bytes, name = "the model") {
  let text;
  try {
    for (const [field, value] of fields(bytes)) {
      if (field !== 14) continue;
      const entry = new Map(fields(value));
      if (decode(entry.get(1)) === "stapes") text = decode(entry.get(2));
    }
  } catch {
    throw new StapesError(`${name} is no ONNX file, or only a part of one: fetch or export it again`);
  }
  if (text === undefined) throw new StapesError(`${name} says nothing of stapes in its metadata: export it by stapes export`);
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new StapesError(`the manifest of ${name} is not JSON: the file is damaged, export it again`);
  }
  if (manifest?.schema > SCHEMA) {
    throw new StapesError(`${name} has manifest schema ${manifest.schema} and this host reads up to ${SCHEMA}: take a newer host`);
  }
  const { rate, labels, frontend } = manifest ?? {};
  const sound = Number.isInteger(rate) && rate > 0 && Number.isInteger(frontend?.min_samples);
  if (manifest?.schema !== SCHEMA || !sound || !Array.isArray(labels) || !labels.length || !labels.every((label) => typeof label === "string")) {
    throw new StapesError(`the manifest of ${name} lacks its schema, rate, labels or frontend: the file is damaged, export it again`);
  }
  return manifest;
}

/** Throws a StapesError where a model has no answer for the sound. */
export function check(samples, rate, manifest) {
  const least = manifest.frontend.min_samples;
  if (rate !== manifest.rate) {
    throw new StapesError(
      `the sound has ${rate} Hz and the model takes ${manifest.rate}: resample it, or export the model with --input-rate ${rate}`,
    );
  }
  if (!samples.length) throw new StapesError("the sound has no samples");
  if (samples.length < least) throw new StapesError(`the sound has ${samples.length} samples and the model needs ${least} at least`);
  if (samples.length > MOST_SAMPLES) {
    throw new StapesError(`the sound has ${samples.length} samples; up to ${MOST_SAMPLES} go at once: classify it in windows`);
  }
  const bad = samples.findIndex((sample) => !Number.isFinite(sample));
  if (bad >= 0) throw new StapesError(`sample ${bad} of the sound is ${samples[bad]}, which is no sound: every sample is a finite number`);
}

const FORMATS = {
  "1 8": [1, (view, at) => (view.getUint8(at) - 128) / 128],
  "1 16": [2, (view, at) => view.getInt16(at, true) / 32768],
  "1 24": [3, (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 8388608],
  "1 32": [4, (view, at) => view.getInt32(at, true) / 2147483648],
  "3 32": [4, (view, at) => view.getFloat32(at, true)],
  "3 64": [8, (view, at) => view.getFloat64(at, true)],
};

/** A WAV file's sound, {samples, rate}, channels averaged. */
export function readWav(bytes, name = "the file") {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const word = (at) => (at + 4 <= bytes.length ? String.fromCharCode(...bytes.subarray(at, at + 4)) : "");
  if (word(0) !== "RIFF" || word(8) !== "WAVE") throw new StapesError(`${name} is no WAV file: convert it to one`);
  let format;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const size = view.getUint32(at + 4, true);
    const body = at + 8;
    if (word(at) === "fmt " && size >= 16 && body + 16 <= bytes.length) {
      const plain = view.getUint16(body, true);
      const kind = plain === 0xfffe && size >= 26 && body + 26 <= bytes.length ? view.getUint16(body + 24, true) : plain;
      format = { kind, channels: view.getUint16(body + 2, true), rate: view.getUint32(body + 4, true), bits: view.getUint16(body + 14, true) };
    }
    if (word(at) === "data") {
      if (!format) break;
      const [width, sample] = FORMATS[`${format.kind} ${format.bits}`] ?? [];
      const { channels, rate } = format;
      if (!width || !channels || channels > 64 || !rate) {
        throw new StapesError(`${name} is a WAV file of format ${format.kind} with ${format.bits} bits in ${channels} channels: convert it to PCM`);
      }
      // a file that was cut gives what is there
      const frames = Math.floor(Math.min(size, bytes.length - body) / (width * channels));
      const samples = new Float32Array(frames);
      for (let i = 0; i < frames; i++) {
        let sum = 0;
        for (let channel = 0; channel < channels; channel++) sum += sample(view, body + (i * channels + channel) * width);
        samples[i] = sum / channels;
      }
      return { samples, rate };
    }
    at = body + size + (size & 1);
  }
  throw new StapesError(`${name} is a WAV file without sound in it`);
}

/** The first file beside the model that holds weights: what stands behind the key `location` of a tensor. */
function weightsFile(bytes) {
  const key = new TextEncoder().encode("\n\blocation\x12");
  for (let at = bytes.indexOf(key[0]); at >= 0; at = bytes.indexOf(key[0], at + 1)) {
    const name = at + key.length + 1; // behind its size
    if (key.every((byte, i) => bytes[at + i] === byte)) return new TextDecoder().decode(bytes.subarray(name, name + bytes[name - 1]));
  }
  return undefined;
}

/** [field number, bytes or number] of a protobuf message, in order. Throws where it is none. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= bytes.length || scale > 2 ** 63) throw new RangeError("no end");
      value += (bytes[at] & 127) * scale;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key % 8;
    const size = kind === 0 ? 0 : kind === 1 ? 8 : kind === 2 ? varint() : kind === 5 ? 4 : NaN;
    const value = kind === 0 ? varint() : bytes.subarray(at, at + size);
    if (!(at + size <= bytes.length)) throw new RangeError("beyond the end");
    at += size;
    yield [Math.floor(key / 8), value];
  }
}

const decode = (bytes) => (bytes instanceof Uint8Array ? new TextDecoder("utf-8", { fatal: true }).decode(bytes) : undefined);

export const firstLine = (error) => String(error?.message ?? error).split("\n", 1)[0].slice(0, 400);
