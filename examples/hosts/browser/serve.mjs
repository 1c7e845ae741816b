// node serve.mjs [MODEL] [PORT]: the page on this machine alone, with MODEL (the embedded one where none is named) beside it.

import { createReadStream } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = fileURLToPath(new URL('.', import.meta.url))
const [model = resolve(here, '../../../runtime/stapes/models/speech-commands.onnx'), port = '8000'] = process.argv.slice(2)

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css',
  '.mjs': 'text/javascript',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm' // without it browsers do not compile while they load
}
const HEADERS = {
  'Cross-Origin-Opener-Policy': 'same-origin', // these two give WebAssembly its threads
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Content-Security-Policy': "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'",
  'Cache-Control': 'no-cache'
}

/** The file behind a path of the page; undefined where there is none to be had. */
function fileOf(path) {
  if (path === '/') return resolve(here, 'index.html')
  if (path === '/model.onnx') return resolve(model)
  if (path === '/stapes.mjs') return resolve(here, '../node/stapes.mjs') // one copy for both hosts
  const [, folder, name] = /^\/(ort\/)?([\w-][\w.-]*\.(?:css|mjs|svg|wasm))$/.exec(path) ?? []
  return name && resolve(here, folder ? 'node_modules/onnxruntime-web/dist' : '.', name)
}

const server = createServer(async (request, response) => {
  const file = fileOf(request.url.split('?', 1)[0])
  const found = file && (await stat(file).catch(() => undefined))
  if (!found?.isFile()) return response.writeHead(404).end('no such file\n')
  response.writeHead(200, { ...HEADERS, 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream', 'Content-Length': found.size })
  createReadStream(file).on('error', () => response.destroy()).pipe(response)
})

const missing = async (path) => access(path).then(() => false, () => true)
if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) fail(`${port} is no port: node serve.mjs [MODEL] [PORT]`)
else if (await missing(model)) fail(`no model at ${model}: name one`)
else if (await missing(resolve(here, 'node_modules/onnxruntime-web'))) fail('onnxruntime-web is not installed: run npm install here')
else server.once('error', ({ message }) => fail(message)).listen(Number(port), '127.0.0.1', greet)

function greet() {
  console.log(`http://localhost:${server.address().port}/`)
}

function fail(message) {
  console.error(`serve: ${message}`)
  process.exitCode = 2
}
