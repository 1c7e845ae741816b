// node classify.mjs MODEL WAV [K]: the K best labels of a sound (default 5), as lines of label and score with a tab between.
// Exit status 0; 1 where the sound has no answer, 2 where the model or the command line is wrong.

import { readFile } from "node:fs/promises";

import * as ort from "onnxruntime-node";

import { firstLine, Model, readWav, StapesError } from "./stapes.mjs";

const fail = (status, error) => {
  const read = error.code && `cannot read ${error.path ?? "a file"}: ${error.code}`; // of the file system
  console.error(`stapes: ${error instanceof StapesError ? error.message : (read ?? firstLine(error))}`);
  process.exit(status);
};

const [path, wav, top = "5", ...more] = process.argv.slice(2);
if (!wav || more.length || !/^[1-9]\d{0,5}$/.test(top)) {
  fail(2, new StapesError("give a model, a WAV file and perhaps how many labels: node classify.mjs MODEL WAV [K]"));
}
const model = await readFile(path)
  .then((bytes) => Model.load(ort, path, bytes, path))
  .catch((error) => fail(2, error));
await readFile(wav)
  .then((bytes) => readWav(bytes, wav))
  .then(({ samples, rate }) => model.classify(samples, rate, Number(top)))
  .then((found) => console.log(found.map(({ label, score }) => `${label}\t${score.toFixed(6)}`).join("\n")))
  .catch((error) => fail(1, error));
