// File -> image: RGB, upright, transparency over white (mien/decode.py), with the browser's decoders. The header is
// checked first, so that files that are no image, cut off or too large get a clear message.

export const MAX_BYTES = 64 * 2 ** 20; // bytes of one file
export const MAX_PIXELS = 50_000_000; // width x height: a browser holds several copies of each image
const ORIENTATION = 0x0112; // the tag of EXIF
/** How images are decoded: upright, without colour conversion, so that Python reads the same values. */
export const DECODING = { imageOrientation: "from-image", colorSpaceConversion: "none" };

/** Why an image cannot be read and what to do, in one line. */
export class ImageError extends Error {}

/** Decode a File or Blob: { image, bitmap }, the bitmap for showing. An ImageBitmap is decoded already. Throws ImageError. */
export async function decode(source) {
  const bitmap = source instanceof ImageBitmap ? source : await decodeFile(source);
  if (bitmap.width * bitmap.height > MAX_PIXELS) throw tooLarge(bitmap);
  return { image: toPixels(bitmap), bitmap };
}

async function decodeFile(blob) {
  if (blob.size === 0) throw new ImageError("the file is empty, or a folder; choose another one");
  if (blob.size > MAX_BYTES) throw new ImageError(`the file is larger than ${MAX_BYTES / 2 ** 20} MB; make it smaller`);
  const bytes = new Uint8Array(await blob.arrayBuffer().catch(() => {
    throw new ImageError("it is a folder, or a file that was moved or changed since it was chosen; choose the file again");
  }));
  const header = readHeader(bytes);
  if (header.format === null) throw new ImageError("this is not an image that this page reads; choose a JPEG, PNG, WebP, AVIF or GIF file");
  if (header.width * header.height > MAX_PIXELS) throw tooLarge(header);
  if (!header.isWhole) throw new ImageError("the image is cut off; get the file again");
  const orientation = header.format === "WEBP" ? takeOrientation(bytes) : 1;
  try {
    if (orientation === 1) return await createImageBitmap(blob, DECODING);
    return turned(await createImageBitmap(new Blob([bytes], { type: blob.type }), DECODING), orientation);
  } catch {
    const isForeign = header.format === "HEIF";
    throw new ImageError(
      isForeign ? "this browser cannot read HEIC images; save the image as JPEG" : "the image is damaged; get the file again",
    );
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
  try {
    let at = 12;
    while (text(bytes, at, at + 4) !== "EXIF") at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2);
    at += text(bytes, at + 8, at + 14) === "Exif\0\0" ? 14 : 8;
    const order = text(bytes, at, at + 2);
    const isLittle = order === "II";
    if (!isLittle && order !== "MM") return 1;
    at += view.getUint32(at + 4, isLittle);
    for (let left = view.getUint16(at, isLittle); left > 0; left--, at += 12) {
      if (view.getUint16(at + 2, isLittle) !== ORIENTATION) continue;
      const value = view.getUint16(at + 10, isLittle);
      view.setUint16(at + 10, 1, isLittle);
      return TURNS[value] ? value : 1;
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // no EXIF, or damaged EXIF, which does not make the pixels unreadable
  }
  return 1;
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

function tooLarge({ width, height }) {
  const most = MAX_PIXELS / 1e6;
  return new ImageError(`${width} × ${height} pixels are more than the limit of ${most} million; scale the image down`);
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
    const [width, height] = [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
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
  let at = 8;
  let isWhole = false;
  while (at + 12 <= bytes.length && !isWhole) {
    isWhole = text(bytes, at + 4, at + 8) === "IEND";
    at += view.getUint32(at) + 12;
  }
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
