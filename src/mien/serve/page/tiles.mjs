// The geometry of the search: pictures at several scales, cut into tiles, and the way back (mien/detect/tiles.py).
//
// A tile is { picture, x, y, scale }: its corner lies at (x, y) of the whole picture (also outside of it), and `scale`
// of its pixels are one of the whole picture.

import { blank, reduce, resize, roundHalfEven } from "./resize.mjs";

const REDUCING_GAP = 1.01; // blocks are averaged down to so much above the size, and only the rest is interpolated

/** A picture at any scale. Coarse versions are made of one reduced copy: a large picture is gone through once. */
export class Pyramid {
  /** `coarse` is the finest scale that the reduced copy is to serve. */
  constructor(picture, coarse) {
    this.width = picture.width;
    this.height = picture.height;
    this.picture = picture;
    this.factor = Math.max(1, Math.trunc(1 / (coarse * REDUCING_GAP)));
    this.reduced = this.factor > 1 ? reduce(picture, this.factor, this.factor) : picture;
  }

  /** The whole picture at `scale`, no side below one pixel. */
  at(scale) {
    const [width, height] = [this.width, this.height].map((side) => Math.max(1, roundHalfEven(side * scale)));
    return this.resize([0, 0, this.width, this.height], width, height, scale);
  }

  /** An area [x1, y1, x2, y2] at `scale`, antialiased. */
  resize(area, width, height, scale) {
    const isCoarse = scale * this.factor <= 1;
    const factor = isCoarse ? this.factor : 1;
    return resize(isCoarse ? this.reduced : this.picture, width, height, area.map((v) => v / factor), REDUCING_GAP);
  }
}

/** The whole picture in the middle of a black square, its long side filling `share` of it. */
export function letterbox(pyramid, side, share) {
  const scale = (side * share) / Math.max(pyramid.width, pyramid.height);
  const small = pyramid.at(scale);
  const left = Math.floor((side - small.width) / 2);
  const top = Math.floor((side - small.height) / 2);
  const picture = blank(side, side);
  paste(picture, small, left, top);
  return { picture, x: -left / scale, y: -top / scale, scale };
}

/** The picture at `scale` in tiles of at most `side` pixels that overlap by at least `overlap`, each filled up with black
 * to whole multiples of `multiple`. */
export function* split(pyramid, scale, { side, overlap, multiple }) {
  const level = pyramid.at(scale);
  const [rows, high] = cover(level.height, side, overlap, multiple);
  const [columns, wide] = cover(level.width, side, overlap, multiple);
  for (const y of rows) {
    for (const x of columns) {
      const width = Math.min(wide, level.width - x);
      const height = Math.min(high, level.height - y);
      const picture = blank(upTo(width, multiple), upTo(height, multiple));
      paste(picture, crop(level, x, y, width, height), 0, 0);
      yield { picture, x: x / scale, y: y / scale, scale };
    }
  }
}

/** The square of `width` picture pixels around (centerX, centerY) as a tile of `side`; black beyond the picture. */
export function cut(pyramid, [centerX, centerY], width, side) {
  const scale = side / width;
  const x = centerX - width / 2;
  const y = centerY - width / 2;
  const left = Math.max(0, Math.ceil(-x * scale));
  const top = Math.max(0, Math.ceil(-y * scale));
  const right = Math.min(side, Math.floor((pyramid.width - x) * scale));
  const bottom = Math.min(side, Math.floor((pyramid.height - y) * scale));
  const picture = blank(side, side);
  if (right > left && bottom > top) {
    const area = [
      Math.max(x + left / scale, 0), Math.max(y + top / scale, 0),
      Math.min(x + right / scale, pyramid.width), Math.min(y + bottom / scale, pyramid.height),
    ];
    paste(picture, pyramid.resize(area, right - left, bottom - top, scale), left, top);
  }
  return { picture, x, y, scale };
}

/** Where tiles start along a side, and how long they are: as few as can be, and then as short as can be. */
export function cover(length, side, overlap, multiple) {
  const count = 1 + Math.max(0, Math.ceil((length - side) / (side - overlap)));
  const short = upTo(Math.ceil((length + (count - 1) * overlap) / count), multiple);
  const room = Math.max(0, length - short);
  const starts = Array.from({ length: count }, (_, i) => roundHalfEven((i * room) / Math.max(1, count - 1)));
  return [starts, short];
}

function upTo(length, multiple) {
  return Math.ceil(length / multiple) * multiple;
}

function crop(picture, left, top, width, height) {
  const part = blank(width, height);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * picture.width + left) * 3;
    part.data.set(picture.data.subarray(from, from + width * 3), y * width * 3);
  }
  return part;
}

function paste(canvas, picture, left, top) {
  const line = picture.width * 3;
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(y * line, (y + 1) * line);
    canvas.data.set(row, ((top + y) * canvas.width + left) * 3);
  }
}
