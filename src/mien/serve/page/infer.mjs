// Crops -> probabilities and maps, by a model file of mien's contract (mien/infer.py).

import { readMetadata } from "./onnx.mjs";

const CONTRACT = "1";
const CHUNK = 16; // crops given to the runtime at once: its memory grows with them, its speed does not
const OPTIONS = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };

/** A classifier opened from the bytes of a model file; `ort` is ONNX Runtime. */
export class Classifier {
  static async open(ort, bytes) {
    const said = readMetadata(bytes);
    if (said.mien_contract !== CONTRACT) throw new Error("the model file does not follow mien's contract");
    return new Classifier(ort, await ort.InferenceSession.create(bytes, OPTIONS), said);
  }

  constructor(ort, session, said) {
    this.ort = ort;
    this.session = session;
    this.name = said.name;
    this.precision = said.precision;
    this.emotions = JSON.parse(said.emotions);
    this.framing = JSON.parse(said.framing);
    this.size = Number(said.size);
  }

  /** For each crop (Uint8Array, size * size): { probs: Float32Array [C], maps: Float32Array [C * h * w], mapWH }. */
  async read(crops) {
    const answers = [];
    for (let start = 0; start < crops.length; start += CHUNK) {
      answers.push(...(await this.readChunk(crops.slice(start, start + CHUNK))));
    }
    return answers;
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

/** The detector's network as a function from a tile's picture to { boxes, scores }. */
export async function openNetwork(ort, bytes) {
  const session = await ort.InferenceSession.create(bytes, OPTIONS);
  return async ({ data, width, height }) => {
    const { boxes, scores } = await session.run({ image: new ort.Tensor("uint8", data, [1, height, width, 3]) });
    return { boxes: boxes.data, scores: scores.data };
  };
}
