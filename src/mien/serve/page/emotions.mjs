// The texts about a face: its emotion, its probability in per cent, its headline.

export { COLORS, UNSURE_COLOR } from "./colors.mjs";

/** The most probable emotion of a face and its probability. */
export function topOf({ probs }) {
  return Object.entries(probs).reduce((best, pair) => (pair[1] > best[1] ? pair : best));
}

/** { emotion, top, confidence }: emotion is null ("unsure") if the highest probability is below the threshold. */
export function labelOf(face, threshold) {
  const [top, confidence] = topOf(face);
  return { emotion: confidence >= threshold ? top : null, top, confidence };
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
