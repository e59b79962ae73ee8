// The curves of one person over the last half minute: probabilities stacked, the newest at the right edge.

import { element } from "./dom.mjs";
import { COLORS } from "./emotions.mjs";

const WINDOW = 30; // seconds that are shown
const GAP = 1.5; // seconds without a reading after which the curve is interrupted

export class Timeline {
  constructor(id) {
    this.id = id;
    this.points = [];
    this.canvas = element("canvas", { width: 960, height: 96, role: "img", "aria-label": `Person ${id}: probabilities over the last ${WINDOW} seconds` });
    this.element = element("figure", { class: "person" }, element("figcaption", {}, `Person ${id}`), this.canvas);
  }

  /** Add the probabilities of a moment. */
  add(seconds, probs) {
    this.points.push({ seconds, values: Object.values(probs), names: Object.keys(probs) });
    while (this.points.length > 0 && this.points[0].seconds < seconds - WINDOW - 1) this.points.shift();
  }

  /** Whether nothing of it is in the window any more. */
  isOver(now) {
    return this.points.length === 0 || this.points.at(-1).seconds < now - WINDOW;
  }

  draw(now) {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    for (const run of this.runs()) {
      const x = run.map(({ seconds }) => width * (1 - (now - seconds) / WINDOW));
      const floor = run.map(() => height);
      run[0].names.forEach((name, k) => {
        const roof = run.map(({ values }, i) => floor[i] - values[k] * height);
        context.beginPath();
        x.forEach((at, i) => context.lineTo(at, floor[i]));
        for (let i = x.length - 1; i >= 0; i--) context.lineTo(x[i], roof[i]);
        context.fillStyle = COLORS[name];
        context.fill();
        roof.forEach((value, i) => (floor[i] = value));
      });
    }
  }

  /** The points in pieces without a gap. */
  runs() {
    const runs = [];
    let last = -Infinity;
    for (const point of this.points) {
      if (point.seconds - last > GAP) runs.push([]);
      runs.at(-1).push(point);
      last = point.seconds;
    }
    return runs.filter((run) => run.length > 1);
  }
}
