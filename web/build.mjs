// Puts the static site together: node web/build.mjs. The page's own files live in src/mien/serve/page; this adds the
// runtime from node_modules and the models, so that web/dist can be served by anything that serves files.
//
// The runtime is also laid into src/mien/serve/page/runtime, where `mien serve` finds it; git and the wheel leave it out.

import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGE = join(HERE, "node_modules", "onnxruntime-web");
const MIEN = join(HERE, "..", "src", "mien");
const PAGE = join(MIEN, "serve", "page");
const SITE = join(HERE, "dist");

// All that one thread of WebAssembly needs: the API, the loader and the kernels. The other builds (WebGPU, WebNN) stay out.
const RUNTIME = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
// Their files, and which they are.
const MODELS = { "blazeface-short-range": "blazeface-short-range", classifier: defaultModel() };

if (!existsSync(PACKAGE)) {
  console.error("onnxruntime-web is not installed; run `npm ci` in web/ first, or `make web`");
  process.exit(2);
}
const { version } = JSON.parse(readFileSync(join(PACKAGE, "package.json"), "utf-8"));

layRuntime(join(PAGE, "runtime"));
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
writeFileSync(join(SITE, "site.json"), `${JSON.stringify({ server: false, runtime: true, token: false, abstain: 0 })}\n`);
for (const name of RUNTIME) tell(join("runtime", name));
for (const file of Object.keys(MODELS)) tell(join("models", `${file}.onnx`));
console.log(`web/dist is the site, with ONNX Runtime Web ${version}`);

/** The model that reads where nobody names one, from the one place that says it. */
function defaultModel() {
  const said = readFileSync(join(MIEN, "bundled", "__init__.py"), "utf-8");
  return /^DEFAULT_MODEL = "([^"]+)"$/m.exec(said)[1];
}

function layRuntime(folder) {
  mkdirSync(folder, { recursive: true });
  for (const name of RUNTIME) layFile(join(PACKAGE, "dist", name), join(folder, name));
  layFile(join(HERE, "onnxruntime-web.LICENSE"), join(folder, "LICENSE")); // MIT; the npm package carries none
}

/** Copy a file unless it is there: a server may be sending it just now. */
function layFile(from, to) {
  if (!existsSync(to) || !readFileSync(from).equals(readFileSync(to))) cpSync(from, to);
}

function tell(path) {
  console.log(`${(statSync(join(SITE, path)).size / 1e6).toFixed(2).padStart(6)} MB  ${path}`);
}
