// The model, off the page's own thread. In: {id, load: address or File} or {id, samples, rate, top}; out: {id, model | found, ms | error}.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

import { firstLine, Model, StapesError } from "./stapes.mjs";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
ort.env.logLevel = "error";

let model;

async function bytesOf(source) {
  if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  const response = await fetch(source).catch((error) => {
    throw new StapesError(`cannot fetch ${source}: ${firstLine(error)}`);
  });
  if (!response.ok) throw new StapesError(`there is no ${source} beside this page (${response.status}): start it with node serve.mjs MODEL`);
  return new Uint8Array(await response.arrayBuffer());
}

async function answer({ load, samples, rate, top }) {
  if (load !== undefined) {
    const bytes = await bytesOf(load);
    model = await Model.load(ort, bytes, bytes, load.name ?? load);
    const { name, rate, labels } = model.manifest;
    return { model: { name, rate, labels } };
  }
  const start = performance.now();
  const found = await model.classify(samples, rate, top);
  return { found, ms: performance.now() - start };
}

let last = Promise.resolve(); // one after the other
self.onmessage = ({ data }) => {
  last = last
    .then(() => answer(data))
    .then((found) => self.postMessage({ id: data.id, ...found }))
    .catch((error) => self.postMessage({ id: data.id, error: firstLine(error) }));
};
