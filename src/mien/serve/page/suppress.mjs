// Candidates and non-maximum suppression (mien/detect/candidates.py).
//
// A candidate is { box: [x1, y1, x2, y2], points: [[x, y], ...], score }, points in the order right eye, left eye, nose,
// mouth, right ear, left ear; left and right are the subject's.

export const SAME_FACE = 0.3; // intersection over union from which two boxes are one face
const PART_OF_FACE = 0.6; // share of the smaller box inside the larger from which it is a part of the face
const TINY = 2.2250738585072014e-308; // the smallest normal double, against division by zero

export function widthOf({ box }) {
  return box[2] - box[0];
}

export function centerOf({ box }) {
  return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
}

export function areaOf({ box }) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

/** Highest score first; the order of ties does not change. */
export function byScore(candidates) {
  return [...candidates].sort((one, other) => other.score - one.score);
}

/** One candidate per face, the best first: greedy by score, boxes of the same face blended by their scores
 * (Bazarevsky et al., "BlazeFace", 2019, section 4.4); parts of a face are dropped and do not count. */
export function suppress(candidates) {
  const faces = [];
  let rest = byScore(candidates);
  while (rest.length > 0) {
    const best = rest[0];
    const over = rest.map((other, index) => (index === 0 ? [1, 1] : overlap(best, other)));
    faces.push(blend(rest.filter((_, index) => over[index][0] >= SAME_FACE)));
    rest = rest.filter((_, index) => over[index][0] < SAME_FACE && over[index][1] < PART_OF_FACE);
  }
  return faces;
}

/** Of two candidates: intersection over union, and intersection over the smaller area. */
export function overlap(one, other) {
  const shared = intersection(one, other);
  const [area, areas] = [areaOf(one), areaOf(other)];
  return [shared / Math.max(area + areas - shared, TINY), shared / Math.max(Math.min(area, areas), TINY)];
}

/** Whether more than half of a candidate is inside one of the faces. */
export function insideOf(candidate, faces) {
  const half = Math.max(areaOf(candidate), TINY) / 2;
  return faces.some((face) => intersection(face, candidate) > half);
}

function intersection({ box: one }, { box: other }) {
  const wide = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const high = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return Math.max(wide, 0) * Math.max(high, 0);
}

function blend(group) {
  if (group.length < 2) return group[0];
  const total = group.reduce((sum, { score }) => sum + score, 0);
  const mean = (pick) => group.reduce((sum, candidate) => sum + (candidate.score / total) * pick(candidate), 0);
  return {
    box: group[0].box.map((_, side) => mean(({ box }) => box[side])),
    points: group[0].points.map((_, k) => [mean(({ points }) => points[k][0]), mean(({ points }) => points[k][1])]),
    score: group[0].score,
  };
}
