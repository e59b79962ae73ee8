// Image, detections -> crops: each face turned upright and framed like the training faces. A port of mien/extract.py with
// the same arithmetic in the same order: the crops are bit-identical.

const PLACES = 16; // steps of the position and the size of a face per pixel
const MIN_EYE_DISTANCE = 0.1; // box widths: eyes closer together than this do not give a reliable rotation
const MOUTH_SHARE = 0.9; // weight of the mouth's distance in the size of a turned head
const MAX_SAMPLES = 3; // samples along one side of a crop's pixel, at most
const [RED, GREEN, BLUE] = [19595, 38470, 7471]; // ITU-R BT.601 luma in 1/65536

/** One grey crop of `size` x `size` for a detection { box, points }, and `toImage`, the affine [a, b, c, d, e, f] that
 * takes a crop's (x, y) to (a x + b y + c, d x + e y + f) of the image. */
export function extract(image, detection, size, framing) {
  const unit = place(detection, framing);
  const toImage = [unit[0] / size, unit[1] / size, unit[2], unit[3] / size, unit[4] / size, unit[5]];
  const crop = cutOut(image, toImage, size);
  return { crop, toImage, quality: qualityOf(crop, size, toImage, detection.points) };
}

const [FULL_SIZE, FULL_SHARPNESS, FULL_TURN] = [32, 0.15, 0.5]; // from or up to which they lower no score

/** How well a face can be seen: { score, size, sharpness, turn }, mien's Quality. */
function qualityOf(crop, side, [a, b, , d, e], points) {
  const size = side * Math.sqrt(Math.abs(a * e - b * d));
  const [sharpness, turn] = [sharpnessOf(crop, side), points ? turnOf(points) : null];
  const limit = Math.min(size / FULL_SIZE, sharpness / FULL_SHARPNESS, (1 - Math.abs(turn ?? 0)) / (1 - FULL_TURN));
  return { score: Math.min(Math.max(limit, 0), 1), size, sharpness, turn };
}

/** The share of the differences of neighbouring pixels that a blur over 3 pixels takes away. */
function sharpnessOf(crop, side) {
  let [lost, total] = [0, 0];
  for (const [along, across] of [[1, side], [side, 1]]) {
    for (let line = 0; line < side; line++) {
      for (let place = 1; place < side - 2; place++) {
        const at = line * across + place * along;
        const difference = 3 * Math.abs(crop[at + along] - crop[at]);
        lost += Math.max(difference - Math.abs(crop[at + 2 * along] - crop[at - along]), 0);
        total += difference;
      }
    }
  }
  return total > 0 ? lost / total : 0;
}

/** The distance of the nose from the middle of the eyes, along their line, in halves of their distance. */
function turnOf([[x1, y1], [x2, y2], [x, y]]) {
  const [across, down] = [x2 - x1, y2 - y1];
  const turn = (2 * ((x - (x1 + x2) / 2) * across + (y - (y1 + y2) / 2) * down)) / (across * across + down * down);
  return Number.isFinite(turn) ? turn : null;
}

function place({ box, points }, framing) {
  const [width, height] = [box[2] - box[0], box[3] - box[1]];
  if (!points || !isUsable(points, width)) return [width, 0, box[0], 0, height, box[1]];
  const [right, left, , mouth] = points;
  const { right_eye: framedRight, left_eye: framedLeft, mouth: framedMouth } = framing;
  const eyes = distance(right, left) / distance(framedRight, framedLeft);
  const down = drop(right, left, mouth) / drop(framedRight, framedLeft, framedMouth);
  const side = Math.max(eyes, MOUTH_SHARE * down);
  const upright = similarity(turn(right, left, framing), side, middle(right, left), framing);
  const placed = leaveTilt(upright, (framing.tilt ?? 0) * (Math.PI / 180));
  return placed.map((value) => Math.floor(value * PLACES + 0.5) / PLACES); // the last bits of the detector differ
}

function isUsable([right, left, , mouth], width) {
  return [...right, ...left, ...mouth].every(Number.isFinite) && distance(right, left) > MIN_EYE_DISTANCE * width;
}

function drop(right, left, mouth) {
  const [across, down] = [left[0] - right[0], left[1] - right[1]];
  const center = middle(right, left);
  return (across * (mouth[1] - center[1]) - down * (mouth[0] - center[0])) / distance(right, left);
}

function turn(right, left, { right_eye: framedRight, left_eye: framedLeft }) {
  const [across, down] = [left[0] - right[0], left[1] - right[1]];
  const [levelAcross, levelDown] = [framedLeft[0] - framedRight[0], framedLeft[1] - framedRight[1]];
  const length = distance(right, left) * distance(framedRight, framedLeft);
  return [(across * levelAcross + down * levelDown) / length, (down * levelAcross - across * levelDown) / length];
}

function similarity([cosine, sine], side, anchor, { right_eye: framedRight, left_eye: framedLeft }) {
  const [a, b] = [side * cosine, side * sine];
  const [across, down] = middle(framedRight, framedLeft);
  return [a, -b, anchor[0] - (a * across - b * down), b, a, anchor[1] - (b * across + a * down)];
}

/** Turn an upright crop back about its centre until the face tilts as in the image, `most` radians at most. */
function leaveTilt(upright, most) {
  let [a, , , b] = upright;
  const center = [
    upright[0] * 0.5 + upright[1] * 0.5 + upright[2],
    upright[3] * 0.5 + upright[4] * 0.5 + upright[5],
  ];
  const side = Math.sqrt(a * a + b * b);
  const cosine = Math.cos(most);
  const isNegative = b < 0 || Object.is(b, -0);
  const sine = isNegative ? -Math.abs(Math.sin(most)) : Math.abs(Math.sin(most));
  if (a >= side * cosine) [a, b] = [side, 0];
  else [a, b] = [a * cosine + b * sine, b * cosine - a * sine];
  return [a, -b, center[0] - (a - b) / 2, b, a, center[1] - (b + a) / 2];
}

function middle(one, other) {
  return [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
}

function distance(one, other) {
  const [across, down] = [other[0] - one[0], other[1] - one[1]];
  return Math.sqrt(across * across + down * down);
}

/** Sample over a crop's grid, averaging enough samples per pixel to avoid aliasing. */
function cutOut(image, [a, b, c, d, e, f], size) {
  const step = Math.max(Math.sqrt(a * a + d * d), Math.sqrt(b * b + e * e)) - 1e-6;
  const samples = Math.min(Math.max(Math.ceil(step), 1), MAX_SAMPLES);
  const block = Math.min(Math.max(Math.ceil(step / MAX_SAMPLES), 1), image.width, image.height);
  const [left, right] = span(a, b, c, size, image.width, block);
  const [top, bottom] = span(d, e, f, size, image.height, block);
  const grey = reduceToGrey(image, left, top, right, bottom, block);
  const crop = new Uint8Array(size * size);
  const grid = Float64Array.from({ length: size * samples }, (_, i) => (i + 0.5) / samples);
  const line = new Float64Array(size);
  for (let row = 0; row < size; row++) {
    line.fill(0);
    for (let inner = 0; inner < samples; inner++) {
      const down = grid[row * samples + inner];
      for (let outer = 0; outer < samples; outer++) {
        for (let column = 0; column < size; column++) {
          const across = grid[column * samples + outer];
          const x = (a * across + (c - left)) / block - 0.5 + (b * down) / block;
          const y = (d * across + (f - top)) / block - 0.5 + (e * down) / block;
          line[column] += interpolate(grey, x, y);
        }
      }
    }
    for (let column = 0; column < size; column++) {
      crop[row * size + column] = Math.floor(line[column] / (samples * samples) + 0.5);
    }
  }
  return crop;
}

/** First and last (exclusive) pixel of the image's side that a crop touches, whole blocks where there is room. */
function span(a, b, c, size, length, block) {
  const low = Math.min(a, 0) * size + Math.min(b, 0) * size + c;
  const high = Math.max(a, 0) * size + Math.max(b, 0) * size + c;
  const first = Math.min(Math.max(Math.floor(low) - block, 0), length - 1);
  const last = Math.max(Math.ceil(high) + block, first + 1);
  const missing = (((first - last) % block) + block) % block;
  return [first, Math.min(last + missing, length)];
}

/** Luma 0..255 of a region, averaged over blocks; the last ones repeat the edge. One row and column more, repeated. */
function reduceToGrey(image, left, top, right, bottom, block) {
  const [columns, rows] = [Math.ceil((right - left) / block), Math.ceil((bottom - top) / block)];
  const width = columns + 1;
  const values = new Float64Array(width * (rows + 1));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let total = 0;
      for (let y = 0; y < block; y++) {
        const line = Math.min(top + row * block + y, bottom - 1) * image.width;
        for (let x = 0; x < block; x++) {
          const at = (line + Math.min(left + column * block + x, right - 1)) * 3;
          total += image.data[at] * RED + image.data[at + 1] * GREEN + image.data[at + 2] * BLUE;
        }
      }
      values[row * width + column] = total / (65536 * block * block);
    }
    values[row * width + columns] = values[row * width + columns - 1];
  }
  values.copyWithin(rows * width, (rows - 1) * width, rows * width);
  return { values, width, height: rows + 1 };
}

/** The bilinear value at (x, y), counted from pixel centres; beyond the edges the edge is repeated. */
function interpolate({ values, width, height }, x, y) {
  const across = Math.min(Math.max(x, 0), width - 2);
  const down = Math.min(Math.max(y, 0), height - 2);
  const left = Math.trunc(across);
  const top = Math.trunc(down);
  const at = top * width + left;
  const upper = values[at] + (values[at + 1] - values[at]) * (across - left);
  const lower = values[at + width] + (values[at + width + 1] - values[at + width]) * (across - left);
  return upper + (lower - upper) * (down - top);
}
