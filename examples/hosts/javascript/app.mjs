// The page: sounds come in, spectrogram and labels go out. The model runs in worker.mjs, so that neither waits for the other.

import { Spectrogram } from "./spectrogram.mjs";

const MODEL = "model.onnx"; // beside the page; serve.mjs puts one there
const TOP = 5;
const LONGEST_S = 60; // of a file; longer ones are for a program
const WINDOW_S = 1; // what is heard of the microphone at once
const HOP_MS = 200;

const element = (id) => document.getElementById(id);
const worker = new Worker("worker.mjs", { type: "module" });
const spectrogram = new Spectrogram(element("spectrogram"));
let model; // {name, rate, labels} once it is loaded
let asked = 0;
let microphone;

const waiting = new Map();
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  data.error ? reject(new Error(data.error)) : resolve(data);
};
worker.onerror = (event) => fail(new Error(`the page's worker stopped: ${event.message ?? "it could not be loaded"}`));
const ask = (question, moved = []) =>
  new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, ...question }, moved);
  });

function fail(error) {
  element("error").textContent = error.message;
  element("error").hidden = false;
  element("labels").replaceChildren();
  element("time").textContent = "";
}

const attempt = (work) => {
  element("error").hidden = true;
  return work().catch(fail);
};

const load = (source) =>
  attempt(async () => {
    for (const id of ["file", "microphone"]) element(id).disabled = true;
    ({ model } = await ask({ load: source }));
    element("model").textContent = `${model.name}: ${model.labels.length} labels, ${model.rate} Hz`;
    for (const id of ["file", "microphone"]) element(id).disabled = false;
  });

const listen = (file) =>
  attempt(async () => {
    await silence();
    element("source").textContent = file.name;
    // decodes every format that the browser knows, and resamples to the context's rate
    const context = new OfflineAudioContext(1, 1, model.rate);
    const sound = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
      throw new Error(`${file.name} is no sound that this browser can decode: try wav, mp3, ogg or flac`);
    });
    if (sound.duration > LONGEST_S) throw new Error(`${file.name} lasts ${sound.duration.toFixed(0)} s; this page takes up to ${LONGEST_S} s`);
    const samples = mono(sound);
    spectrogram.whole(samples, model.rate);
    await answer(samples);
  });

function mono(sound) {
  const samples = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, i) => (samples[i] += value / sound.numberOfChannels));
  }
  return samples;
}

async function answer(samples) {
  const seconds = samples.length / model.rate;
  const { found, ms } = await ask({ samples, rate: model.rate, top: TOP });
  element("time").textContent = `${seconds.toFixed(2)} s of sound in ${ms.toFixed(0)} ms`;
  element("labels").replaceChildren(...found.map(row));
}

function row({ label, score }) {
  const item = document.createElement("li");
  const bar = Object.assign(document.createElement("div"), { role: "meter", ariaLabel: label, ariaValueMin: 0, ariaValueMax: 1, ariaValueNow: score });
  bar.append(document.createElement("div"));
  bar.firstChild.style.width = `${100 * score}%`;
  const number = Object.assign(document.createElement("data"), { value: String(score), textContent: `${(100 * score).toFixed(1)} %` });
  const name = Object.assign(document.createElement("span"), { textContent: label });
  item.append(name, bar, number);
  return item;
}

/** Starts the microphone: its last WINDOW_S are classified every HOP_MS, as soon as the last answer is there. */
const hear = () =>
  attempt(async () => {
    const quiet = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: quiet }).catch((error) => {
      throw new Error(`the microphone is not to be had (${error.message}): allow it for this page`);
    });
    const context = new AudioContext({ sampleRate: model.rate });
    await context.audioWorklet.addModule("recorder.mjs");
    const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    const heard = new Float32Array(Math.round(WINDOW_S * model.rate)); // the newest sample last
    recorder.port.onmessage = ({ data }) => {
      heard.copyWithin(0, data.length);
      heard.set(data, heard.length - data.length);
      spectrogram.more(data, model.rate);
    };
    context.createMediaStreamSource(stream).connect(recorder);
    spectrogram.clear();
    element("source").textContent = "Microphone";
    element("microphone").textContent = "Stop";
    element("microphone").setAttribute("aria-pressed", "true");
    let busy = false;
    const timer = setInterval(() => {
      if (busy) return;
      busy = true;
      answer(heard.slice())
        .catch(fail)
        .finally(() => (busy = false));
    }, HOP_MS);
    microphone = { stream, context, timer };
  });

async function silence() {
  if (!microphone) return;
  const { stream, context, timer } = microphone;
  microphone = undefined;
  clearInterval(timer);
  stream.getTracks().forEach((track) => track.stop());
  await context.close();
  element("microphone").textContent = "Listen to the microphone";
  element("microphone").setAttribute("aria-pressed", "false");
}

element("file").onchange = ({ target }) => {
  const [file] = target.files;
  if (file) listen(file).finally(() => (target.value = "")); // the same file may be chosen again
};
element("other").onchange = ({ target }) => target.files[0] && silence().then(() => load(target.files[0]));
element("microphone").onclick = () => (microphone ? silence() : hear());
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", over);
    if (name === "drop" && model && event.dataTransfer.files[0]) listen(event.dataTransfer.files[0]);
  });
}
load(MODEL);
