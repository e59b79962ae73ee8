// The engine that sends images to the server of the page, with the methods of the one in browser.mjs.

import { decode, ImageError } from "./decode.mjs";

const QUALITY = 0.92; // JPEG quality of the frames that are sent
const FRAME_TIMEOUT = 3000; // milliseconds, at least: a busy server drops frames without a response

/** The server (`mien serve`): images by POST /v1/predict, frames by WS /v1/stream. */
export class Server {
  constructor(base) {
    this.base = base;
    this.token = null;
    this.socket = null;
  }

  /** The server's model and detector. Throws an Error if it does not respond. */
  async open() {
    const payload = await this.fetch("v1/models");
    this.limits = payload.limits;
    const [{ name, precision, emotions, size }] = payload.models;
    return { name, precision, emotions, size, detector: payload.detector };
  }

  async read(file) {
    const most = this.limits.max_bytes; // the server may end the connection before it has received a larger file
    if (file.size > most) {
      throw new ImageError(`the file is larger than the server's limit of ${most.toLocaleString("en")} bytes; make it smaller`);
    }
    const [{ bitmap }, form] = [await decode(file), new FormData()];
    form.append("file", file, file.name || "image");
    const start = performance.now();
    const { readings: [reading] } = await this.fetch("v1/predict?maps=true", { method: "POST", body: form });
    if (reading.error !== null) throw new ImageError(reading.error);
    const [width, height] = reading.size_wh;
    if (bitmap.width !== width || bitmap.height !== height) {
      throw new ImageError("the server turns this image, this browser does not; save it upright, without metadata");
    }
    const milliseconds = { server: performance.now() - start };
    return { faces: reading.faces.map(fromServer), width, height, bitmap, note: reading.note, milliseconds };
  }

  async fetch(path, options = {}) {
    if (/[^!-~]/.test(this.token ?? "")) throw new Error("the token has a space or a character that no token has; copy it again");
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    let response;
    try {
      response = await fetch(new URL(path, this.base), { ...options, headers });
    } catch {
      throw new Error("the server does not respond; is `mien serve` still running?");
    }
    if (response.status === 401) throw new Error("the token is missing or wrong; enter the one that the server was started with");
    const payload = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(payload.detail ?? `the server responded with status ${response.status}`);
    return payload;
  }

  /** Send one frame and wait for its result; null if the server dropped it. The first frame opens the stream. */
  async frame(bitmap, _, { smooth }) {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    const start = performance.now();
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
    const payload = await this.exchange(await blob.arrayBuffer(), smooth);
    if (payload === null) return null;
    if (payload.error !== undefined) throw new ImageError(payload.error);
    const [width, height] = payload.size_wh;
    const milliseconds = { server: performance.now() - start };
    return { faces: payload.faces.map(fromServer), width, height, milliseconds };
  }

  async exchange(bytes, smooth) {
    if (this.socket === null || this.smooth !== smooth) await this.connect(smooth);
    const { socket } = this;
    const [number, start] = [this.sent++, performance.now()];
    return new Promise((resolve, reject) => {
      setTimeout(() => resolve(null), this.timeout);
      socket.onmessage = ({ data }) => {
        const payload = JSON.parse(data);
        if (payload.received >= number) {
          this.timeout = Math.max(FRAME_TIMEOUT, 2 * (performance.now() - start));
          resolve(payload);
        } else {
          this.timeout *= 2; // the late result of a frame that timed out: the server is slow
        }
      };
      socket.onclose = ({ reason }) => {
        this.socket = null;
        reject(new Error(reason || "the server closed the stream; start the camera again"));
      };
      socket.send(bytes);
    });
  }

  async connect(smooth) {
    await this.reset();
    const address = new URL(`v1/stream?maps=true&smooth=${smooth}`, this.base);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onclose = ({ reason }) => reject(new Error(reason || "the server refused the stream"));
    });
    if (this.token) socket.send(JSON.stringify({ token: this.token }));
    Object.assign(this, { socket, smooth, sent: 0, timeout: FRAME_TIMEOUT });
  }

  async reset() {
    if (this.socket === null) return;
    this.socket.onclose = null;
    this.socket.close();
    this.socket = null;
  }
}

function fromServer({ box, points, probs, maps, to_image: rows, crop_size: cropSize, track_id: id, raw, ...own }) {
  const { score, quality } = raw ?? own; // those of a tracked face are in its frame's own reading
  const [, height, width] = maps.shape;
  const data = Uint8Array.from(atob(maps.data), (letter) => letter.charCodeAt(0));
  const places = points && Object.values(points);
  const shown = { id, box, score, points: places, probs, raw, maps: { data, width, height, peaks: maps.peaks } };
  return { ...shown, quality, toImage: rows.flat(), cropSize, crop: null };
}
