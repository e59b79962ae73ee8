// Maps, boxes and labels drawn over images, as in mien/overlay.py.

import { COLORS, labelOf, percent, UNSURE_COLOR } from "./emotions.mjs";

const GRID = 96; // pixels: side of an enlarged map
const FADE = 0.08; // share of the side over which a map fades out at its edge
const OPACITY = 0.72; // of the peak, so that the face stays visible
const INK = "#0a0a0c";

/** 256 colours from indigo through rose and orange to pale yellow, linear in Oklab lightness (Ottosson, 2020). */
export function heatRamp() {
  const colors = [];
  for (let step = 0; step < 256; step++) {
    const t = step / 255;
    const chroma = 0.06 + 0.135 * Math.sin(Math.PI * t ** 0.9);
    const hue = ((285 + 180 * t) * Math.PI) / 180;
    const [lightness, a, b] = [0.3 + 0.65 * t, chroma * Math.cos(hue), chroma * Math.sin(hue)];
    const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
    colors.push([
      encode(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
      encode(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
      encode(-0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short),
    ]);
  }
  return colors;
}

function encode(linear) {
  const value = Math.min(Math.max(linear, 0), 1);
  return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
}

const RAMP = heatRamp();

/** The map of an emotion of a face as a translucent canvas of GRID x GRID, faded at its edges. All maps of a face have one
 * scale, so that the map of an improbable emotion is pale, or, with `ownScale`, each its own. */
export function mapCanvas(face, emotion, { ownScale = false } = {}) {
  const { data, width, height, peaks } = face.maps;
  const index = Object.keys(face.probs).indexOf(emotion);
  const start = index * width * height;
  const share = ownScale ? 1 : peaks[index] / Math.max(...peaks, Number.MIN_VALUE);
  const values = enlarge(data.subarray(start, start + width * height), width, height, GRID).map((value) => value * share);
  const canvas = new OffscreenCanvas(GRID, GRID);
  const context = canvas.getContext("2d");
  const image = context.createImageData(GRID, GRID);
  for (let place = 0; place < GRID * GRID; place++) {
    const value = values[place] * Math.min(fade(place % GRID), fade(Math.trunc(place / GRID)));
    image.data.set(RAMP[Math.round(255 * value)], place * 4);
    image.data[place * 4 + 3] = Math.round(255 * OPACITY * value * (2 - value));
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

function fade(place) {
  const inside = (place + 0.5) / GRID;
  const t = Math.min(Math.max(Math.min(inside, 1 - inside) / FADE, 0), 1);
  return t * t * (3 - 2 * t);
}

/** Bytes [h, w] enlarged to size x size, 0..1, bicubic with Pillow's weights. */
function enlarge(bytes, width, height, size) {
  const [across, down] = [cubicWeights(width, size), cubicWeights(height, size)];
  const values = new Float32Array(size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      let total = 0;
      for (const [row, high] of down[y]) {
        for (const [column, wide] of across[x]) total += bytes[row * width + column] * high * wide;
      }
      values[y * size + x] = Math.min(Math.max(total / 255, 0), 1);
    }
  }
  return values;
}

function cubicWeights(length, size) {
  return Array.from({ length: size }, (_, place) => {
    const center = ((place + 0.5) * length) / size;
    const pairs = [];
    for (let k = Math.max(0, Math.trunc(center - 1.5)); k < Math.min(length, Math.trunc(center + 2.5)); k++) {
      const x = Math.abs(k + 0.5 - center);
      const near = (1.5 * x - 2.5) * x * x + 1;
      const far = ((-0.5 * x + 2.5) * x - 4) * x + 2;
      pairs.push([k, x < 1 ? near : x < 2 ? far : 0]);
    }
    const total = pairs.reduce((sum, [, weight]) => sum + weight, 0);
    return pairs.map(([k, weight]) => [k, weight / total]);
  });
}

/** Draw the map of an emotion over its face, on a context in pixels of the image. */
export function drawMap(context, face, emotion, settings) {
  const [a, b, c, d, e, f] = face.toImage;
  context.save();
  context.transform(a, d, b, e, c, f); // crop pixels to the image
  context.imageSmoothingQuality = "high";
  context.drawImage(mapCanvas(face, emotion, settings), 0, 0, face.cropSize, face.cropSize);
  context.restore();
}

/** The crop of a face: the network's input, or, if only its position is known, that part of the image in grey. */
export function cropCanvas(face, bitmap) {
  const side = face.crop ? face.cropSize : 96;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  if (face.crop) {
    const image = context.createImageData(side, side);
    face.crop.forEach((value, place) => image.data.set([value, value, value, 255], place * 4));
    context.putImageData(image, 0, 0);
    return canvas;
  }
  const [a, b, c, d, e, f] = face.toImage;
  context.scale(side / face.cropSize, side / face.cropSize);
  const matrix = new DOMMatrix([a, d, b, e, c, f]).inverse();
  context.transform(matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f);
  context.filter = "grayscale(1)";
  context.drawImage(bitmap, 0, 0);
  return canvas;
}

/** Boxes and labels for all faces, on a context in pixels of the image. Largest faces are drawn last. */
export function drawFaces(context, faces, { threshold, width, height, maps = false, ownScale = false, mirrored = false }) {
  const placed = [];
  for (const face of [...faces].reverse()) {
    if (maps) drawMap(context, face, labelOf(face, threshold).top, { ownScale });
  }
  if (mirrored) context.setTransform(1, 0, 0, 1, 0, 0); // text stays readable: only its position is mirrored
  for (const face of [...faces].reverse()) drawBox(context, boxOf(face, width, mirrored), face, threshold, width, height);
  for (const face of faces) drawLabel(context, boxOf(face, width, mirrored), { face, threshold, width, height, placed });
}

function boxOf({ box: [x1, y1, x2, y2] }, width, mirrored) {
  return mirrored ? [width - x2, y1, width - x1, y2] : [x1, y1, x2, y2];
}

function drawBox(context, [x1, y1, x2, y2], face, threshold, width, height) {
  const { emotion } = labelOf(face, threshold);
  const line = Math.max(1, Math.round(Math.min(Math.min(x2 - x1, y2 - y1) / 40, Math.max(width, height) / 300)));
  context.save();
  context.lineWidth = line + 2;
  context.strokeStyle = "#0008";
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.lineWidth = line;
  context.strokeStyle = emotion === null ? UNSURE_COLOR : COLORS[emotion];
  if (emotion === null) context.setLineDash([6 * line, 3 * line]);
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  context.restore();
}

/** A label above the box, below it or inside its upper edge, where no other label is; otherwise none. */
function drawLabel(context, [x1, y1, x2, y2], { face, threshold, width, height, placed }) {
  const { emotion, confidence } = labelOf(face, threshold);
  const size = Math.max(11, Math.round(Math.min(0.18 * Math.min(x2 - x1, y2 - y1), Math.max(width, height) / 32)));
  context.font = `600 ${size}px system-ui, sans-serif`;
  const texts = emotion === null ? ["unsure"] : [`${emotion} ${percent(confidence)}`, emotion];
  for (const text of texts) {
    const [wide, high] = [Math.round(context.measureText(text).width + 0.8 * size), Math.round(1.5 * size)];
    if (wide > 1.6 * (x2 - x1) && text !== texts.at(-1)) continue;
    const left = Math.min(Math.max(0, Math.round(x1)), width - wide);
    const tops = [Math.round(y1) - high, Math.round(y2) + 1, Math.max(0, Math.round(y1))];
    const top = tops.find((y) => y >= 0 && y + high <= height && !placed.some((other) => meets(other, left, y, wide, high)));
    if (top === undefined) continue;
    placed.push([left, top, wide, high]);
    context.fillStyle = emotion === null ? UNSURE_COLOR : COLORS[emotion];
    context.fillRect(left, top, wide, high);
    context.fillStyle = INK;
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillText(text, left + wide / 2, top + high / 2 + size * 0.06);
    return;
  }
}

function meets([left, top, wide, high], x, y, width, height) {
  return x < left + wide && left < x + width && y < top + high && top < y + height;
}
