// The worker of transformers.js: worker.py's protocol, in Node. NODE_PATH-free: run in the folder whose node_modules has the package.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { lstatSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const STARTED = now();
const [folder] = process.argv.slice(2);
const PACKAGE = "@huggingface/transformers";
console.log = console.info = console.warn = console.error; // what the library says is no reply

let model, extractor, labels, runs;
const clips = new Map();

function now() {
  return Number(process.hrtime.bigint()) / 1e9; // CLOCK_MONOTONIC, as Python's time.monotonic
}

function read(file) {
  if (!clips.has(file)) {
    const bytes = readFileSync(file);
    clips.set(file, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4).slice());
  }
  return clips.get(file);
}

async function logits(batch) {
  const rows = await Promise.all(batch.map((clip) => extractor(clip)));
  const name = Object.keys(rows[0])[0];
  const inputs = { [name]: batch.length === 1 ? rows[0][name] : runs.cat(rows.map((row) => row[name]), 0) };
  return (await model(inputs)).logits;
}

async function scores(batch) {
  const found = [];
  for (const row of await logits(batch)) {
    const values = runs.softmax(Array.from(row.data));
    found.push(values.map((score, index) => ({ label: labels[index], score })).sort((a, b) => b.score - a.score).slice(0, 5));
  }
  return found;
}

function bytes(path) {
  const found = lstatSync(path);
  return found.isDirectory() ? readdirSync(path).reduce((sum, name) => sum + bytes(join(path, name)), 0) : found.size;
}

const REQUESTS = {
  async load({ job }) {
    const require = createRequire(join(folder, "index.js"));
    let entry;
    try {
      entry = require.resolve(PACKAGE);
    } catch {
      return { absent: PACKAGE };
    }
    runs = await import(pathToFileURL(entry));
    runs = runs.default ?? runs;
    const imported = now();
    runs.env.allowRemoteModels = false;
    const options = { dtype: job.variant, device: "cpu", session_options: { intraOpNumThreads: job.threads, interOpNumThreads: 1 } };
    model = await runs.AutoModelForAudioClassification.from_pretrained(job.prepared, options);
    extractor = await runs.AutoProcessor.from_pretrained(job.prepared);
    labels = model.config.id2label;
    return { started: STARTED, imported, loaded: now(), versions: { [PACKAGE]: runs.env.version, node: process.versions.node } };
  },
  async first({ clip }) {
    await scores([read(clip)]);
    const answered = now();
    let peak = process.resourceUsage().maxRSS;
    try {
      peak = Number(readFileSync("/proc/self/status", "utf8").match(/VmHWM:\s*(\d+)/)[1]);
    } catch {} // not Linux
    return { answered, peak_mb: peak / 1024 };
  },
  async logits({ batch }) {
    return { logits: (await logits(batch.map(read))).tolist() };
  },
  async time({ batches, calls, budget_s }) {
    const ready = batches.map((batch) => batch.map(read));
    await scores(ready[0]);
    const seconds = [];
    let spent = 0;
    while (seconds.length < calls && spent < budget_s) {
      const start = now();
      await scores(ready[seconds.length % ready.length]);
      seconds.push(now() - start);
      spent += seconds.at(-1);
    }
    return { seconds };
  },
  async installed() {
    return { bytes: bytes(join(folder, "node_modules")) };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...request } = JSON.parse(line);
  let reply;
  try {
    reply = await REQUESTS[name](request);
  } catch (error) {
    reply = { error: `${error.name}: ${error.message}`.replace(/\s+/g, " ").slice(0, 300) };
  }
  process.stdout.write(JSON.stringify(reply) + "\n");
}
