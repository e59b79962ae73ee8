// File -> image: RGB, upright, transparency over white (mien/decode.py), with the browser's decoders. The header is
// checked first, so that files that are no image, cut off or too large get a clear message.

export const MAX_BYTES = 64 * 2 ** 20; // bytes of one file
export const MAX_PIXELS = 50_000_000; // width x height: a browser holds several copies of each image
const MAX_SIDE = 65_535; // pixels: a longer canvas stays black
const ORIENTATION = 0x0112; // the tag of EXIF
/** How images are decoded: upright, without colour conversion, so that Python reads the same values. */
export const DECODING = { imageOrientation: "from-image", colorSpaceConversion: "none" };

const PNG_END = new Uint8Array([0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82]); // the chunk IEND

/** Why an image cannot be read and what to do, in one line. */
export class ImageError extends Error {}

/** Decode a File or Blob: { image, bitmap, note }, the bitmap for showing, the note a text or null. An ImageBitmap is decoded
 * already. Throws ImageError. */
export async function decode(source) {
  const { bitmap, frames } = source instanceof ImageBitmap ? { bitmap: source, frames: 1 } : await decodeFile(source);
  checkSize(bitmap);
  return { image: toPixels(bitmap), bitmap, note: frames > 1 ? `animated, ${frames} frames: the first was read` : null };
}

async function decodeFile(blob) {
  if (blob.size === 0) throw new ImageError("the file is empty, or a folder; choose another one");
  if (blob.size > MAX_BYTES) throw new ImageError(`the file is larger than ${MAX_BYTES / 2 ** 20} MB; make it smaller`);
  const bytes = new Uint8Array(await blob.arrayBuffer().catch(() => {
    throw new ImageError("it is a folder, or a file that was moved or changed since it was chosen; choose the file again");
  }));
  const header = readHeader(bytes);
  if (header.format === null) throw new ImageError("this is not an image that this page reads; choose a JPEG, PNG, WebP, AVIF or GIF file");
  checkSize(header);
  const isCut = new ImageError("the image is cut off; get the file again");
  if (!header.isWhole && header.format !== "PNG") throw isCut; // a PNG may lack its end alone
  const frames = countFrames(bytes, header.format);
  const { orientation, parts } = prepare(bytes, header);
  try {
    const bitmap = await createImageBitmap(parts === null ? blob : new Blob(parts, { type: blob.type }), DECODING);
    return { bitmap: orientation === 1 ? bitmap : turned(bitmap, orientation), frames };
  } catch {
    if (!header.isWhole) throw isCut;
    const isForeign = header.format === "HEIF";
    throw new ImageError(
      isForeign ? "this browser cannot read HEIC images; save the image as JPEG" : "the image is damaged; get the file again",
    );
  }
}

/** What the browser gets so that it reads what Python reads: the parts of another file, or null for the file itself; and the
 * orientation in which to turn its image. */
function prepare(bytes, { format, isWhole }) {
  if (format === "PNG") return preparePng(bytes, isWhole);
  const orientation = format === "WEBP" ? takeOrientation(bytes) : 1;
  return { orientation, parts: orientation === 1 ? null : [bytes] };
}

/** Chromium reads no PNG without IEND, and ignores EXIF after the pixels, where other browsers may apply it. Of an animation
 * whose first frame is not in IDAT, Python reads the still image there. */
function preparePng(bytes, isWhole) {
  let [end, pixels, exif, animation, frame] = [8];
  for (const chunk of pngChunks(bytes)) {
    if (chunk.kind === "IDAT") pixels = chunk;
    else if (chunk.kind === "eXIf" && pixels) exif = chunk;
    else if (chunk.kind === "acTL" && !pixels) animation = chunk;
    else if (chunk.kind === "fcTL" && !pixels) frame = chunk;
    end = chunk.end;
  }
  const [cuts, parts] = [[!frame && animation, exif].filter(Boolean), []];
  if (isWhole && cuts.length === 0) return { orientation: 1, parts: null };
  let from = 0;
  for (const cut of cuts) {
    parts.push(bytes.subarray(from, cut.start));
    from = cut.end;
  }
  parts.push(bytes.subarray(from, isWhole ? bytes.length : end), isWhole ? "" : PNG_END);
  return { orientation: exif ? orientationOf(bytes, exif.start + 8).value : 1, parts };
}

/** The whole chunks of a PNG file, up to IEND. */
function* pngChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let start = 8; start + 12 <= bytes.length; ) {
    const [kind, end] = [text(bytes, start + 4, start + 8), start + 12 + view.getUint32(start)];
    if (end > bytes.length || !/^[A-Za-z]{4}$/.test(kind)) return;
    yield { kind, start, end };
    if (kind === "IEND") return;
    start = end;
  }
}

// EXIF orientation -> the linear part of the canvas transform that makes the image upright.
const TURNS = {
  2: [-1, 0, 0, 1], 3: [-1, 0, 0, -1], 4: [1, 0, 0, -1], 5: [0, 1, 1, 0], 6: [0, 1, -1, 0], 7: [0, -1, -1, 0], 8: [0, -1, 1, 0],
};

function turned(bitmap, orientation) {
  const [a, b, c, d] = TURNS[orientation];
  const [width, height] = a === 0 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.setTransform(a, b, c, d, a + c < 0 ? width : 0, b + d < 0 ? height : 0);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.transferToImageBitmap();
}

/** The EXIF orientation (1 to 8) of the bytes of a WebP file, in which it becomes 1: Chromium ignores it, other browsers turn
 * the image. */
export function takeOrientation(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 12;
  while (at + 8 <= bytes.length && text(bytes, at, at + 4) !== "EXIF") at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2);
  const { value, place, isLittle } = orientationOf(bytes, at + (text(bytes, at + 8, at + 14) === "Exif\0\0" ? 14 : 8));
  if (place !== null) view.setUint16(place, 1, isLittle);
  return value;
}

/** The orientation in the EXIF data that begins `at` a place: its value, 1 if there is none, and its place, or null. */
function orientationOf(bytes, at) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const order = text(bytes, at, at + 2);
    const isLittle = order === "II";
    if (!isLittle && order !== "MM") return { value: 1, place: null };
    at += view.getUint32(at + 4, isLittle);
    for (let left = view.getUint16(at, isLittle); left > 0; left--, at += 12) {
      if (view.getUint16(at + 2, isLittle) !== ORIENTATION) continue;
      const value = view.getUint16(at + 10, isLittle);
      return { value: TURNS[value] ? value : 1, place: at + 10, isLittle };
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // no EXIF, or damaged EXIF, which does not make the pixels unreadable
  }
  return { value: 1, place: null };
}

/** The pixels of a bitmap as { width, height, data RGB }. `canvas` may be reused between frames. */
export function toPixels(bitmap, canvas = new OffscreenCanvas(bitmap.width, bitmap.height)) {
  const { width, height } = bitmap;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

/** RGBA -> RGB. */
export function withoutAlpha({ width, height, data }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { width, height, data: rgb };
}

function checkSize({ width, height }) {
  const most = width * height > MAX_PIXELS ? `${MAX_PIXELS / 1e6} million` : `${MAX_SIDE.toLocaleString("en")} a side`;
  if (width * height <= MAX_PIXELS && Math.max(width, height) <= MAX_SIDE) return;
  throw new ImageError(`${width} × ${height} pixels are more than the limit of ${most}; scale the image down`);
}

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

/** { format, width, height, isWhole } of the bytes of a file; format is null if it is no image. Width and height are
 * 0, and isWhole is true, if the header does not contain them. */
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const known = { width: 0, height: 0, isWhole: true };
  if (text(bytes, 1, 4) === "PNG" && bytes.length > 24) return png(bytes, view);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpeg(bytes, view);
  if (text(bytes, 0, 4) === "GIF8" && bytes.length > 10) {
    return { ...known, format: "GIF", width: view.getUint16(6, true), height: view.getUint16(8, true) };
  }
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 12) === "WEBP") {
    return { ...known, format: "WEBP", isWhole: bytes.length >= view.getUint32(4, true) + 8 };
  }
  if (text(bytes, 0, 2) === "BM" && bytes.length > 26) {
    const isOld = view.getUint32(14, true) === 12; // of OS/2
    const sides = isOld ? [view.getUint16(18, true), view.getUint16(20, true)] : [view.getInt32(18, true), view.getInt32(22, true)];
    const [width, height] = sides.map(Math.abs);
    return { ...known, format: "BMP", width, height };
  }
  if (text(bytes, 4, 8) === "ftyp") {
    const brand = text(bytes, 8, 12);
    if (brand === "avif" || brand === "avis") return { ...known, format: "AVIF" };
    if (["heic", "heix", "mif1", "msf1", "hevc"].includes(brand)) return { ...known, format: "HEIF" };
  }
  return { ...known, format: null };
}

function png(bytes, view) {
  let isWhole = false;
  for (const { kind } of pngChunks(bytes)) isWhole = kind === "IEND";
  return { format: "PNG", width: view.getUint32(16), height: view.getUint32(20), isWhole };
}

function jpeg(bytes, view) {
  let [at, width, height] = [2, 0, 0];
  while (at + 9 < bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    if (marker === 0xff) {
      at += 1; // filling
      continue;
    }
    if (marker === 0xda) break; // the pixels begin
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) [height, width] = [view.getUint16(at + 5), view.getUint16(at + 7)];
    at += 2 + view.getUint16(at + 2);
  }
  let isWhole = false;
  for (let k = bytes.length - 2; k >= at && !isWhole; k--) isWhole = bytes[k] === 0xff && bytes[k + 1] === 0xd9;
  return { format: "JPEG", width, height, isWhole };
}

/** The number of frames of the bytes of a file, as Python counts them. */
export function countFrames(bytes, format) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = { GIF: gifFrames, PNG: pngFrames, WEBP: webpFrames, AVIF: avifFrames }[format];
  try {
    return count?.(bytes, view) ?? 1;
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // cut off
    return 1;
  }
}

function gifFrames(bytes) {
  const table = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let [at, frames] = [13 + table(bytes[10]), 0];
  while (at < bytes.length && bytes[at] !== 0x3b) {
    const [isFrame, isExtension] = [bytes[at] === 0x2c, bytes[at] === 0x21];
    frames += Number(isFrame);
    at += isFrame ? 11 + table(bytes[at + 9]) : isExtension ? 2 : 1; // decoders skip bytes between blocks
    if (!isFrame && !isExtension) continue;
    while (bytes[at] > 0) at += 1 + bytes[at];
    at += 1;
  }
  return frames;
}

function pngFrames(bytes, view) {
  for (const { kind, start } of pngChunks(bytes)) if (kind === "acTL") return view.getUint32(start + 8);
  return 1;
}

function webpFrames(bytes, view) {
  let frames = 0;
  for (let at = 12; at + 8 <= bytes.length; at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2)) {
    frames += Number(text(bytes, at, at + 4) === "ANMF");
  }
  return frames;
}

/** The samples of the first track. An AVIF file of another brand may have tracks, too; its still image is read. */
function avifFrames(bytes, view) {
  if (text(bytes, 8, 12) !== "avis") return 1;
  let at = 0;
  for (const name of ["moov", "trak", "mdia", "minf", "stbl", "stsz"]) {
    for (; text(bytes, at + 4, at + 8) !== name; at += view.getUint32(at)) if (view.getUint32(at) < 8) return 1;
    at += 8;
  }
  return view.getUint32(at + 8);
}
