/** RIFF/WAVE files as mono samples: PCM of 8 to 32 bits and floats of 32 and 64, channels averaged. */

import { StapesError } from './stapes.mjs'

const [PCM, FLOAT, EXTENSIBLE] = [1, 3, 0xfffe]

/** {samples: Float32Array, rate} of the bytes of a WAV file. */
export function readWave(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const name = (at) => String.fromCharCode(...bytes.subarray(at, at + 4))
  if (bytes.length < 12 || name(0) !== 'RIFF' || name(8) !== 'WAVE') throw new StapesError('the clip is no WAV file: convert it to WAV')
  let format
  for (let at = 12; at + 8 <= bytes.length; ) {
    const [id, size, begin] = [name(at), view.getUint32(at + 4, true), at + 8]
    if (begin + size > bytes.length) {
      throw new StapesError(`the clip is truncated: its ${id} chunk says ${size} bytes, and ${bytes.length - begin} are left`)
    }
    if (id === 'fmt ') format = readFormat(view, begin, size)
    if (id === 'data') return decode(view, begin, size, format)
    at = begin + size + (size % 2)
  }
  throw new StapesError('the clip is a WAV file without a data chunk: it holds no sound')
}

function readFormat(view, begin, size) {
  if (size < 16) throw new StapesError(`the clip is damaged: its fmt chunk has ${size} bytes, and the shortest has 16`)
  let kind = view.getUint16(begin, true)
  if (kind === EXTENSIBLE && size >= 26) kind = view.getUint16(begin + 24, true) // the first half of the subformat's GUID
  const [channels, rate, bits] = [view.getUint16(begin + 2, true), view.getUint32(begin + 4, true), view.getUint16(begin + 14, true)]
  if (!channels || !rate) throw new StapesError(`the clip is damaged: ${channels} channels at ${rate} Hz`)
  return { kind, channels, rate, bits }
}

function decode(view, begin, size, format) {
  if (!format) throw new StapesError('the clip is damaged: its data chunk comes before its fmt chunk')
  const { kind, channels, rate, bits } = format
  const sample = { [PCM]: { 8: pcm8, 16: pcm16, 24: pcm24, 32: pcm32 }, [FLOAT]: { 32: float32, 64: float64 } }[kind]?.[bits]
  if (!sample) throw new StapesError(`the clip is a WAV file of format ${kind} with ${bits} bits: convert it to 16-bit PCM`)
  const width = bits / 8
  const samples = new Float32Array(Math.floor(size / width / channels))
  for (let frame = 0, at = begin; frame < samples.length; frame++) {
    let sum = 0
    for (let channel = 0; channel < channels; channel++, at += width) sum += sample(view, at)
    samples[frame] = sum / channels
  }
  return { samples, rate }
}

const pcm8 = (view, at) => (view.getUint8(at) - 128) / 2 ** 7
const pcm16 = (view, at) => view.getInt16(at, true) / 2 ** 15
const pcm24 = (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23
const pcm32 = (view, at) => view.getInt32(at, true) / 2 ** 31
const float32 = (view, at) => view.getFloat32(at, true)
const float64 = (view, at) => view.getFloat64(at, true)
