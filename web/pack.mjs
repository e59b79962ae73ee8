// Builds the npm package: node web/pack.mjs [FOLDER]. Copies web/npm, the page's modules that it imports, the runtime and
// the models to FOLDER/package (FOLDER is build/npm unless given), and packs them as FOLDER/mien-reader-VERSION.tgz.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { copyModels, copyRuntime, HERE, MIEN, MODELS, PAGE, runtimeVersion, writeSite } from "./parts.mjs";

const SOURCE = join(HERE, "npm");
const FOLDER = resolve(process.argv[2] ?? join(HERE, "..", "build", "npm"));
const PACKAGE = join(FOLDER, "package");
const WORKER = "worker.mjs"; // browser.mjs starts it by its address

const runtime = runtimeVersion();
rmSync(PACKAGE, { recursive: true, force: true });
mkdirSync(FOLDER, { recursive: true });
cpSync(SOURCE, PACKAGE, { recursive: true });
for (const name of modules(readFileSync(join(SOURCE, "index.mjs"), "utf-8"))) {
  cpSync(join(PAGE, name), join(PACKAGE, name));
}
copyRuntime(join(PACKAGE, "runtime"));
copyModels(join(PACKAGE, "models"));
writeSite(PACKAGE);
cpSync(join(HERE, "..", "LICENSE"), join(PACKAGE, "LICENSE"));
const version = /^__version__ = "([^"]+)"$/m.exec(readFileSync(join(MIEN, "__init__.py"), "utf-8"))[1];
fill("package.json", { version });
fill("NOTICE", { runtime, classifier: MODELS.classifier });
fill("README.md", { version, runtime, classifier: MODELS.classifier });
const { size, unpackedSize } = pack("--dry-run");
fill("README.md", { packed: megabytes(size), unpacked: megabytes(unpackedSize) }); // as many letters as the names have
const { filename } = pack("--pack-destination", FOLDER);
console.log(`${join(FOLDER, filename)}: ${megabytes(size)} MB, unpacked ${megabytes(unpackedSize)} MB, with ONNX Runtime Web ${runtime}`);

/** The names of all modules of the page that a text imports, directly or through others. */
function modules(text) {
  const [found, waiting] = [new Set(), [WORKER, ...imports(text)]];
  while (waiting.length > 0) {
    const name = waiting.pop();
    if (found.has(name)) continue;
    found.add(name);
    waiting.push(...imports(readFileSync(join(PAGE, name), "utf-8")));
  }
  return found;
}

function imports(text) {
  return [...text.matchAll(/^(?:import|export) .*from "\.\/([a-z]+\.mjs)";$/gm)].map(([, name]) => name);
}

/** Replace each {{name}} of a file by its value. */
function fill(file, values) {
  const path = join(PACKAGE, file);
  const fillOne = (text, [name, value]) => text.replaceAll(`{{${name}}}`, value);
  writeFileSync(path, Object.entries(values).reduce(fillOne, readFileSync(path, "utf-8")));
}

function pack(...options) {
  const answer = execFileSync("npm", ["pack", "--json", ...options], { cwd: PACKAGE, encoding: "utf-8", stdio: ["ignore", "pipe", "pipe"] });
  return JSON.parse(answer)[0];
}

function megabytes(bytes) {
  return (bytes / 1e6).toFixed(1);
}
