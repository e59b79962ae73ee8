// The work, away from the page: opens the models, reads pictures and frames. One message in, one answer out.

import { decode, PictureError, toPicture } from "./decode.mjs";
import { Tracker } from "./follow.mjs";
import { Reader } from "./reader.mjs";

const RUNTIME = new URL("./runtime/", import.meta.url);
const MODELS = new URL("./models/", import.meta.url);

let reader = null;
let tracker = null;
const canvas = new OffscreenCanvas(1, 1); // of the camera's frames

const tasks = {
  async open() {
    const ort = await openRuntime();
    const [detector, classifier] = await Promise.all([fetchModel("blazeface-short-range"), fetchModel("classifier")]);
    reader = await Reader.open(ort, { detector, classifier });
    tracker = new Tracker(reader);
    const { name, precision, emotions, size } = reader.model;
    return { name, precision, emotions, size, detector: "blazeface" };
  },

  async read({ blob }) {
    const start = performance.now();
    const { picture, bitmap } = await decode(blob);
    const decoded = performance.now() - start;
    const { faces, milliseconds } = await reader.read(picture);
    const { width, height } = picture;
    return { faces: faces.map(plain), width, height, bitmap, milliseconds: { decode: decoded, ...milliseconds } };
  },

  async frame({ bitmap, seconds, smooth }) {
    const start = performance.now();
    const picture = toPicture(bitmap, canvas);
    bitmap.close();
    const decoded = performance.now() - start;
    const { faces, searched, milliseconds } = await tracker.step(picture, seconds, { smooth });
    const { width, height } = picture;
    return { faces: faces.map(plain), width, height, searched, milliseconds: { decode: decoded, ...milliseconds } };
  },

  async forget() {
    tracker = new Tracker(reader);
    return {};
  },
};

addEventListener("message", async ({ data: { id, task, ...words } }) => {
  try {
    const answer = await tasks[task](words);
    postMessage({ id, answer }, answer.bitmap ? [answer.bitmap] : []);
  } catch (error) {
    const isPicture = error instanceof PictureError;
    const line = String(error?.message ?? error).split("\n")[0];
    postMessage({ id, error: isPicture ? line : `it could not be read here (${line.slice(0, 160)}); try a smaller one`, line });
  }
});

async function openRuntime() {
  let ort;
  try {
    ort = await import(new URL("ort.wasm.min.mjs", RUNTIME).href);
  } catch {
    throw new Error("the runtime (runtime/ort.wasm.min.mjs) is missing; build the page with `make web`");
  }
  // One thread needs neither shared memory nor the headers that allow it, so the page runs on any static host.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = RUNTIME.href;
  ort.env.logLevel = "error";
  return ort;
}

async function fetchModel(name) {
  const answer = await fetch(new URL(`${name}.onnx`, MODELS)).catch(() => null);
  if (!answer?.ok) {
    throw new Error(`the model file models/${name}.onnx is missing${answer ? ` (${answer.status})` : ""}; build the page again`);
  }
  return new Uint8Array(await answer.arrayBuffer());
}

/** A face as the page shows it: maps as bytes, each 0..255 of its own peak, negative values cut. */
function plain({ maps, mapWH: [width, height], probs, smooth, ...face }) {
  const each = width * height;
  const bytes = new Uint8Array(maps.length);
  for (let start = 0; start < maps.length; start += each) {
    const peak = maps.subarray(start, start + each).reduce((most, value) => Math.max(most, value), 0);
    for (let k = start; peak > 0 && k < start + each; k++) bytes[k] = Math.round((Math.max(maps[k], 0) * 255) / peak);
  }
  const { emotions, size } = reader.model;
  const byName = (values) => Object.fromEntries(emotions.map((name, index) => [name, values[index]]));
  const shown = { ...face, probs: byName(smooth ?? probs), maps: { data: bytes, width, height }, cropSize: size };
  if (face.raw) shown.raw = { box: face.raw.box, probs: byName(face.raw.probs) };
  return shown;
}
