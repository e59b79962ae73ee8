// Images scaled down exactly as Pillow does it (src/libImaging/Reduce.c and Resample.c, 8 bits a channel): integer factors
// by averaging, the rest by a triangle filter with integer weights. The detector's results depend on this.
//
// An image is { width, height, data }, data RGB as a Uint8Array of height * width * 3.

const WEIGHT_BITS = 22; // of a weight: with 8 bits of a pixel and 2 spare bits, 32

/** Python's round(): halves go to the even neighbour. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}

/** An empty (black) image. */
export function blank(width, height) {
  return { width, height, data: new Uint8Array(width * height * 3) };
}

/** Average blocks of acrossFactor x downFactor pixels of the area [x1, y1, x2, y2]; the last ones may be smaller. */
export function reduce(image, acrossFactor, downFactor, area = [0, 0, image.width, image.height]) {
  const [left, top, right, bottom] = area;
  const small = blank(Math.ceil((right - left) / acrossFactor), Math.ceil((bottom - top) / downFactor));
  const { data, width } = image;
  let place = 0;
  for (let y = top; y < bottom; y += downFactor) {
    const low = Math.min(y + downFactor, bottom);
    for (let x = left; x < right; x += acrossFactor) {
      const end = Math.min(x + acrossFactor, right);
      const count = (low - y) * (end - x);
      const half = count >> 1;
      let red = half, green = half, blue = half;
      for (let row = y; row < low; row++) {
        let at = (row * width + x) * 3;
        for (let column = x; column < end; column++, at += 3) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
      }
      // Division by a product in fixed point, as there: (sum * floor(2^24 / count)) >> 24, in 32 bits.
      const factor = Math.floor(2 ** 24 / count);
      small.data[place++] = Math.floor((red * factor) / 2 ** 24);
      small.data[place++] = Math.floor((green * factor) / 2 ** 24);
      small.data[place++] = Math.floor((blue * factor) / 2 ** 24);
    }
  }
  return small;
}

/** The area [x1, y1, x2, y2] (fractions allowed) of an image at width x height: Image.resize(..., BILINEAR, box, gap).
 *
 * Where a side shrinks by `gap` times a whole factor or more, blocks are averaged first. */
export function resize(image, width, height, area, gap) {
  let source = image;
  let box = area;
  const acrossFactor = Math.trunc((box[2] - box[0]) / width / gap) || 1;
  const downFactor = Math.trunc((box[3] - box[1]) / height / gap) || 1;
  if (acrossFactor > 1 || downFactor > 1) {
    const safe = safeArea(image, width, height, box);
    source = reduce(image, acrossFactor, downFactor, safe);
    box = [
      (box[0] - safe[0]) / acrossFactor, (box[1] - safe[1]) / downFactor,
      (box[2] - safe[0]) / acrossFactor, (box[3] - safe[1]) / downFactor,
    ];
  }
  return resample(source, width, height, box.map(Math.fround)); // Pillow stores the box as 32-bit floats
}

function safeArea(image, width, height, [left, top, right, bottom]) {
  const across = (0.5 * (right - left)) / width;
  const down = (0.5 * (bottom - top)) / height;
  return [
    Math.max(0, Math.trunc(left - across)), Math.max(0, Math.trunc(top - down)),
    Math.min(image.width, Math.ceil(right + across)), Math.min(image.height, Math.ceil(bottom + down)),
  ];
}

function resample(image, width, height, [left, top, right, bottom]) {
  const across = weights(image.width, left, right, width);
  const down = weights(image.height, top, bottom, height);
  const changesWidth = width !== image.width || left !== 0 || right !== width;
  const changesHeight = height !== image.height || top !== 0 || bottom !== height;
  if (!changesWidth && !changesHeight) return { ...image, data: image.data.slice() };
  if (!changesWidth) return passDown(image, height, down);
  if (!changesHeight) return passAcross(image, width, across);
  // Pillow 13 resizes the height first if it shrinks by much more. The order matters: values are rounded in between.
  const isTall = height < image.height && image.height - height > 2 * (image.width - width);
  return isTall
    ? passAcross(passDown(image, height, down, across), width, shifted(across))
    : passDown(passAcross(image, width, across, down), height, shifted(down));
}

/** The same weights, for an image cut to start at the first pixel they need. */
function shifted(weighed) {
  return { ...weighed, starts: weighed.starts.map((start) => start - weighed.starts[0]) };
}

/** First and last (exclusive) pixel that the weights of a side need. */
function needed({ starts, counts }) {
  const last = starts.length - 1;
  return [starts[0], starts[last] + counts[last]];
}

/** For each output pixel: its first input pixel, their number, and their weights in 1 / 2^22. */
function weights(length, from, to, size) {
  const scale = Math.fround(to - from) / size;
  const spread = Math.max(scale, 1);
  const most = Math.ceil(spread) * 2 + 1;
  const starts = new Int32Array(size);
  const counts = new Int32Array(size);
  const values = new Int32Array(size * most);
  const exact = new Float64Array(most);
  for (let place = 0; place < size; place++) {
    const center = from + (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - spread + 0.5));
    const count = Math.min(length, Math.trunc(center + spread + 0.5)) - start;
    let total = 0;
    for (let i = 0; i < count; i++) {
      exact[i] = Math.max(0, 1 - Math.abs((i + start - center + 0.5) * (1 / spread)));
      total += exact[i];
    }
    for (let i = 0; i < count; i++) {
      const share = total === 0 ? exact[i] : exact[i] / total;
      values[place * most + i] = Math.trunc(0.5 + share * 2 ** WEIGHT_BITS);
    }
    starts[place] = start;
    counts[place] = count;
  }
  return { starts, counts, values, most };
}

/** Each row to `width`; only the rows that the weights of the other side will need. */
function passAcross(image, width, { starts, counts, values, most }, rows = null) {
  const [firstRow, endRow] = rows === null ? [0, image.height] : needed(rows);
  const result = blank(width, endRow - firstRow);
  const { data } = image;
  const half = 1 << (WEIGHT_BITS - 1);
  let place = 0;
  for (let row = firstRow; row < endRow; row++) {
    const line = row * image.width * 3;
    for (let x = 0; x < width; x++) {
      let red = half, green = half, blue = half;
      let at = line + starts[x] * 3;
      const end = x * most + counts[x];
      for (let k = x * most; k < end; k++, at += 3) {
        const weight = values[k];
        red += data[at] * weight;
        green += data[at + 1] * weight;
        blue += data[at + 2] * weight;
      }
      result.data[place++] = clip(red >> WEIGHT_BITS);
      result.data[place++] = clip(green >> WEIGHT_BITS);
      result.data[place++] = clip(blue >> WEIGHT_BITS);
    }
  }
  return result;
}

/** Each column to `height`; only the columns that the weights of the other side will need. */
function passDown(image, height, { starts, counts, values, most }, columns = null) {
  const [firstColumn, endColumn] = columns === null ? [0, image.width] : needed(columns);
  const result = blank(endColumn - firstColumn, height);
  const { data } = image;
  const line = (endColumn - firstColumn) * 3;
  const half = 1 << (WEIGHT_BITS - 1);
  const sums = new Int32Array(line);
  for (let y = 0; y < height; y++) {
    sums.fill(half);
    for (let k = 0; k < counts[y]; k++) {
      const weight = values[y * most + k];
      const row = ((starts[y] + k) * image.width + firstColumn) * 3;
      for (let x = 0; x < line; x++) sums[x] += data[row + x] * weight;
    }
    for (let x = 0; x < line; x++) result.data[y * line + x] = clip(sums[x] >> WEIGHT_BITS);
  }
  return result;
}

function clip(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
