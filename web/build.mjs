// Builds the static site: node web/build.mjs. Copies the page from src/mien/serve/page, the runtime from node_modules and
// the models to web/dist, which any static file server can serve.
//
// Also copies the runtime to src/mien/serve/page/runtime, where `mien serve` finds it; git and the wheel exclude it.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGE = join(HERE, "node_modules", "onnxruntime-web");
const MIEN = join(HERE, "..", "src", "mien");
const PAGE = join(MIEN, "serve", "page");
const SITE = join(HERE, "dist");

// What one thread of WebAssembly needs: the API, the loader and the kernels, without the builds for WebGPU and WebNN.
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
// File names in web/dist/models and the bundled models they hold.
const MODELS = { "blazeface-short-range": "blazeface-short-range", classifier: defaultModel() };

if (!existsSync(PACKAGE)) {
  console.error("onnxruntime-web is not installed; run `npm ci` in web/ first, or `make web`");
  process.exit(2);
}
const { version } = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf-8"));

copyRuntime(join(PAGE, "runtime"));
rmSync(SITE, { recursive: true, force: true });
cpSync(PAGE, SITE, { recursive: true });
cpSync(join(MIEN, "_page.css"), join(SITE, "base.css"));
mkdirSync(join(SITE, "models"));
for (const [file, name] of Object.entries(MODELS)) {
  const folder = join(MIEN, "bundled", name);
  cpSync(join(folder, "model.onnx"), join(SITE, "models", `${file}.onnx`));
  for (const file of ["LICENSE", "NOTICE"]) {
    if (existsSync(join(folder, file))) cpSync(join(folder, file), join(SITE, "models", `${name}.${file}`));
  }
}
const site = { server: false, runtime: true, token: false, unsure_below: thresholds(MODELS.classifier) };
writeFileSync(join(SITE, "site.json"), `${JSON.stringify(site)}\n`);
for (const name of RUNTIME) printSize(join("runtime", name));
for (const file of Object.keys(MODELS)) printSize(join("models", `${file}.onnx`));
console.log(`web/dist was built with ONNX Runtime Web ${version}`);

/** The name of the default model, read from mien/bundled/__init__.py. */
function defaultModel() {
  const source = readFileSync(join(MIEN, "bundled", "__init__.py"), "utf-8");
  return /^DEFAULT_MODEL = "([^"]+)"$/m.exec(source)[1];
}

/** The pairs [size of a face, threshold] in the card of a model. */
function thresholds(name) {
  const { sizes } = JSON.parse(readFileSync(join(MIEN, "bundled", name, "card.json"), "utf-8"));
  return Object.entries(sizes).map(([side, { unsure_below }]) => [Number(side), unsure_below]);
}

function copyRuntime(folder) {
  mkdirSync(folder, { recursive: true });
  for (const name of RUNTIME) copyFile(join(PACKAGE, "dist", name), join(folder, name));
  copyFile(join(HERE, "onnxruntime-web.LICENSE"), join(folder, "LICENSE")); // MIT; the npm package has no licence file
}

/** Copy a file unless it is already there: a server may be sending it. */
function copyFile(from, to) {
  if (!existsSync(to) || !readFileSync(from).equals(readFileSync(to))) cpSync(from, to);
}

function printSize(path) {
  console.log(`${(statSync(join(SITE, path)).size / 1e6).toFixed(2).padStart(6)} MB  ${path}`);
}
