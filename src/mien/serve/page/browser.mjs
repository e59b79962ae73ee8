// The engine that runs in this browser: a worker with the networks. The other one, in server.mjs, has the same methods:
//   open() -> { name, precision, emotions, size, detector }
//   read(source) -> { faces, width, height, bitmap, note, milliseconds }, the note a text or null
//   frame(bitmap, seconds, { smooth }) -> { faces, width, height, milliseconds }, the faces with track ids

const HERE = import.meta.url; // apart, as bundlers would take `new URL("./", import.meta.url)` for a file

/** The networks run in this browser, in a worker; nothing leaves the device. */
export class Browser {
  /** `base` is the address of the folder of worker.mjs, runtime/ and models/. Faces of a quality below `minQuality`, 0 to 1,
   * are left out. */
  constructor({ base = new URL("./", HERE), minQuality = 0 } = {}) {
    this.base = base;
    this.minQuality = minQuality;
    this.worker = null;
    this.reason = "the networks are not loaded"; // why there is no worker
    this.waiting = new Map();
    this.lastId = 0;
  }

  /** Load runtime and models once. Throws an Error that names a missing file. */
  open() {
    this.opened ??= this.start().catch((error) => {
      this.close(error.message);
      throw error;
    });
    return this.opened;
  }

  /** End the worker; the next `open` starts another one and tries missing files again. */
  close(reason = "the networks were closed") {
    this.worker?.terminate();
    this.worker = this.opened = null;
    this.reason = reason;
    for (const { reject } of this.waiting.values()) reject(new Error(reason));
    this.waiting.clear();
  }

  async start() {
    const address = new URL("worker.mjs", this.base);
    this.worker = new Worker(address, { type: "module" });
    this.worker.addEventListener("message", ({ data }) => this.settle(data));
    const missing = `${address} could not be started; check the address and the connection`;
    this.worker.addEventListener("error", (event) => this.close(event.message || missing));
    return this.request("open", { minQuality: this.minQuality });
  }

  /** Read a file, a blob or an ImageBitmap, of which the worker gets a copy. */
  read(source) {
    return this.request("read", { source });
  }

  frame(bitmap, seconds, { smooth }) {
    return this.request("frame", { bitmap, seconds, smooth }, [bitmap]);
  }

  reset() {
    return this.request("reset", {});
  }

  request(task, payload, transfer = []) {
    return new Promise((resolve, reject) => {
      if (this.worker === null) throw new Error(this.reason);
      this.worker.postMessage({ id: ++this.lastId, task, ...payload }, transfer); // throws for what cannot be sent
      this.waiting.set(this.lastId, { resolve, reject, task });
    });
  }

  settle({ id, response, error, line }) {
    const { resolve, reject, task } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(response);
    else reject(new Error(task === "open" ? line : error));
  }
}
