// Images at several scales, cut into tiles (mien/detect/tiles.py).
//
// A tile is { image, x, y, scale }: its corner is at (x, y) of the whole image, possibly outside it, and `scale` pixels of
// the tile are one pixel of the whole image.

import { blank, reduce, resize, roundHalfEven } from "./resize.mjs";

const PLACES = 8; // of a tile per pixel: a second search then sees the same pixels as that of Python
const REDUCING_GAP = 1.01; // averaging reduces an image to this multiple of the size; interpolation does the rest

/** An image at any scale. Coarse scales share one reduced copy, so that a large image is processed once. */
export class Pyramid {
  /** `coarse` is the finest scale made from the reduced copy. */
  constructor(image, coarse) {
    this.width = image.width;
    this.height = image.height;
    this.image = image;
    this.factor = Math.max(1, Math.trunc(1 / (coarse * REDUCING_GAP)));
    this.reduced = this.factor > 1 ? reduce(image, this.factor, this.factor) : image;
  }

  /** The whole image at `scale`, no side below one pixel. */
  at(scale) {
    const [width, height] = [this.width, this.height].map((side) => Math.max(1, roundHalfEven(side * scale)));
    return this.resize([0, 0, this.width, this.height], width, height, scale);
  }

  /** An area [x1, y1, x2, y2] at `scale`, antialiased. */
  resize(area, width, height, scale) {
    const isCoarse = scale * this.factor <= 1;
    const factor = isCoarse ? this.factor : 1;
    return resize(isCoarse ? this.reduced : this.image, width, height, area.map((v) => v / factor), REDUCING_GAP);
  }
}

/** The whole image in the middle of a black square, its long side filling `share` of it. */
export function letterbox(pyramid, side, share) {
  const scale = (side * share) / Math.max(pyramid.width, pyramid.height);
  const small = pyramid.at(scale);
  const left = Math.floor((side - small.width) / 2);
  const top = Math.floor((side - small.height) / 2);
  const image = blank(side, side);
  paste(image, small, left, top);
  return { image, x: -left / scale, y: -top / scale, scale };
}

/** The image at `scale` in tiles of at most `side` pixels that overlap by at least `overlap`, each padded with black
 * to multiples of `multiple`. */
export function* split(pyramid, scale, { side, overlap, multiple }) {
  const level = pyramid.at(scale);
  const [rows, high] = cover(level.height, side, overlap, multiple);
  const [columns, wide] = cover(level.width, side, overlap, multiple);
  for (const y of rows) {
    for (const x of columns) {
      const width = Math.min(wide, level.width - x);
      const height = Math.min(high, level.height - y);
      const image = blank(upTo(width, multiple), upTo(height, multiple));
      paste(image, crop(level, x, y, width, height), 0, 0);
      yield { image, x: x / scale, y: y / scale, scale };
    }
  }
}

/** The square of `width` image pixels around (centerX, centerY) as a tile of `side`; black beyond the image. */
export function cut(pyramid, [centerX, centerY], length, side) {
  const width = Math.max(toPlace(length), 1 / PLACES);
  const scale = side / width;
  const x = toPlace(centerX - width / 2);
  const y = toPlace(centerY - width / 2);
  const left = Math.max(0, Math.ceil(-x * scale));
  const top = Math.max(0, Math.ceil(-y * scale));
  const right = Math.min(side, Math.floor((pyramid.width - x) * scale));
  const bottom = Math.min(side, Math.floor((pyramid.height - y) * scale));
  const image = blank(side, side);
  if (right > left && bottom > top) {
    const area = [
      Math.max(x + left / scale, 0), Math.max(y + top / scale, 0),
      Math.min(x + right / scale, pyramid.width), Math.min(y + bottom / scale, pyramid.height),
    ];
    paste(image, pyramid.resize(area, right - left, bottom - top, scale), left, top);
  }
  return { image, x, y, scale };
}

function toPlace(value) {
  return roundHalfEven(value * PLACES) / PLACES;
}

/** The starts of the tiles along a side and their length: as few tiles as possible, each as short as possible. */
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

function crop(image, left, top, width, height) {
  const part = blank(width, height);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * 3;
    part.data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return part;
}

function paste(canvas, image, left, top) {
  const line = image.width * 3;
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(y * line, (y + 1) * line);
    canvas.data.set(row, ((top + y) * canvas.width + left) * 3);
  }
}
