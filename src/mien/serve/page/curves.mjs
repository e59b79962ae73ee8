// The curves below the camera: stacked probabilities of each track over the last seconds, with a legend and a time axis.

import { element } from "./dom.mjs";
import { COLORS } from "./emotions.mjs";

const WINDOW = 30; // seconds shown
const TICK = 10; // seconds between two marks of the time axis
const GAP = 1.5; // seconds without a reading after which the curve is interrupted
const MAX_SHOWN = 4; // curves at the same time
const KEEP = 1.3; // a face replaces a shown one if its box has more than KEEP times the area: equal faces do not alternate
const THINNEST = 3; // of the 960 pixels of a curve: what a single reading is shown as
const LINE = "#0005"; // the marks in the curves

/** The curves of all tracks, of which MAX_SHOWN are shown: those of the largest faces in view, then those that left last. */
export class Curves {
  constructor(root) {
    this.root = root;
    this.clear();
  }

  clear() {
    this.timelines = new Map();
    this.shown = [];
    this.root.replaceChildren();
  }

  /** Add the faces of a frame and draw. */
  add(faces, seconds) {
    for (const face of faces) {
      if (!this.timelines.has(face.id)) this.timelines.set(face.id, new Timeline(face.id));
      this.timelines.get(face.id).add(seconds, face);
    }
    for (const [id, timeline] of this.timelines) if (timeline.isOver(seconds)) this.timelines.delete(id);
    this.show(this.choose(seconds));
    for (const timeline of this.shown) timeline.draw(seconds);
  }

  choose(now) {
    const rank = (timeline) => {
      const since = now - timeline.seenAt;
      return since > GAP ? -since : timeline.area * (this.shown.includes(timeline) ? KEEP : 1);
    };
    const ranked = [...this.timelines.values()].sort((one, other) => rank(other) - rank(one));
    return ranked.slice(0, MAX_SHOWN).sort((one, other) => one.id - other.id);
  }

  show(timelines) {
    if (timelines.length === this.shown.length && timelines.every((one, index) => one === this.shown[index])) return;
    this.shown = timelines;
    const parts = timelines.length > 0 ? [legend(timelines[0].emotions), ...timelines.map(({ element: strip }) => strip), axis()] : [];
    this.root.replaceChildren(...parts);
  }
}

/** The colours in the order in which the curves are stacked, the lowest first. */
function legend(emotions) {
  const keys = emotions.map((name) => element("li", { style: { "--c": COLORS[name] } }, element("i", { "aria-hidden": "true" }), name));
  return element("ul", { class: "legend", "aria-label": "Emotions, from the lowest curve to the highest" }, ...keys);
}

function axis() {
  const marks = Array.from({ length: WINDOW / TICK + 1 }, (_, index) => {
    const ago = WINDOW - index * TICK;
    const text = ago === 0 ? "now" : index === 0 ? `${ago} s ago` : `${ago} s`;
    return element("span", { style: { "--x": `${(100 * (WINDOW - ago)) / WINDOW}%` } }, text);
  });
  return element("div", { class: "axis", "aria-hidden": "true" }, element("div", {}, ...marks));
}

/** The curves of one track, the newest at the right edge. */
class Timeline {
  constructor(id) {
    this.id = id;
    this.points = [];
    const label = `Track ${id}: probabilities over the last ${WINDOW} seconds`;
    this.canvas = element("canvas", { width: 960, height: 96, role: "img", "aria-label": label });
    this.element = element("figure", { class: "timeline" }, element("figcaption", {}, `Track ${id}`), this.canvas);
  }

  /** Add the probabilities of a frame. */
  add(seconds, { probs, box: [x1, y1, x2, y2] }) {
    this.emotions = Object.keys(probs);
    this.area = (x2 - x1) * (y2 - y1);
    this.seenAt = seconds;
    this.points.push({ seconds, values: Object.values(probs) });
    while (this.points[0].seconds < seconds - WINDOW - 1) this.points.shift();
  }

  /** Whether its last point has left the window. */
  isOver(now) {
    return this.seenAt < now - WINDOW;
  }

  draw(now) {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const runs = this.runs();
    if (runs.length === 0) return;
    for (const run of runs) {
      const x = run.map(({ seconds }) => width * (1 - (now - seconds) / WINDOW));
      x[0] = Math.min(x[0], x.at(-1) - THINNEST);
      const floor = run.map(() => height);
      this.emotions.forEach((name, k) => {
        const roof = run.map(({ values }, i) => floor[i] - values[k] * height);
        context.beginPath();
        x.forEach((at, i) => context.lineTo(at, floor[i]));
        for (let i = x.length - 1; i >= 0; i--) context.lineTo(x[i], roof[i]);
        context.fillStyle = COLORS[name];
        context.fill();
        roof.forEach((value, i) => (floor[i] = value));
      });
    }
    context.fillStyle = LINE;
    for (let ago = TICK; ago < WINDOW; ago += TICK) context.fillRect(width * (1 - ago / WINDOW), 0, 1, height);
  }

  /** The points in pieces without a gap; a piece of one point has it twice. */
  runs() {
    const runs = [];
    let last = -Infinity;
    for (const point of this.points) {
      if (point.seconds - last > GAP) runs.push([]);
      runs.at(-1).push(point);
      last = point.seconds;
    }
    return runs.map((run) => (run.length > 1 ? run : [...run, ...run]));
  }
}
