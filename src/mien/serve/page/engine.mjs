// Who reads: this browser (a worker), or the server that the page came from. Both answer alike:
//   read(file) -> { faces, width, height, bitmap, milliseconds }     frame(bitmap, seconds, { smooth }) -> the same, followed

import { decode, PictureError } from "./decode.mjs";

const QUALITY = 0.92; // of the JPEG that a frame is sent as
const PATIENCE = 3000; // milliseconds for the answer to a frame: a busy server drops frames without a word

/** The networks run in this browser, in a worker; nothing leaves the device. */
export class Browser {
  constructor() {
    this.worker = null;
    this.waiting = new Map();
    this.lastId = 0;
  }

  /** Load runtime and models, once. Throws an Error whose message says what is missing. */
  open() {
    this.opened ??= this.start().catch((error) => {
      this.close();
      throw error;
    });
    return this.opened;
  }

  /** End the worker; the next `open` starts another one, for what was missing may be there then. */
  close() {
    this.worker?.terminate();
    this.worker = this.opened = null;
  }

  async start() {
    this.worker = new Worker(new URL("./worker.mjs", import.meta.url), { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.settle(data));
    this.worker.addEventListener("error", (event) => this.fail(event.message || "the worker could not be started"));
    return this.ask("open", {}, []);
  }

  read(file) {
    return this.ask("read", { blob: file });
  }

  frame(bitmap, seconds, { smooth }) {
    return this.ask("frame", { bitmap, seconds, smooth }, [bitmap]);
  }

  forget() {
    return this.ask("forget", {});
  }

  ask(task, words, transfer = []) {
    return new Promise((resolve, reject) => {
      if (this.worker === null) throw new Error("the networks are not loaded; try again");
      this.waiting.set(++this.lastId, { resolve, reject, task });
      this.worker.postMessage({ id: this.lastId, task, ...words }, transfer);
    });
  }

  settle({ id, answer, error, line }) {
    const { resolve, reject, task } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(answer);
    else reject(new Error(task === "open" ? line : error));
  }

  fail(message) {
    for (const { reject } of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
    this.close();
  }
}

/** `mien serve` reads: pictures by POST /v1/predict, frames by WS /v1/stream. */
export class Server {
  constructor(base) {
    this.base = base;
    this.token = null;
    this.socket = null;
  }

  /** What the server reads with. Throws an Error when it does not answer. */
  async open() {
    const said = await this.fetch("v1/models");
    const [{ name, precision, emotions, size }] = said.models;
    return { name, precision, emotions, size, detector: said.detector };
  }

  async read(file) {
    const [{ bitmap }, form] = [await decode(file), new FormData()];
    form.append("file", file, file.name || "picture");
    const start = performance.now();
    const { readings: [reading] } = await this.fetch("v1/predict?maps=true", { method: "POST", body: form });
    if (reading.error !== null) throw new PictureError(reading.error);
    const [width, height] = reading.size_wh;
    const milliseconds = { server: performance.now() - start };
    return { faces: reading.faces.map(fromServer), width, height, bitmap, milliseconds };
  }

  async fetch(path, options = {}) {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    let answer;
    try {
      answer = await fetch(new URL(path, this.base), { ...options, headers });
    } catch {
      throw new Error("the server does not answer; is `mien serve` still running?");
    }
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.detail ?? `the server answered ${answer.status}`);
    return said;
  }

  /** Send one frame and wait for its answer, null where the server dropped it; the first one opens the stream. */
  async frame(bitmap, _, { smooth }) {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    const start = performance.now();
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    const said = await this.exchange(await blob.arrayBuffer(), smooth);
    if (said === null) return null;
    const [width, height] = said.size_wh ?? [canvas.width, canvas.height];
    const milliseconds = { server: performance.now() - start };
    return { faces: (said.faces ?? []).map(fromServer), width, height, milliseconds };
  }

  async exchange(bytes, smooth) {
    if (this.socket === null || this.smooth !== smooth) await this.connect(smooth);
    const { socket } = this;
    const number = this.sent++;
    return new Promise((resolve, reject) => {
      setTimeout(() => resolve(null), PATIENCE);
      socket.onmessage = ({ data }) => {
        const said = JSON.parse(data);
        if (said.received >= number) resolve(said); // else a late answer, to a frame that was given up
      };
      socket.onclose = ({ reason }) => {
        this.socket = null;
        reject(new Error(reason || "the server closed the stream; start the camera again"));
      };
      socket.send(bytes);
    });
  }

  async connect(smooth) {
    await this.forget();
    const address = new URL(`v1/stream?maps=true&smooth=${smooth}`, this.base);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = ({ reason }) => reject(new Error(reason || "the server refused the stream"));
    });
    if (this.token) socket.send(JSON.stringify({ token: this.token }));
    [this.socket, this.smooth, this.sent] = [socket, smooth, 0];
  }

  async forget() {
    if (this.socket === null) return;
    this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }
}

function fromServer({ box, score, probs, maps, to_image: rows, crop_size: cropSize, id, raw }) {
  const [, height, width] = maps.shape;
  const data = Uint8Array.from(atob(maps.data), (letter) => letter.charCodeAt(0));
  return { id, box, score, probs, raw, maps: { data, width, height }, toImage: rows.flat(), cropSize, crop: null };
}
