// What the static site (build.mjs) and the npm package (pack.mjs) have in common: the runtime, the models, their licences.

import { cpSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const HERE = dirname(fileURLToPath(import.meta.url));
export const MIEN = join(HERE, "..", "src", "mien");
export const PAGE = join(MIEN, "serve", "page");
const PACKAGE = join(HERE, "node_modules", "onnxruntime-web");

// What one thread of WebAssembly needs: the API, the loader and the kernels, without the builds for WebGPU and WebNN.
export const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
/** File names in the folder models/ and the bundled models they hold. */
export const MODELS = { "blazeface-short-range": "blazeface-short-range", classifier: defaultModel() };

/** The version of the installed ONNX Runtime Web; ends the process if there is none. */
export function runtimeVersion() {
  if (!existsSync(PACKAGE)) {
    console.error("onnxruntime-web is not installed; run `npm ci` in web/ first, or `make web`");
    process.exit(2);
  }
  return JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf-8")).version;
}

/** Copy the runtime with its licence. */
export function copyRuntime(folder) {
  mkdirSync(folder, { recursive: true });
  for (const name of RUNTIME) copyFile(join(PACKAGE, "dist", name), join(folder, name));
  copyFile(join(HERE, "onnxruntime-web.LICENSE"), join(folder, "LICENSE")); // MIT; the npm package has no licence file
}

/** Copy the models with their licences and notices. */
export function copyModels(folder) {
  mkdirSync(folder, { recursive: true });
  for (const [file, name] of Object.entries(MODELS)) {
    const from = join(MIEN, "bundled", name);
    cpSync(join(from, "model.onnx"), join(folder, `${file}.onnx`));
    for (const text of ["LICENSE", "NOTICE", "card.md"]) {
      if (existsSync(join(from, text))) cpSync(join(from, text), join(folder, `${name}.${text}`));
    }
  }
}

/** Write site.json: what a page without a server can use, and from which probability on an answer counts as sure. */
export function writeSite(folder) {
  const site = { server: false, runtime: true, token: false, unsure_below: thresholds(MODELS.classifier), min_quality: 0 };
  writeFileSync(join(folder, "site.json"), `${JSON.stringify(site)}\n`);
}

/** "12.34 MB  name" for files of a folder. */
export function printSizes(folder, names) {
  for (const name of names) console.log(`${(statSync(join(folder, name)).size / 1e6).toFixed(2).padStart(6)} MB  ${name}`);
}

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

/** Copy a file unless it is already there: a server may be sending it. */
function copyFile(from, to) {
  if (!existsSync(to) || !readFileSync(from).equals(readFileSync(to))) cpSync(from, to);
}
