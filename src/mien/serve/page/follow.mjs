// Faces followed through the frames of a camera: ids that stay, readings smoothed in time (mien/stream, made smaller).
//
// The whole frame is searched once a second (more often while a face is missed or nobody is there); between, each face is
// looked for in one small tile around its last place: a search takes ten times as long as a tile.

import { centerOf, overlap, widthOf } from "./suppress.mjs";

const SEARCH_EVERY = 1.0; // seconds between two searches of the whole frame
const SEARCH_MISSED_EVERY = 0.3; // seconds, while a face is missed or there is none
const LEAST_SHARE = 0.05; // of the frame's long side: who sits before a camera is wider
const FORGET = 1.0; // seconds after which a face that was not seen, in two frames at least, is given up
const BOX_OVER = 0.06; // seconds; time constant of the box that is shown
const REACH = 1.0; // widths: so far may a face lie from its last place
const LARGEST_GROWTH = 1.8; // ratio of two widths above which they are not the same face
const DOUBLE = 0.4; // overlap from which two places that were found around two faces are one

/** How much a value that comes `elapsed` seconds after the last counts, 0..1: the same at any frame rate. */
export function shareOfNew(elapsed, timeConstant) {
  return timeConstant <= 0 ? 1 : -Math.expm1(-Math.max(elapsed, 0) / timeConstant);
}

/** A mean that follows its values with a time constant in seconds; the first value is taken as it is. */
export class Smoother {
  constructor() {
    this.value = null;
    this.seconds = 0;
  }

  step(values, seconds, timeConstant) {
    const share = this.value === null ? 1 : shareOfNew(seconds - this.seconds, timeConstant);
    const before = this.value ?? values;
    this.value = Array.from(values, (value, index) => before[index] + share * (value - before[index]));
    this.seconds = seconds;
    return this.value;
  }
}

/** Follows the faces of one camera. */
export class Tracker {
  constructor(reader) {
    this.reader = reader;
    this.people = [];
    this.lastId = 0;
    this.searchedAt = -Infinity;
  }

  /** The faces of the next frame, by id: each with the raw reading and `smooth`, its probabilities smoothed over
   * `smooth` seconds. `seconds` is the frame's time, never falling. */
  async step(picture, seconds, { smooth = 0.5 } = {}) {
    const start = performance.now();
    const isSearch = this.wantsSearch(seconds);
    const found = isSearch ? await this.search(picture) : await this.lookNear(picture);
    if (isSearch) this.searchedAt = seconds;
    const detect = performance.now() - start;
    this.match(found, seconds, isSearch);
    const seen = this.people.filter((person) => person.seenAt === seconds);
    const { faces, milliseconds } = await this.reader.readFaces(picture, seen.map(({ place }) => place));
    const people = seen.map((person, index) => answer(person, faces[index], seconds, smooth));
    return { faces: people, searched: isSearch, milliseconds: { detect, ...milliseconds } };
  }

  wantsSearch(seconds) {
    const someoneLost = this.people.some(({ missed }) => missed > 0);
    const pause = this.people.length === 0 || someoneLost ? SEARCH_MISSED_EVERY : SEARCH_EVERY;
    return seconds - this.searchedAt >= pause;
  }

  search(picture) {
    return this.reader.detector.find(picture, { atLeast: LEAST_SHARE * Math.max(picture.width, picture.height) });
  }

  async lookNear(picture) {
    const found = [];
    for (const { place } of this.people) {
      const near = await this.reader.detector.follow(picture, place);
      if (near !== null && !found.some((other) => overlap(near, other)[0] >= DOUBLE)) found.push(near);
    }
    return found;
  }

  match(found, seconds, isSearch) {
    this.people = this.people.filter(({ seenAt, missed }) => missed < 2 || seconds - seenAt <= FORGET);
    const pairs = this.people
      .flatMap((person) => found.map((place, index) => ({ person, index, cost: costOf(person.place, place) })))
      .filter(({ cost }) => cost !== null)
      .sort((one, other) => one.cost - other.cost);
    const taken = new Set();
    const matched = new Set();
    for (const { person, index } of pairs) {
      if (taken.has(index) || matched.has(person)) continue;
      Object.assign(person, { place: found[index], seenAt: seconds, missed: 0 });
      taken.add(index);
      matched.add(person);
    }
    for (const person of this.people) if (!matched.has(person)) person.missed += 1;
    if (!isSearch) return;
    found.forEach((place, index) => {
      if (taken.has(index)) return;
      const smoothers = { probs: new Smoother(), box: new Smoother() };
      this.people.push({ id: ++this.lastId, place, seenAt: seconds, missed: 0, ...smoothers });
    });
  }
}

function answer(person, face, seconds, timeConstant) {
  return {
    ...face,
    id: person.id,
    smooth: person.probs.step(face.probs, seconds, timeConstant),
    box: person.box.step(face.box, seconds, BOX_OVER),
    raw: { box: face.box, probs: face.probs },
  };
}

/** How badly a place fits the last one, from 0; null where it cannot be the same face. */
function costOf(last, place) {
  const growth = widthOf(place) / widthOf(last);
  if (!(growth <= LARGEST_GROWTH && growth >= 1 / LARGEST_GROWTH)) return null;
  const [[x, y], [otherX, otherY]] = [centerOf(last), centerOf(place)];
  const distance = (2 * Math.hypot(x - otherX, y - otherY)) / (widthOf(last) + widthOf(place));
  const shared = overlap(last, place)[0];
  return shared < 0.1 && distance > REACH ? null : 1 - shared + distance;
}
