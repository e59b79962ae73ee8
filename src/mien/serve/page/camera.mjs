// The camera: reads the newest frame, draws boxes over the video and curves below it, and stores results for download.

import { Curves } from "./curves.mjs";
import { byId, element } from "./dom.mjs";
import { drawFaces, drawMap } from "./draw.mjs";
import { COLORS, headline, labelOf, percent, topOf, UNSURE_COLOR } from "./emotions.mjs";
import { annotatedPng, download, frameResultsToCsv, frameResultsToJson } from "./save.mjs";

const MAX_ROWS = 120_000; // frames plus faces stored for download: over an hour of one face; the oldest are dropped first
const ANNOUNCE_EVERY = 3; // seconds between two summaries for screen readers

/** The tracks and their emotions for screen readers, without percentages, which change too often to be announced. */
function describeFaces(faces, threshold) {
  const names = faces.map((face) => `track ${face.id} ${labelOf(face, threshold).emotion ?? "unsure"}`);
  return names.join(", ") || "no face";
}

export class Camera {
  /** `engine()` returns the engine in use; `settings` has threshold, maps, smooth; `announce` sets the text for screen
   * readers; `fail` shows an error. */
  constructor({ engine, settings, announce, fail }) {
    Object.assign(this, { engine, settings, announce, fail });
    this.video = byId("video");
    this.overlay = byId("over");
    this.curves = new Curves(byId("curves"));
    this.pointed = null;
    this.wantsSnapshot = false;
    this.isStarting = false;
    this.frameResults = [];
    byId("stop").addEventListener("click", () => this.stop());
    byId("snap").addEventListener("click", () => (this.wantsSnapshot = true));
    byId("camera-json").addEventListener("click", () => this.save("jsonl", frameResultsToJson(this.frameResults, settings.threshold)));
    byId("camera-csv").addEventListener("click", () => {
      const names = Object.keys(this.frameResults.find(({ faces }) => faces.length > 0)?.faces[0].probs ?? {});
      this.save("csv", frameResultsToCsv(this.frameResults, settings.threshold, names));
    });
  }

  get isRunning() {
    return this.stream !== undefined && this.stream !== null;
  }

  /** Open the camera and read its frames until it is stopped. Throws what getUserMedia throws. */
  async start() {
    if (this.isRunning || this.isStarting) return; // a second click while the browser asks for permission
    if (!navigator.mediaDevices) throw new DOMException("no camera here", "SecurityError");
    this.isStarting = true;
    const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" };
    let stream = null;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      this.video.srcObject = stream;
      await this.video.play();
    } catch (error) {
      stopTracks(stream); // otherwise the camera stays on, and the page could not turn it off
      this.video.srcObject = null;
      throw error;
    } finally {
      this.isStarting = false;
    }
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => this.stream === stream && this.lose());
    this.mirrored = track.getSettings().facingMode !== "environment";
    this.stream = stream;
    this.clock = new FrameClock(this.video);
    this.begin();
    this.readFrames(stream);
  }

  lose() {
    this.stop("The camera was disconnected.");
    this.fail("Camera", "the camera was disconnected, or is no longer allowed; connect or allow it, and start it again");
  }

  begin() {
    this.frameResults = [];
    this.recorded = 0;
    this.frames = 0;
    this.times = [];
    this.announcedAt = -Infinity;
    this.curves.clear();
    byId("stage").classList.toggle("mirrored", this.mirrored);
    byId("camera").classList.remove("off");
    byId("camera").hidden = false;
    byId("camera").scrollIntoView({ block: "start" });
    byId("stop").focus({ preventScroll: true });
  }

  async readFrames(stream) {
    const [engine, started] = [this.engine(), performance.now()]; // the camera is stopped before another engine is used
    while (this.stream === stream) {
      await this.clock.next();
      if (this.stream !== stream) return;
      const seconds = (performance.now() - started) / 1000;
      try {
        const bitmap = await captureFrame(this.video);
        const copy = this.wantsSnapshot ? await createImageBitmap(bitmap) : null;
        const result = await engine.frame(bitmap, seconds, this.settings);
        if (this.stream === null) engine.reset(); // stopped while the engine connected to the server
        if (this.stream !== stream || result === null) continue;
        this.show(result, seconds);
        if (copy !== null) await this.saveSnapshot(copy, result.faces);
      } catch (error) {
        if (this.stream === stream) {
          this.stop();
          this.fail("Camera", error.message);
        }
        return;
      }
    }
  }

  show(result, seconds) {
    this.last = result;
    this.count(seconds);
    this.record({ frame: this.frames++, seconds, faces: result.faces });
    this.draw();
    this.list(result.faces);
    this.curves.add(result.faces, seconds);
    if (seconds - this.announcedAt >= ANNOUNCE_EVERY) {
      this.announcedAt = seconds;
      this.announce(`Camera: ${describeFaces(result.faces, this.settings.threshold)}`);
    }
  }

  count(seconds) {
    this.times.push(seconds);
    while (this.times[0] < seconds - 2) this.times.shift();
    const span = seconds - this.times[0];
    const rate = (this.times.length - 1) / span;
    if (span > 0.5) byId("rate").textContent = `${rate.toFixed(rate < 9.5 ? 1 : 0)} frames a second`;
  }

  record({ frame, seconds, faces }) {
    const rows = faces.map(({ id, box, probs, score, quality }) => ({ id, box, probs, score, quality }));
    this.frameResults.push({ frame, seconds, faces: rows });
    this.recorded += 1 + rows.length;
    while (this.recorded > MAX_ROWS) this.recorded -= 1 + this.frameResults.shift().faces.length;
  }

  draw() {
    const { width, height, faces } = this.last;
    if (this.overlay.width !== width || this.overlay.height !== height) Object.assign(this.overlay, { width, height });
    const context = this.overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (this.mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
    for (const face of faces) {
      if (!this.settings.maps && this.pointed === face.id) drawMap(context, face, topOf(face)[0], this.settings);
    }
    drawFaces(context, faces, { ...this.settings, width, height, mirrored: this.mirrored });
  }

  /** The tracks in view with their bars. An element exists as long as its track, so that it does not lose the focus. */
  list(faces) {
    const list = byId("tracks");
    const ids = new Set(faces.map(({ id }) => String(id)));
    for (const item of [...list.children]) {
      if (ids.has(item.dataset.id)) continue;
      if (this.pointed === Number(item.dataset.id)) this.pointed = null; // an element that is removed is not left
      item.remove();
    }
    for (const face of faces) {
      const item = [...list.children].find(({ dataset }) => dataset.id === String(face.id)) ?? this.addTrack(face, list);
      const { threshold } = this.settings;
      const { emotion } = labelOf(face, threshold);
      item.style.setProperty("--c", emotion === null ? UNSURE_COLOR : COLORS[emotion]);
      item.classList.toggle("e-unsure", emotion === null);
      item.querySelector("button").setAttribute("aria-label", `Track ${face.id} ${headline(face, threshold)}. Show the map`);
      item.querySelector(".name").textContent = emotion ?? "unsure";
      for (const row of item.querySelectorAll(".row")) {
        const value = face.probs[row.dataset.emotion];
        row.style.setProperty("--p", `${100 * value}%`);
        row.querySelector(".value").textContent = percent(value);
      }
    }
    byId("no-tracks").hidden = faces.length > 0;
  }

  addTrack(face, list) {
    const rows = Object.keys(face.probs).map((emotion) =>
      element(
        "div",
        { class: "row", "data-emotion": emotion, style: { "--c": COLORS[emotion] } },
        element("span", {}, emotion),
        element("span", { class: "bar" }, element("i", {})),
        element("span", { class: "value" }),
      ),
    );
    const point = (id) => () => (this.pointed = id);
    const events = { pointerenter: point(face.id), pointerleave: point(null), focus: point(face.id), blur: point(null) };
    const name = element("span", { class: "name" });
    const button = element("button", { type: "button", class: "track-name", on: events }, element("span", { class: "number", "aria-hidden": "true" }, `${face.id}`), " ", name);
    const item = element("li", { "data-id": face.id }, button, ...rows);
    list.append(item);
    return item;
  }

  stop(words = "The camera is off.") {
    stopTracks(this.stream);
    this.stream = this.pointed = null;
    this.wantsSnapshot = false;
    this.video.srcObject = null;
    this.engine().reset();
    this.overlay.getContext("2d").clearRect(0, 0, this.overlay.width, this.overlay.height);
    byId("tracks").replaceChildren();
    byId("rate").textContent = "";
    byId("camera").hidden = this.frameResults.length === 0;
    byId("camera").classList.add("off");
    this.announce(words);
    byId("start").focus({ preventScroll: true });
  }

  /** Save a frame with its own faces: boxes of another frame would not fit. */
  async saveSnapshot(bitmap, faces) {
    this.wantsSnapshot = false;
    download("camera.mien.png", await annotatedPng(bitmap, faces, { ...this.settings, mirrored: this.mirrored }));
    bitmap.close();
  }

  save(ending, text) {
    download(`camera.${ending}`, text, ending === "csv" ? "text/csv" : "application/jsonl");
  }
}

const LONGEST = 640; // pixels: frames are scaled down to this longer side

const CAMERA_ERRORS = {
  NotAllowedError: "Camera access was denied. Allow it for this page in the browser's settings, and start the camera again.",
  NotFoundError: "No camera was found. Connect one, or choose an image.",
  NotReadableError: "The camera is in use by another program. Close that program, and start the camera again.",
  OverconstrainedError: "The camera supports no suitable resolution. Try another camera.",
  SecurityError: "Browsers allow the camera only on https pages and localhost.",
};

/** Why the camera did not start, in one line. */
export function cameraErrorMessage(error) {
  return CAMERA_ERRORS[error.name] ?? `The camera did not start (${error.message || error.name}).`;
}

/** Turn a camera off, if there is one. */
export function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** The current frame of the video, its longer side at most LONGEST. */
export function captureFrame(video) {
  const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
  const resizeWidth = Math.round(video.videoWidth * scale);
  const resizeHeight = Math.round(video.videoHeight * scale);
  return createImageBitmap(video, scale < 1 ? { resizeWidth, resizeHeight, resizeQuality: "medium" } : {});
}

/** Waits for the next unread frame of a video; returns at once if one arrived while the last was read. */
export class FrameClock {
  constructor(video) {
    this.video = video;
    this.isFresh = true;
    this.waiting = null;
    this.listen();
  }

  next() {
    if (!this.isFresh) return new Promise((resolve) => (this.waiting = resolve)).then(() => (this.isFresh = false));
    this.isFresh = false;
    return Promise.resolve();
  }

  listen() {
    const arrived = () => {
      this.isFresh = true;
      this.waiting?.();
      this.waiting = null;
      if (this.video.srcObject !== null) this.listen();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(arrived);
    else requestAnimationFrame(arrived);
  }
}
