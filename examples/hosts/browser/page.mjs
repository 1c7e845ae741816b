/** The page: a model, a clip or the microphone, and what is heard in it. */

import { listen } from './microphone.mjs'
import { Model } from './model.mjs'
import { Spectrogram } from './spectrogram.mjs'
import { StapesError } from './stapes.mjs'
import { Words } from './words.mjs'

const SHOWN = 6 // labels
const LIVE_S = 6 // seconds of the microphone on the screen
const WINDOW_S = 1 // of them go through the model
const EVERY_S = 0.125 // and as often as this, or as the model can
const LONGEST_S = 60
const LARGEST = 2 ** 28 // bytes of a clip's file, which is read whole

const at = (id) => document.getElementById(id)
const model = new Model()
const spectrogram = new Spectrogram(at('spectrogram'))
const words = new Words(at('words'))
let manifest
let stop // ends listening
let turn = 0 // what began before the newest request shows nothing any more

// What a person can do

at('listen').onclick = () => attempt(stop ? rest : hearMicrophone)
at('clip-file').onchange = ({ target }) => take([...target.files], target)
at('model-file').onchange = ({ target }) => take([...target.files], target)
for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault()
    at('drop').classList.toggle('over', kind === 'dragenter' || kind === 'dragover')
    if (kind === 'drop') take([...event.dataTransfer.files])
  })
}
attempt(openDefault)

/** Models by their names, everything else as a clip. */
function take(files, input) {
  if (input) input.value = '' // so that the same file can be chosen again
  if (!files.length) return
  const isModel = files.some(({ name }) => /\.onnx$/i.test(name))
  attempt(isModel ? () => openFiles(files) : () => hearFile(files[0]))
}

/** Runs `action`; what is wrong with it is one sentence on the page. */
async function attempt(action) {
  at('error').hidden = true
  try {
    await action()
  } catch (error) {
    if (stop) rest()
    const text = error instanceof StapesError ? error.message : `this failed without a known reason (${error.name}: ${error.message})`
    at('error').textContent = `${text[0].toUpperCase()}${text.slice(1)}.`
    at('error').hidden = false
    at('status').textContent = manifest ? 'Ready' : 'No model: open one'
  }
}

// Models

async function openDefault() {
  const answer = await fetch('model.onnx').catch(() => undefined)
  if (!answer?.ok) throw new StapesError('there is no model.onnx beside this page: open a model, or name one to the server')
  await open(new Uint8Array(await answer.arrayBuffer()))
}

async function openFiles(files) {
  rest()
  at('status').textContent = 'Loading the model…'
  const bytes = await Promise.all(files.map(async (file) => ({ path: file.name, data: new Uint8Array(await file.arrayBuffer()) })))
  const main = bytes.find(({ path }) => /\.onnx$/i.test(path))
  await open(main.data, bytes.filter((file) => file !== main))
}

async function open(bytes, weights) {
  const size = bytes.length
  manifest = await model.open(bytes, weights)
  const { name, labels, rate } = manifest
  at('model').textContent = `${name} · ${labels.length} labels · ${rate / 1000} kHz · ${(size / 1e6).toFixed(1)} MB`
  at('listen').disabled = at('clip-file').disabled = false
  at('status').textContent = 'Ready'
  show([])
}

// Sound

async function hearFile(file) {
  if (!manifest) throw new StapesError('there is no model yet: open one first')
  rest()
  const mine = ++turn
  at('status').textContent = `Reading ${file.name}…`
  const samples = await decode(file)
  const seconds = samples.length / manifest.rate
  const { predictions, ms, samples: heard } = await model.classify(samples, manifest.rate)
  if (mine !== turn) return
  draw(`${file.name} · ${seconds.toFixed(2)} s`, seconds)
  spectrogram.push(heard)
  spectrogram.push(new Float32Array(512)) // to the middle of the last frame
  spectrogram.paint()
  at('window').hidden = true
  report('file', heard, predictions, ms)
}

/** The file as mono samples at the model's rate: the browser decodes and resamples. */
async function decode(file) {
  if (file.size > LARGEST) {
    const [has, most] = [file.size, LARGEST].map((bytes) => Math.round(bytes / 1e6))
    throw new StapesError(`“${file.name}” has ${has} MB, more than the ${most} MB that this page takes: cut it`)
  }
  const context = new OfflineAudioContext(1, 1, manifest.rate)
  const sound = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new StapesError(`“${file.name}” holds no sound that this browser can decode: convert it to WAV or MP3`)
  })
  if (sound.duration > LONGEST_S) {
    throw new StapesError(`“${file.name}” lasts ${Math.round(sound.duration)} s and this page takes ${LONGEST_S} s at once: cut it`)
  }
  const samples = new Float32Array(sound.length)
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => (samples[i] += value / sound.numberOfChannels))
  }
  return samples
}

async function hearMicrophone() {
  const { rate, frontend } = manifest
  const mine = ++turn
  const size = Math.max(Math.round(WINDOW_S * rate), frontend.min_samples)
  let ring = new Float32Array(size)
  let [filled, since, busy] = [0, 0, false]
  const hear = (block) => {
    if (mine !== turn || !stop) return
    spectrogram.push(block)
    ring.copyWithin(0, block.length)
    ring.set(block, size - block.length)
    filled += block.length
    since += block.length
    if (busy || filled < size || since < EVERY_S * rate) return
    ;[busy, since] = [true, 0]
    const middle = (filled - size / 2) / rate
    attempt(async () => {
      const { predictions, ms, samples } = await model.classify(ring.slice(), rate)
      busy = false
      if (mine !== turn) return
      words.hear(predictions[0], middle)
      report('microphone', samples, predictions, ms)
    })
  }
  at('status').textContent = 'Asking for the microphone…'
  at('listen').disabled = true
  const end = await listen(rate, hear, () => attempt(lost)).finally(() => (at('listen').disabled = false))
  if (mine !== turn) return end() // something else was asked for in the meantime
  stop = end
  draw('microphone', LIVE_S)
  at('window').style.width = `${(100 * size) / rate / LIVE_S}%`
  at('window').textContent = `${size / rate} s heard`
  at('window').hidden = false
  at('listen').textContent = 'Stop'
  at('listen').setAttribute('aria-pressed', 'true')
  at('status').textContent = 'Listening…'
  const paint = () => {
    if (mine !== turn) return
    spectrogram.paint()
    words.move(filled / rate)
    requestAnimationFrame(paint)
  }
  paint()
}

function lost() {
  throw new StapesError('the microphone went away: connect it again')
}

/** Ends listening, if it goes on. */
function rest() {
  turn += 1
  stop?.()
  stop = undefined
  at('listen').textContent = 'Listen'
  at('listen').setAttribute('aria-pressed', 'false')
  at('status').textContent = 'Ready'
}

// What is shown

function draw(source, seconds) {
  spectrogram.reset(manifest.rate, seconds)
  words.reset(seconds)
  at('hint').hidden = true
  at('source').textContent = source
  const kilohertz = [0.5, 1, 2, 4, 8, 16].filter((k) => k < manifest.rate / 2000)
  at('frequencies').replaceChildren(...kilohertz.map((k) => mark(`${k} kHz`, 'bottom', spectrogram.height(1000 * k))))
  const ago = (part) => (part < 1 ? `${(part - 1) * seconds} s` : 'now')
  const since = (part) => `${(part * seconds).toFixed(2)} s`
  const time = source === 'microphone' ? ago : since
  at('times').replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((part) => mark(time(part), 'left', part)))
}

function mark(text, side, part) {
  const span = document.createElement('span')
  span.textContent = text
  span.style[side] = `${100 * part}%`
  return span
}

function report(source, samples, predictions, ms) {
  show(predictions.slice(0, SHOWN))
  const [{ label, score }] = predictions
  at('time').textContent = `${ms.toFixed(0)} ms for ${(samples.length / manifest.rate).toFixed(2)} s`
  at('spectrogram').setAttribute('aria-label', `Spectrogram of ${at('source').textContent}`)
  const heard = `Heard ${label}` // said aloud where it changes, and not with every figure
  if (source === 'file') at('status').textContent = `${heard}, ${percent(score)}`
  else if (score > 0.5 && at('status').textContent !== heard) at('status').textContent = heard
  document.dispatchEvent(new CustomEvent('heard', { detail: { source, samples, predictions, ms } }))
}

function show(predictions) {
  const list = at('labels')
  while (list.children.length > predictions.length) list.lastChild.remove()
  predictions.forEach(({ label, score }, i) => {
    const row = list.children[i] ?? list.appendChild(document.createElement('li'))
    if (!row.children.length) row.append(...['b', 'span', 'i'].map((tag) => document.createElement(tag)))
    const [name, figure, bar] = row.children
    name.textContent = label
    figure.textContent = percent(score)
    bar.style.setProperty('--score', Math.min(1, Math.max(0, score)))
  })
}

const percent = (score) => `${(100 * score).toFixed(1)} %`
