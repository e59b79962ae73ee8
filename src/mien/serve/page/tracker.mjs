// Tracks faces through the frames of a camera: stable ids, readings smoothed over time (a small version of mien/video).
//
// The whole frame is searched once a second, or more often while a track is missed or there is none. In between, each face
// is searched in one small tile around its last position: a full search takes ten times as long as a tile.

import { centerOf, overlap, widthOf } from "./suppress.mjs";

const SEARCH_EVERY = 1.0; // seconds between two searches of the whole frame
const SEARCH_AGAIN_EVERY = 0.3; // seconds, while a track is missed or there is none
const MIN_FACE_SHARE = 0.05; // of the frame's long side: faces in front of a camera are wider
const DROP_AFTER = 1.0; // seconds without a match, and at least two missed frames, after which a track ends
const BOX_TIME_CONSTANT = 0.06; // seconds; time constant of the displayed box
const MAX_DISTANCE = 1.0; // widths: greatest distance from the last position
const MAX_GROWTH = 1.8; // ratio of two widths above which they are not the same face
const DUPLICATE_OVERLAP = 0.4; // intersection over union from which two nearby finds are the same face

/** The weight (0..1) of a value `elapsed` seconds after the last one: the same smoothing at any frame rate. */
export function smoothingWeight(elapsed, timeConstant) {
  return timeConstant <= 0 ? 1 : -Math.expm1(-Math.max(elapsed, 0) / timeConstant);
}

const LEAST_QUALITY = 0.02; // a face that is never seen well has a smoothed reading, too

/** Exponential smoothing with a time constant in seconds; the first value is taken unchanged. Each value counts by its
 * quality. */
export class Smoother {
  constructor() {
    this.value = null;
    this.seconds = this.quality = 0;
  }

  step(values, seconds, timeConstant, quality = 1) {
    const weight = this.value === null ? 1 : smoothingWeight(seconds - this.seconds, timeConstant);
    const own = Math.max(quality, LEAST_QUALITY);
    const before = this.value ?? values;
    this.quality += weight * (own - this.quality);
    const share = weight * (own / this.quality);
    this.value = Array.from(values, (value, index) => before[index] + share * (value - before[index]));
    this.seconds = seconds;
    return this.value;
  }
}

/** Tracks the faces of one camera. */
export class Tracker {
  constructor(reader) {
    this.reader = reader;
    this.tracks = [];
    this.lastId = 0;
    this.searchedAt = -Infinity;
  }

  /** The faces of the next frame, by id: each with the raw reading and `smooth`, its probabilities smoothed over
   * `smooth` seconds. `seconds` is the frame's time, never falling. */
  async step(image, seconds, { smooth = 0.5 } = {}) {
    const start = performance.now();
    const isSearch = this.needsSearch(seconds);
    const found = isSearch ? await this.search(image) : await this.searchNearby(image);
    if (isSearch) this.searchedAt = seconds;
    const detect = performance.now() - start;
    this.match(found, seconds, isSearch);
    const seen = this.tracks.filter((track) => track.seenAt === seconds);
    const { faces, milliseconds } = await this.reader.readFaces(image, seen.map(({ place }) => place));
    const results = seen.map((track, index) => toResult(track, faces[index], seconds, smooth));
    return { faces: this.reader.wellSeen(results), searched: isSearch, milliseconds: { detect, ...milliseconds } };
  }

  needsSearch(seconds) {
    const isAnyMissed = this.tracks.some(({ missed }) => missed > 0);
    const pause = this.tracks.length === 0 || isAnyMissed ? SEARCH_AGAIN_EVERY : SEARCH_EVERY;
    return seconds - this.searchedAt >= pause;
  }

  search(image) {
    return this.reader.detector.find(image, { atLeast: MIN_FACE_SHARE * Math.max(image.width, image.height) });
  }

  async searchNearby(image) {
    const found = [];
    for (const { place } of this.tracks) {
      const near = await this.reader.detector.findNear(image, place);
      if (near !== null && !found.some((other) => overlap(near, other)[0] >= DUPLICATE_OVERLAP)) found.push(near);
    }
    return found;
  }

  match(found, seconds, isSearch) {
    this.tracks = this.tracks.filter(({ seenAt, missed }) => missed < 2 || seconds - seenAt <= DROP_AFTER);
    const pairs = this.tracks
      .flatMap((track) => found.map((place, index) => ({ track, index, cost: costOf(track.place, place) })))
      .filter(({ cost }) => cost !== null)
      .sort((one, other) => one.cost - other.cost);
    const taken = new Set();
    const matched = new Set();
    for (const { track, index } of pairs) {
      if (taken.has(index) || matched.has(track)) continue;
      Object.assign(track, { place: found[index], seenAt: seconds, missed: 0 });
      taken.add(index);
      matched.add(track);
    }
    for (const track of this.tracks) if (!matched.has(track)) track.missed += 1;
    if (!isSearch) return;
    found.forEach((place, index) => {
      if (taken.has(index)) return;
      const smoothers = { probs: new Smoother(), box: new Smoother() };
      this.tracks.push({ id: ++this.lastId, place, seenAt: seconds, missed: 0, ...smoothers });
    });
  }
}

function toResult(track, face, seconds, timeConstant) {
  return {
    ...face,
    id: track.id,
    smooth: track.probs.step(face.probs, seconds, timeConstant, face.quality.score),
    box: track.box.step(face.box, seconds, BOX_TIME_CONSTANT),
    raw: { box: face.box, probs: face.probs },
  };
}

/** The cost, from 0, of matching a detection to a track's last one; null if it cannot be the same face. */
function costOf(last, place) {
  const growth = widthOf(place) / widthOf(last);
  if (!(growth <= MAX_GROWTH && growth >= 1 / MAX_GROWTH)) return null;
  const [[x, y], [otherX, otherY]] = [centerOf(last), centerOf(place)];
  const distance = (2 * Math.hypot(x - otherX, y - otherY)) / (widthOf(last) + widthOf(place));
  const shared = overlap(last, place)[0];
  return shared < 0.1 && distance > MAX_DISTANCE ? null : 1 - shared + distance;
}
