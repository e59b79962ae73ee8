// Builds the static site: node web/build.mjs. Copies the page from src/mien/serve/page, the runtime from node_modules and
// the models to web/dist, which any static file server can serve.
//
// Also copies the runtime to src/mien/serve/page/runtime, where `mien serve` finds it; git and the wheel exclude it.

import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";

import { copyModels, copyRuntime, HERE, MIEN, MODELS, PAGE, printSizes, RUNTIME, runtimeVersion, writeSite } from "./parts.mjs";

const SITE = join(HERE, "dist");

const version = runtimeVersion();
copyRuntime(join(PAGE, "runtime"));
rmSync(SITE, { recursive: true, force: true });
cpSync(PAGE, SITE, { recursive: true });
cpSync(join(MIEN, "_page.css"), join(SITE, "base.css"));
copyModels(join(SITE, "models"));
writeSite(SITE);
printSizes(join(SITE, "runtime"), RUNTIME);
printSizes(join(SITE, "models"), Object.keys(MODELS).map((name) => `${name}.onnx`));
console.log(`web/dist was built with ONNX Runtime Web ${version}`);
