// BlazeFace short-range and its multi-scale search: a port of mien/detect/blazeface.py, which explains the constants.
// The golden readings are tested with both.

import { areaOf, byScore, centerOf, insideOf, overlap, SAME_FACE, suppress, widthOf } from "./suppress.mjs";
import { cut, letterbox, Pyramid, split } from "./tiles.mjs";

export const THRESHOLD = 0.65; // score from which a candidate is a face
const SIDE = 128; // pixels; the input the network was trained for
const FINE = { stride: 8, each: 2 }; // pixels between the cells of a head, and anchors in each of its cells
const COARSE = { stride: 16, each: 6 };
const MULTIPLE = 16; // pixels

const TRACE = 0.2;
const WIDE_TRACE = 0.25;
const WIDE_TRACE_WIDTH = 20;
const DOUBT = 0.5;
const TRACE_SHARE = 0.7;
const TRACE_WIDTH = 16; // pixels
const PLAIN_WIDTH = 28; // pixels
const PLAIN_SCORE = 0.9;
const RETRY_WIDTH = 32; // pixels
const REFINE_BELOW = 48; // pixels
const REFINE_WIDTH = 45; // pixels
const REFINE_SIDE = 96; // pixels
const LEVEL_STEP = 2.7;
const LEVEL_SIDE = 512; // pixels
const LEVEL_OVERLAP = 96; // pixels

const SMALLEST = 24; // pixels
const SMALLEST_SHARE = 0.01;
const CLOSE_SHARE = 0.08;
const CLOSE_OTHERS = 8;
const SMALLEST_OF_CLOSE = 1 / 3;
const FILLING_SHARES = [0.5, 0.6, 0.7];
const FILLING_WIDTH = 0.5;

/** Finds faces in images. `run(tileImage)` returns the network's { boxes: [A * 16], scores: [A] }. */
export class BlazeFace {
  constructor(run, { threshold = THRESHOLD } = {}) {
    this.run = run;
    this.threshold = threshold;
    this.lowest = Math.min(TRACE, threshold);
  }

  /** The faces of an image in its pixels, largest first. Faces narrower than `atLeast` pixels are not searched for; by
   * default the image's size and its faces set the limit. */
  async find(image, { atLeast = 0 } = {}) {
    const pyramid = new Pyramid(image, (LEVEL_STEP * SIDE) / Math.max(image.width, image.height));
    let faces = await this.search(pyramid, atLeast);
    if (faces.length === 0) faces = await this.searchFilling(pyramid);
    const exact = suppress(await this.refine(pyramid, suppress(faces)));
    return exact.sort((one, other) => areaOf(other) - areaOf(one));
  }

  /** The new position of a face that was at `face` in the last frame, found in one small tile; null if it is not there. */
  async findNear(image, face) {
    const side = (widthOf(face) * REFINE_SIDE) / REFINE_WIDTH;
    const pyramid = new Pyramid(image, 1); // no reduced copy: only the tile's pixels are read
    const found = suppress(await this.findIn([cut(pyramid, centerOf(face), side, REFINE_SIDE)], DOUBT));
    const same = found.filter((candidate) => overlap(face, candidate)[0] >= SAME_FACE);
    return same.length > 0 ? same[0] : null;
  }

  async search(pyramid, atLeast) {
    const longSide = Math.max(pyramid.width, pyramid.height);
    let [plain, traces, smallest] = [[], [], 0];
    let scale = SIDE / longSide;
    let widest = SIDE;
    while (scale > 0) {
      const tiles = split(pyramid, scale, { side: LEVEL_SIDE, overlap: LEVEL_OVERLAP, multiple: MULTIPLE });
      const more = this.sort(await this.findIn(tiles, this.lowest), scale, widest);
      plain = [...plain, ...more.plain];
      traces = [...traces.filter((trace) => !isSuperseded(trace, scale)), ...more.traces];
      smallest = Math.max(atLeast, smallestOf(longSide, plain, traces));
      scale = finerScale(scale, smallest);
      widest = LEVEL_OVERLAP;
    }
    const retried = traces.filter((trace) => widthOf(trace) >= TRACE_SHARE * smallest && !insideOf(trace, plain));
    return [...plain, ...(await this.findIn(retryTiles(pyramid, retried), this.threshold))];
  }

  /** Measure box and key points of each small face again in a tile. Scores do not change. */
  async refine(pyramid, faces) {
    const exact = faces.filter((face) => widthOf(face) >= REFINE_BELOW);
    for (const face of faces.filter((one) => widthOf(one) < REFINE_BELOW)) {
      const side = (widthOf(face) * REFINE_SIDE) / REFINE_WIDTH;
      const again = suppress(await this.findIn([cut(pyramid, centerOf(face), side, REFINE_SIDE)], TRACE));
      const best = again.find((candidate) => overlap(face, candidate)[0] >= SAME_FACE);
      exact.push(best ? { ...best, score: face.score } : face);
    }
    return exact;
  }

  /** Find a face that fills the image, as in a tight crop: the network needs a margin around it, here a black one. */
  async searchFilling(pyramid) {
    const faces = await this.findIn(FILLING_SHARES.map((share) => letterbox(pyramid, SIDE, share)), this.threshold);
    const least = FILLING_WIDTH * Math.min(pyramid.width, pyramid.height);
    return faces.filter((face) => widthOf(face) >= least);
  }

  /** The candidates of all tiles with a score of at least `lowest`, in pixels of the image. */
  async findIn(tiles, lowest) {
    const found = [];
    for (const { image, x, y, scale } of tiles) {
      const { boxes, scores } = await this.run(image);
      found.push(...decode(boxes, scores, image, lowest).map((candidate) => toImageCoordinates(candidate, x, y, scale)));
    }
    return found;
  }

  sort(found, scale, widest) {
    const [plain, traces] = [[], []];
    for (const candidate of found) {
      const width = widthOf(candidate) * scale;
      const isSure = candidate.score >= Math.max(this.threshold, PLAIN_SCORE);
      if (isSure && width >= PLAIN_WIDTH && width <= widest) {
        plain.push(candidate);
        continue;
      }
      const lowest = width >= PLAIN_WIDTH ? DOUBT : width >= WIDE_TRACE_WIDTH ? WIDE_TRACE : this.lowest;
      if (candidate.score >= lowest && width <= LEVEL_OVERLAP) traces.push(candidate);
    }
    return { plain, traces };
  }
}

function smallestOf(longSide, plain, traces) {
  const certain = [...plain, ...traces.filter(({ score }) => score >= PLAIN_SCORE)];
  const closest = certain.reduce((most, face) => Math.max(most, widthOf(face)), 0);
  const isPortrait = closest >= CLOSE_SHARE * longSide && countOthers(certain, closest, traces) <= CLOSE_OTHERS;
  return Math.max(SMALLEST, SMALLEST_SHARE * longSide, isPortrait ? SMALLEST_OF_CLOSE * closest : 0);
}

function countOthers(certain, closest, traces) {
  return suppress(traces.filter((trace) => widthOf(trace) < closest / 1.5 && !insideOf(trace, certain))).length;
}

function finerScale(scale, smallest) {
  const finest = TRACE_WIDTH / smallest;
  if (scale >= 0.8 * finest) return 0;
  return finest <= 1.25 * LEVEL_STEP * scale ? finest : LEVEL_STEP * scale;
}

function isSuperseded(trace, scale) {
  const width = widthOf(trace) * scale;
  return width >= PLAIN_WIDTH && width <= LEVEL_OVERLAP && trace.score < PLAIN_SCORE;
}

/** Tiles in which traces have the best size, strongest first. A tile also covers similar neighbours. */
function* retryTiles(pyramid, traces) {
  let rest = byScore(traces);
  while (rest.length > 0) {
    const [x, y] = centerOf(rest[0]);
    const width = widthOf(rest[0]);
    const side = (width * SIDE) / RETRY_WIDTH;
    yield cut(pyramid, [x, y], side, SIDE);
    rest = rest.slice(1).filter((other) => {
      const [otherX, otherY] = centerOf(other);
      const isNear = Math.max(Math.abs(otherX - x), Math.abs(otherY - y)) < side / 4;
      return !(isNear && widthOf(other) > width / 1.8 && widthOf(other) < width * 1.8);
    });
  }
}

function decode(offsets, scores, { width, height }, lowest) {
  const least = Math.fround(lowest);
  const fineAnchors = Math.trunc(height / FINE.stride) * Math.trunc(width / FINE.stride) * FINE.each;
  const candidates = [];
  for (let anchor = 0; anchor < scores.length; anchor++) {
    if (!(scores[anchor] >= least)) continue;
    const { stride, each } = anchor < fineAnchors ? FINE : COARSE;
    const cell = Math.trunc((anchor < fineAnchors ? anchor : anchor - fineAnchors) / each);
    const columns = Math.trunc(width / stride);
    const x = ((cell % columns) + 0.5) * stride;
    const y = (Math.trunc(cell / columns) + 0.5) * stride;
    const offset = offsets.subarray(anchor * 16, anchor * 16 + 16);
    const [halfWide, halfHigh] = [Math.abs(offset[2]) / 2, Math.abs(offset[3]) / 2];
    const [middleX, middleY] = [x + offset[0], y + offset[1]];
    const points = [];
    for (let k = 4; k < 16; k += 2) points.push([x + offset[k], y + offset[k + 1]]);
    const box = [middleX - halfWide, middleY - halfHigh, middleX + halfWide, middleY + halfHigh];
    candidates.push({ box, points, score: scores[anchor] });
  }
  return candidates;
}

function toImageCoordinates({ box, points, score }, x, y, scale) {
  return {
    box: box.map((side, index) => side / scale + (index % 2 === 0 ? x : y)),
    points: points.map(([across, down]) => [across / scale + x, down / scale + y]),
    score,
  };
}
