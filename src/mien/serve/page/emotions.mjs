// The texts about a face: its emotion, its probability in per cent, its headline.

export { COLORS, UNSURE_COLOR } from "./colors.mjs";

/** The most probable emotion of a face and its probability. */
export function topOf({ probs }) {
  return Object.entries(probs).reduce((best, pair) => (pair[1] > best[1] ? pair : best));
}

/** The threshold for faces of a size: of pairs [size, threshold] by ascending size, interpolated. */
export function thresholdAt(pairs, size) {
  const after = pairs.findIndex(([side]) => side >= size);
  if (pairs.length === 0 || after === 0) return pairs[0]?.[1] ?? 0;
  if (after < 0) return pairs.at(-1)[1];
  const [[x1, y1], [x2, y2]] = [pairs[after - 1], pairs[after]];
  return y1 + ((y2 - y1) * (size - x1)) / (x2 - x1);
}

/** { emotion, top, confidence }: emotion is null ("unsure") if the highest probability is below the threshold, which is
 * a number or pairs of `thresholdAt`. */
export function labelOf(face, threshold) {
  const [top, confidence] = topOf(face);
  const least = Array.isArray(threshold) ? thresholdAt(threshold, face.quality.size) : threshold;
  return { emotion: confidence >= least ? top : null, top, confidence };
}

/** "quality 0.62: 22 px, sharpness 0.09, turn +0.12", as mien's Quality. */
export function qualityText({ score, size, sharpness, turn }) {
  const side = turn === null ? "" : `, turn ${turn <= -0.005 ? "-" : "+"}${Math.abs(turn).toFixed(2)}`;
  return `quality ${score.toFixed(2)}: ${size.toFixed(0)} px, sharpness ${sharpness.toFixed(2)}${side}`;
}

/** A probability in per cent, never shown as 0 % or 100 %: no model is certain. */
export function percent(value) {
  const whole = Math.round(100 * value);
  return whole < 1 ? "< 1 %" : whole > 99 ? "> 99 %" : `${whole} %`;
}

/** "happy 93 %", or "unsure, most likely sad 41 %". */
export function headline(face, threshold) {
  const { emotion, top, confidence } = labelOf(face, threshold);
  return emotion === null ? `unsure, most likely ${top} ${percent(confidence)}` : `${emotion} ${percent(confidence)}`;
}

/** "one face: happy 93 %", for screen readers. */
export function summary(faces, threshold) {
  if (faces.length === 0) return "no face was found";
  const counts = new Map();
  for (const face of faces) {
    const name = labelOf(face, threshold).emotion ?? "unsure";
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  if (faces.length === 1) return `one face: ${headline(faces[0], threshold)}`;
  return `${faces.length} faces: ${[...counts].map(([name, count]) => `${count} ${name}`).join(", ")}`;
}
