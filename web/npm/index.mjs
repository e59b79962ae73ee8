// The entry of the package: a Reader around the worker that mien's page uses. index.d.ts documents it.

import { Browser } from "./browser.mjs";
import { DECODING } from "./decode.mjs";
import { drawFaces, drawMap } from "./draw.mjs";
import { COLORS, labelOf } from "./emotions.mjs";
import { POINTS } from "./save.mjs";

export { COLORS, drawMap };

export class Reader {
  #engine;
  #threshold;
  #seconds = -Infinity; // of the last frame
  #turn = Promise.resolve(); // frames take different times to prepare; the worker gets them in the order of the calls

  static async open({ folder, abstain = 0 } = {}) {
    if (typeof Worker === "undefined") throw new Error("this package runs in browsers only; in Node, ask a server of mien");
    if (abstain !== "card" && !(abstain >= 0 && abstain <= 1)) throw new RangeError(`abstain is ${abstain}; give 0 to 1, or "card"`);
    const base = folder === undefined ? undefined : new URL(`${folder}`.replace(/\/*$/, "/"), location.href);
    const engine = new Browser({ base });
    const [model, threshold] = await Promise.all([engine.open(), abstain === "card" ? fetchThresholds(engine.base) : abstain]);
    return new Reader(engine, model, threshold);
  }

  constructor(engine, model, threshold) {
    this.#engine = engine;
    this.#threshold = threshold;
    this.model = model;
  }

  async read(source) {
    const isRead = source instanceof Blob || source instanceof ImageBitmap;
    const { bitmap, note, ...reading } = await this.#engine.read(isRead ? source : await toBitmap(source));
    bitmap.close();
    return { ...reading, faces: reading.faces.map((face) => this.#label(face)) };
  }

  async track(frame, seconds, { smooth = 0.5 } = {}) {
    if (!Number.isFinite(seconds) || seconds < this.#seconds) {
      throw new RangeError(`seconds is ${seconds} after ${this.#seconds}; give the time of the frame, and call reset() for another video`);
    }
    if (!(smooth >= 0)) throw new RangeError(`smooth is ${smooth}; give seconds from 0 on`);
    this.#seconds = seconds;
    const bitmap = toBitmap(frame);
    bitmap.catch(() => {}); // it is thrown in its turn
    const { searched, ...reading } = await this.#next(async () => this.#engine.frame(await bitmap, seconds, { smooth }));
    return { ...reading, faces: reading.faces.map((face) => this.#label(face)) };
  }

  async reset() {
    this.#seconds = -Infinity;
    await this.#next(() => this.#engine.reset());
  }

  draw(context, { faces, width, height }, { maps = false, ownScale = false } = {}) {
    drawFaces(context, faces, { threshold: this.#threshold, width, height, maps, ownScale });
  }

  close() {
    this.#engine.close("the reader was closed");
  }

  #next(task) {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }

  #label({ points, ...face }) {
    const { emotion, confidence } = labelOf(face, this.#threshold);
    return { emotion, confidence, ...face, points: points && Object.fromEntries(points.map((place, index) => [POINTS[index], place])) };
  }
}

async function toBitmap(source) {
  try {
    return await createImageBitmap(source, DECODING);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new TypeError("give a Blob, an ImageBitmap, ImageData, or an image, video or canvas; of an address: await (await fetch(address)).blob()");
  }
}

async function fetchThresholds(base) {
  const response = await fetch(new URL("site.json", base));
  if (!response.ok) throw new Error(`site.json could not be loaded (status ${response.status})`);
  return (await response.json()).unsure_below;
}
