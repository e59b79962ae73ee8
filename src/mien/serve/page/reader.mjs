// Reader: detect, extract, infer, for one picture (mien/reader.py).

import { BlazeFace } from "./blazeface.mjs";
import { extract } from "./extract.mjs";
import { Classifier, openNetwork } from "./infer.mjs";

export class Reader {
  /** Opens both models from their bytes; `ort` is ONNX Runtime. */
  static async open(ort, { detector, classifier }) {
    const model = await Classifier.open(ort, classifier);
    return new Reader(new BlazeFace(await openNetwork(ort, detector)), model);
  }

  constructor(detector, model) {
    this.detector = detector;
    this.model = model;
  }

  /** The faces of a picture { width, height, data RGB }, largest first, and how many milliseconds each step took. */
  async read(picture) {
    const start = performance.now();
    const found = await this.detector.find(picture);
    const detected = performance.now();
    const { faces, milliseconds } = await this.readFaces(picture, found);
    return { faces, milliseconds: { detect: detected - start, ...milliseconds } };
  }

  /** The faces { box, points, score } of a picture with their crops, probabilities and maps. */
  async readFaces(picture, found) {
    const start = performance.now();
    const cuts = found.map((detection) => extract(picture, detection, this.model.size, this.model.framing));
    const cut = performance.now();
    const answers = await this.model.read(cuts.map(({ crop }) => crop));
    const faces = found.map((detection, index) => ({ ...detection, ...cuts[index], ...answers[index] }));
    return { faces, milliseconds: { extract: cut - start, infer: performance.now() - cut } };
  }
}
