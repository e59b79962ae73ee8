// Reader: detect, extract and infer for one image (mien/reader.py, mien/infer.py), and the metadata of ONNX files.

import { BlazeFace } from "./blazeface.mjs";
import { extract } from "./extract.mjs";

export class Reader {
  /** Opens both models from their bytes; `ort` is ONNX Runtime. Faces of a quality below `minQuality` are left out. */
  static async open(ort, { detector, classifier, minQuality }) {
    const model = await Classifier.open(ort, classifier);
    return new Reader(new BlazeFace(await openNetwork(ort, detector)), model, minQuality);
  }

  constructor(detector, model, minQuality) {
    Object.assign(this, { detector, model, minQuality });
  }

  /** The faces of an image { width, height, data RGB }, largest first, a note on those left out (or null), and how many
   * milliseconds each step took. */
  async read(image) {
    const start = performance.now();
    const found = await this.detector.find(image);
    const detected = performance.now();
    const { faces: all, milliseconds } = await this.readFaces(image, found);
    const faces = this.wellSeen(all);
    const count = all.length - faces.length;
    const note = count > 0 ? `${count} ${count === 1 ? "face" : "faces"} of a quality below ${this.minQuality} left out` : null;
    return { faces, note, milliseconds: { detect: detected - start, ...milliseconds } };
  }

  wellSeen(faces) {
    return faces.filter(({ quality }) => quality.score >= this.minQuality);
  }

  /** The faces { box, points, score } of an image with their crops, probabilities and maps. */
  async readFaces(image, found) {
    const start = performance.now();
    const cuts = found.map((detection) => extract(image, detection, this.model.size, this.model.framing));
    const cut = performance.now();
    const outputs = await this.model.read(cuts.map(({ crop }) => crop));
    const faces = found.map((detection, index) => ({ ...detection, ...cuts[index], ...outputs[index] }));
    return { faces, milliseconds: { extract: cut - start, infer: performance.now() - cut } };
  }
}

const CONTRACT = "1";
const CHUNK = 16; // crops per run: more need more memory and are not faster
const OPTIONS = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };

/** A classifier from the bytes of a model file that follows mien's contract; `ort` is ONNX Runtime. */
export class Classifier {
  static async open(ort, bytes) {
    const metadata = readMetadata(bytes);
    if (metadata.mien_contract !== CONTRACT) throw new Error("the model file does not follow mien's contract");
    return new Classifier(ort, await openSession(ort, bytes), metadata);
  }

  constructor(ort, session, metadata) {
    this.ort = ort;
    this.session = session;
    this.name = metadata.name;
    this.precision = metadata.precision;
    this.emotions = JSON.parse(metadata.emotions);
    this.framing = JSON.parse(metadata.framing);
    this.size = Number(metadata.size);
  }

  /** For each crop (Uint8Array, size * size): { probs: Float32Array [C], maps: Float32Array [C * h * w], mapWH }. */
  async read(crops) {
    const outputs = [];
    for (let start = 0; start < crops.length; start += CHUNK) {
      outputs.push(...(await this.readChunk(crops.slice(start, start + CHUNK))));
    }
    return outputs;
  }

  async readChunk(crops) {
    const [size, area] = [this.size, this.size * this.size];
    const batch = new Uint8Array(crops.length * area);
    crops.forEach((crop, index) => batch.set(crop, index * area));
    const { probs, maps } = await this.session.run({
      crops: new this.ort.Tensor("uint8", batch, [crops.length, size, size]),
    });
    const [, classes, height, width] = maps.dims;
    const each = classes * height * width;
    return crops.map((_, index) => ({
      probs: probs.data.slice(index * classes, (index + 1) * classes),
      maps: maps.data.slice(index * each, (index + 1) * each),
      mapWH: [width, height],
    }));
  }
}

async function openSession(ort, bytes) {
  try {
    return await ort.InferenceSession.create(bytes, OPTIONS);
  } catch (error) {
    if (!String(error?.message).includes("external data")) throw error;
    throw new Error("the model has its weights in a second file, which browsers do not load; save it as one file, or read on the server");
  }
}

/** The detector's network as a function from a tile's image to { boxes, scores }. */
export async function openNetwork(ort, bytes) {
  const session = await openSession(ort, bytes);
  return async ({ data, width, height }) => {
    const { boxes, scores } = await session.run({ image: new ort.Tensor("uint8", data, [1, height, width, 3]) });
    return { boxes: boxes.data, scores: scores.data };
  };
}

const METADATA = 14;

/** The metadata of an ONNX file as an object of strings: ONNX Runtime Web does not expose it. An ONNX file is a protocol
 * buffer; each entry of field 14 (`metadata_props`) has a key (1) and a value (2). Throws if it is no ONNX file. */
export function readMetadata(bytes) {
  const text = new TextDecoder();
  const metadata = {};
  for (const { field, content } of fields(bytes)) {
    if (field !== METADATA || content === null) continue;
    const pair = {};
    for (const inner of fields(content)) if (inner.content !== null) pair[inner.field] = text.decode(inner.content);
    metadata[pair[1]] = pair[2] ?? "";
  }
  return metadata;
}

/** The fields of a protocol buffer message: { field, content }, content null unless it is bytes. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, factor] = [0, 1];
    for (;;) {
      if (at >= bytes.length) throw new Error("the file of the classifier is cut off; load this page again");
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
  };
  const skip = { 0: () => void varint(), 1: () => void (at += 8), 5: () => void (at += 4) };
  while (at < bytes.length) {
    const tag = varint();
    const [field, kind] = [Math.trunc(tag / 8), tag % 8];
    if (kind !== 2 && !skip[kind]) throw new Error("the file of the classifier is no ONNX file; load this page again");
    if (kind !== 2) {
      skip[kind]();
      yield { field, content: null };
      continue;
    }
    const length = varint();
    if (at + length > bytes.length) throw new Error("the file of the classifier is cut off; load this page again");
    yield { field, content: bytes.subarray(at, at + length) };
    at += length;
  }
}
