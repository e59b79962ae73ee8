// The worker: opens the models, reads images and frames. It responds to each message with one message.

import { decode, ImageError, toPixels } from "./decode.mjs";
import { Tracker } from "./tracker.mjs";
import { Reader } from "./reader.mjs";

const RUNTIME = new URL("./runtime/", import.meta.url);
const MODELS = new URL("./models/", import.meta.url);

let queue = Promise.resolve(); // a session runs one input at a time
let reader = null;
let tracker = null;
const canvas = new OffscreenCanvas(1, 1); // for the camera's frames

const tasks = {
  async open({ minQuality }) {
    const ort = await openRuntime();
    const [detector, classifier] = await Promise.all([fetchModel("blazeface-short-range"), fetchModel("classifier")]);
    reader = await Reader.open(ort, { detector, classifier, minQuality }).catch((error) => {
      const [, why] = /no available backend found\. ERR: \[wasm\] (.*)/.exec(error?.message) ?? [];
      throw why ? missing("runtime/ort-wasm-simd-threaded", why.slice(0, 100)) : error;
    });
    tracker = new Tracker(reader);
    const { name, precision, emotions, size } = reader.model;
    return { name, precision, emotions, size, detector: "blazeface" };
  },

  async read({ source }) {
    const start = performance.now();
    const { image, bitmap, note: decoding } = await decode(source);
    const decoded = performance.now() - start;
    const { faces, note: reading, milliseconds } = await reader.read(image);
    const note = [decoding, reading].filter(Boolean).join("; ") || null;
    const { width, height } = image;
    return { faces: faces.map(plain), width, height, bitmap, note, milliseconds: { decode: decoded, ...milliseconds } };
  },

  async frame({ bitmap, seconds, smooth }) {
    const start = performance.now();
    const image = toPixels(bitmap, canvas);
    bitmap.close();
    const decoded = performance.now() - start;
    const { faces, searched, milliseconds } = await tracker.step(image, seconds, { smooth });
    const { width, height } = image;
    return { faces: faces.map(plain), width, height, searched, milliseconds: { decode: decoded, ...milliseconds } };
  },

  async reset() {
    tracker = new Tracker(reader);
    return {};
  },
};

addEventListener("message", ({ data }) => {
  queue = queue.then(() => respond(data));
});

async function respond({ id, task, ...payload }) {
  try {
    const response = await tasks[task](payload);
    postMessage({ id, response }, response.bitmap ? [response.bitmap] : []);
  } catch (error) {
    const isImageError = error instanceof ImageError;
    const line = String(error?.message ?? error).split("\n")[0];
    postMessage({ id, error: isImageError ? line : `reading failed (${line.slice(0, 160)}); try a smaller image`, line });
  }
}

async function openRuntime() {
  let ort;
  try {
    ort = await import(new URL("ort.wasm.min.mjs", RUNTIME).href);
  } catch {
    throw missing("runtime/ort.wasm.min.mjs");
  }
  // One thread needs no shared memory and no special headers, so that any static host can serve the page.
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = RUNTIME.href;
  ort.env.logLevel = "error";
  return ort;
}

async function fetchModel(name) {
  const response = await fetch(new URL(`${name}.onnx`, MODELS)).catch(() => null);
  if (!response?.ok) throw missing(`models/${name}.onnx`, response && `status ${response.status}`);
  const cut = () => Promise.reject(missing(`models/${name}.onnx`, "the connection ended"));
  return new Uint8Array(await response.arrayBuffer().catch(cut));
}

/** The error for a file that could not be loaded: a visitor can only try again. */
function missing(file, why = null) {
  return new Error(`${file} could not be loaded${why === null ? "" : ` (${why})`}; check the connection and load this page again`);
}

/** A face for the page: each map as bytes, 0..255 of its own peak, negative values set to 0. */
function plain({ maps, mapWH: [width, height], probs, smooth, ...face }) {
  const each = width * height;
  const bytes = new Uint8Array(maps.length);
  const peaks = [];
  for (let start = 0; start < maps.length; start += each) {
    const peak = maps.subarray(start, start + each).reduce((most, value) => Math.max(most, value), 0);
    peaks.push(peak);
    for (let k = start; peak > 0 && k < start + each; k++) bytes[k] = Math.round((Math.max(maps[k], 0) * 255) / peak);
  }
  const { emotions, size } = reader.model;
  const byName = (values) => Object.fromEntries(emotions.map((name, index) => [name, values[index]]));
  const shown = { ...face, probs: byName(smooth ?? probs), maps: { data: bytes, width, height, peaks }, cropSize: size };
  if (face.raw) shown.raw = { box: face.raw.box, probs: byName(face.raw.probs) };
  return shown;
}
