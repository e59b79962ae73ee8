// The camera: newest frame wins, boxes over the live picture, curves below, everything kept for download.

import { byId, element } from "./dom.mjs";
import { drawFaces, drawMap } from "./draw.mjs";
import { COLORS, headline, judge, percent, UNSURE_COLOR } from "./emotions.mjs";
import { Clock, grab, stopTracks } from "./frames.mjs";
import { annotatedPng, download, momentsToCsv, momentsToJson } from "./save.mjs";
import { Timeline } from "./timeline.mjs";

const MOST_CURVES = 4; // people with curves at the same time
const MOST_KEPT = 120_000; // frames and faces in them, for download: above an hour of one face; then the oldest go
const SPOKEN_EVERY = 3; // seconds between two summaries for people who listen

/** Who is seen, without figures: what is said anew with every percent nobody can listen to. */
function namesOf(faces, threshold) {
  const names = faces.map((face) => `person ${face.id} ${judge(face, threshold).emotion ?? "unsure"}`);
  return names.join(", ") || "nobody";
}

export class Camera {
  /** `engine()` answers who reads now; `settings` has threshold, maps, smooth; `say` speaks; `fail` shows an error. */
  constructor({ engine, settings, say, fail }) {
    Object.assign(this, { engine, settings, say, fail });
    this.video = byId("video");
    this.overlay = byId("over");
    this.pointed = null;
    this.wantsPicture = false;
    this.isStarting = false;
    this.moments = [];
    byId("stop").addEventListener("click", () => this.stop());
    byId("snap").addEventListener("click", () => (this.wantsPicture = true));
    byId("camera-json").addEventListener("click", () => this.save("jsonl", momentsToJson(this.moments, settings.threshold)));
    byId("camera-csv").addEventListener("click", () => {
      const names = Object.keys(this.moments.find(({ faces }) => faces.length > 0)?.faces[0].probs ?? {});
      this.save("csv", momentsToCsv(this.moments, settings.threshold, names));
    });
  }

  get isRunning() {
    return this.stream !== undefined && this.stream !== null;
  }

  /** Ask for the camera and follow it until it is stopped. Throws what getUserMedia throws. */
  async start() {
    if (this.isRunning || this.isStarting) return; // a second click while the browser asks
    if (!navigator.mediaDevices) throw new DOMException("no camera here", "SecurityError");
    this.isStarting = true;
    const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: "user" };
    let stream = null;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
      this.video.srcObject = stream;
      await this.video.play();
    } catch (error) {
      stopTracks(stream); // else its light stays on, and nothing on the page would turn it off
      this.video.srcObject = null;
      throw error;
    } finally {
      this.isStarting = false;
    }
    const [track] = stream.getVideoTracks();
    track.addEventListener("ended", () => this.stream === stream && this.lose());
    this.mirrored = track.getSettings().facingMode !== "environment";
    this.stream = stream;
    this.clock = new Clock(this.video);
    this.begin();
    this.follow(stream);
  }

  lose() {
    this.stop("The camera has gone.");
    this.fail("Camera", "it has gone; connect it, and start it again");
  }

  begin() {
    this.moments = [];
    this.kept = 0;
    this.curves = new Map();
    this.frames = 0;
    this.times = [];
    this.spokenAt = -Infinity;
    byId("curves").replaceChildren();
    byId("stage").classList.toggle("mirrored", this.mirrored);
    byId("camera").classList.remove("off");
    byId("camera").hidden = false;
    byId("camera").scrollIntoView({ block: "start" });
    byId("stop").focus({ preventScroll: true });
  }

  async follow(stream) {
    const started = performance.now();
    while (this.stream === stream) {
      await this.clock.next();
      if (this.stream !== stream) return;
      const seconds = (performance.now() - started) / 1000;
      try {
        const bitmap = await grab(this.video);
        const copy = this.wantsPicture ? await createImageBitmap(bitmap) : null;
        const moment = await this.engine().frame(bitmap, seconds, this.settings);
        if (this.stream !== stream || moment === null) continue;
        this.show(moment, seconds);
        if (copy !== null) await this.savePicture(copy, moment.faces);
      } catch (error) {
        if (this.stream === stream) {
          this.stop();
          this.fail("Camera", error.message);
        }
        return;
      }
    }
  }

  show(moment, seconds) {
    this.last = moment;
    this.count(seconds);
    this.keep({ frame: this.frames++, seconds, faces: moment.faces });
    this.draw();
    this.list(moment.faces);
    this.curve(moment.faces, seconds);
    if (seconds - this.spokenAt >= SPOKEN_EVERY) {
      this.spokenAt = seconds;
      this.say(`Camera: ${namesOf(moment.faces, this.settings.threshold)}`);
    }
  }

  count(seconds) {
    this.times.push(seconds);
    while (this.times[0] < seconds - 2) this.times.shift();
    const span = seconds - this.times[0];
    if (span > 0.5) byId("rate").textContent = `${((this.times.length - 1) / span).toFixed(0)} frames a second`;
  }

  keep({ frame, seconds, faces }) {
    const rows = faces.map(({ id, box, probs, score }) => ({ id, box, probs, score }));
    this.moments.push({ frame, seconds, faces: rows });
    this.kept += 1 + rows.length;
    while (this.kept > MOST_KEPT) this.kept -= 1 + this.moments.shift().faces.length;
  }

  draw() {
    const { width, height, faces } = this.last;
    if (this.overlay.width !== width || this.overlay.height !== height) Object.assign(this.overlay, { width, height });
    const context = this.overlay.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (this.mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
    for (const face of faces) {
      if (!this.settings.maps && this.pointed === face.id) drawMap(context, face, judge(face, 0).top);
    }
    drawFaces(context, faces, { ...this.settings, width, height, mirrored: this.mirrored });
  }

  /** The people who are seen, with their bars; an element stays as long as its person, so that focus stays, too. */
  list(faces) {
    const list = byId("people");
    const ids = new Set(faces.map(({ id }) => String(id)));
    for (const item of [...list.children]) if (!ids.has(item.dataset.id)) item.remove();
    for (const face of faces) {
      const item = [...list.children].find(({ dataset }) => dataset.id === String(face.id)) ?? this.person(face, list);
      const { threshold } = this.settings;
      const { emotion } = judge(face, threshold);
      item.style.setProperty("--c", emotion === null ? UNSURE_COLOR : COLORS[emotion]);
      item.classList.toggle("e-unsure", emotion === null);
      item.querySelector("button").setAttribute("aria-label", `Person ${face.id} ${headline(face, threshold)}. Show the map`);
      item.querySelector(".name").textContent = emotion ?? "unsure";
      for (const row of item.querySelectorAll(".row")) {
        const value = face.probs[row.dataset.emotion];
        row.style.setProperty("--p", `${100 * value}%`);
        row.querySelector(".value").textContent = percent(value);
      }
    }
    byId("alone").hidden = faces.length > 0;
  }

  person(face, list) {
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
    const button = element("button", { type: "button", class: "who", on: events }, element("span", { class: "number", "aria-hidden": "true" }, `${face.id}`), " ", name);
    const item = element("li", { "data-id": face.id }, button, ...rows);
    list.append(item);
    return item;
  }

  curve(faces, seconds) {
    for (const [id, curve] of this.curves) {
      if (!curve.isOver(seconds)) continue;
      curve.element.remove();
      this.curves.delete(id);
    }
    for (const { id, probs } of faces) {
      if (!this.curves.has(id) && this.curves.size >= MOST_CURVES) continue;
      if (!this.curves.has(id)) {
        this.curves.set(id, new Timeline(id));
        byId("curves").append(this.curves.get(id).element);
      }
      this.curves.get(id).add(seconds, probs);
    }
    for (const curve of this.curves.values()) curve.draw(seconds);
  }

  stop(words = "The camera is off.") {
    stopTracks(this.stream);
    this.stream = null;
    this.wantsPicture = false;
    this.video.srcObject = null;
    this.engine().forget();
    this.overlay.getContext("2d").clearRect(0, 0, this.overlay.width, this.overlay.height);
    byId("people").replaceChildren();
    byId("rate").textContent = "";
    byId("camera").hidden = this.moments.length === 0;
    byId("camera").classList.add("off");
    this.say(words);
    byId("start").focus({ preventScroll: true });
  }

  /** Save the next frame with its own faces: those of another frame would lie beside them. */
  async savePicture(bitmap, faces) {
    this.wantsPicture = false;
    const { threshold, maps } = this.settings;
    download("camera.mien.png", await annotatedPng(bitmap, faces, { threshold, maps, mirrored: this.mirrored }));
    bitmap.close();
  }

  save(ending, text) {
    download(`camera.${ending}`, text, ending === "csv" ? "text/csv" : "application/jsonl");
  }
}
