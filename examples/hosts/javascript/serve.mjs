// node serve.mjs MODEL [PORT]: the page, with that model beside it, to this machine alone. Port 0 takes a free one; the address is printed.

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const TYPES = { ".css": "text/css", ".html": "text/html", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" }; // for threads in wasm

const folder = fileURLToPath(new URL(".", import.meta.url));
const [model, port = "8000"] = process.argv.slice(2);
const isFile = (path) => statSync(path, { throwIfNoEntry: false })?.isFile();
if (!model || !isFile(model) || !/^\d{1,5}$/.test(port)) {
  console.error(model && !isFile(model) ? `stapes: there is no model ${model}` : "stapes: give a model, and perhaps a port: node serve.mjs MODEL [PORT]");
  process.exit(2);
}

const server = createServer((request, response) => {
  let path;
  try {
    path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  } catch {
    path = "";
  }
  const file = path === `${sep}model.onnx` ? resolve(model) : join(folder, path === sep ? "index.html" : path);
  if (path.includes("\0") || !["GET", "HEAD"].includes(request.method) || (file !== resolve(model) && !file.startsWith(folder)) || !isFile(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Cache-Control": "no-cache", ...ISOLATED });
  createReadStream(file).pipe(response);
});
server.on("error", (error) => {
  console.error(`stapes: cannot serve on port ${port}: ${error.code}`);
  process.exit(2);
});
server.listen(Number(port), "127.0.0.1", () => console.log(`http://localhost:${server.address().port}/`));
