// BlazeFace short-range and its multi-scale search: a port of mien/detect/blazeface.py, which explains the constants.
// The golden readings are tested with both.

import { areaOf, centerOf, insideOf, overlap, SAME_FACE, suppress, widthOf } from "./suppress.mjs";
import { cut, letterbox, Pyramid, split } from "./tiles.mjs";

export const THRESHOLD = 0.65; // score from which a candidate is a face
const SIDE = 128; // pixels; the input the network was trained for
const FINE = { stride: 8, each: 2 }; // pixels between the cells of a head, and anchors in each of its cells
const COARSE = { stride: 16, each: 6 };
const MULTIPLE = 16; // pixels

const TRACE = 0.1;
const CLEAR_TRACE = 0.2;
const WIDE_TRACE = 0.25;
const WIDE_TRACE_WIDTH = 20;
const DOUBT = 0.5;
const TRACE_SHARE = 0.7;
const TRACE_WIDTH = 16; // pixels
const PLAIN_WIDTH = 28; // pixels
const PLAIN_SCORE = 0.9;
const RETRY_SIDE = 64; // pixels
const RETRY_WIDTH = 36; // pixels
const RETRY_GAIN = 0.25; // log-odds
const LEVEL_STEP = 2.7;
const LEVEL_SIDE = 704; // pixels
const LEVEL_OVERLAP = 128; // pixels

const NEAR_WIDTH = 45; // pixels
const NEAR_SIDE = 96; // pixels
const NEAR_SCORE = 0.5;

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
    return suppress(faces).sort((one, other) => areaOf(other) - areaOf(one));
  }

  /** The new position of a face that was at `face` in the last frame, found in one small tile; null if it is not there. */
  async findNear(image, face) {
    const side = (widthOf(face) * NEAR_SIDE) / NEAR_WIDTH;
    const pyramid = new Pyramid(image, 1); // no reduced copy: only the tile's pixels are read
    const found = suppress(await this.findIn([cut(pyramid, centerOf(face), side, NEAR_SIDE)], NEAR_SCORE));
    const same = found.filter((candidate) => overlap(face, candidate)[0] >= SAME_FACE);
    return same.length > 0 ? same[0] : null;
  }

  async search(pyramid, atLeast) {
    const longSide = Math.max(pyramid.width, pyramid.height);
    let [plain, traces, smallest] = [[], [], 0];
    let scale = SIDE / longSide;
    while (scale > 0) {
      const tiles = split(pyramid, scale, { side: LEVEL_SIDE, overlap: LEVEL_OVERLAP, multiple: MULTIPLE });
      const more = this.sort(await this.findIn(tiles, this.lowest), scale);
      plain = [...plain, ...more.plain];
      traces = [...traces.filter((trace) => !isSuperseded(trace, scale)), ...more.traces];
      smallest = Math.max(atLeast, smallestOf(longSide, plain, traces));
      scale = finerScale(scale, smallest);
    }
    const retried = traces.filter((trace) => widthOf(trace) >= TRACE_SHARE * smallest && !insideOf(trace, plain));
    return [...plain, ...(await this.retry(pyramid, retried))];
  }

  /** Evaluate each trace in a small tile of its own, which may show its neighbours too. */
  async retry(pyramid, traces) {
    const [centered, others] = [[], []];
    for (const expected of suppress(traces)) {
      const side = (widthOf(expected) * RETRY_SIDE) / RETRY_WIDTH;
      const tile = cut(pyramid, centerOf(expected), side, RETRY_SIDE);
      for (const found of await this.findIn([tile], withGain(this.threshold, -RETRY_GAIN))) {
        const face = { ...found, score: withGain(found.score, RETRY_GAIN) };
        (overlap(expected, face)[0] >= SAME_FACE ? centered : others).push(face);
      }
    }
    return [...centered, ...others.filter((face) => !insideOf(face, centered))];
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

  sort(found, scale) {
    const [plain, traces] = [[], []];
    for (const candidate of found) {
      const width = widthOf(candidate) * scale;
      if (width > LEVEL_OVERLAP) continue; // found one level before
      if (candidate.score >= Math.max(this.threshold, PLAIN_SCORE) && width >= PLAIN_WIDTH) {
        plain.push(candidate);
        continue;
      }
      const lowest = width >= PLAIN_WIDTH ? DOUBT : width >= WIDE_TRACE_WIDTH ? WIDE_TRACE : this.lowest;
      if (candidate.score >= lowest) traces.push(candidate);
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
  const isOther = (trace) => widthOf(trace) < closest / 1.5 && trace.score >= CLEAR_TRACE && !insideOf(trace, certain);
  return suppress(traces.filter(isOther)).length;
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

/** Add to the log-odds of a score above 0. */
function withGain(score, gain) {
  return 1 / (1 + (1 / score - 1) * Math.exp(-gain));
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
