// File -> picture: RGB, upright, transparent pixels over white (mien/decode.py), by the browser's own decoders.

import { readHeader } from "./header.mjs";

export const MAX_BYTES = 64 * 2 ** 20; // bytes of one file
export const MAX_PIXELS = 50_000_000; // width x height: a browser holds each picture several times

/** Why a picture cannot be read, in one line that people can act on. */
export class PictureError extends Error {}

/** Decode a File or Blob: { picture, bitmap }, the bitmap for showing. Throws PictureError. */
export async function decode(blob) {
  if (blob.size === 0) throw new PictureError("the file is empty; choose another one");
  if (blob.size > MAX_BYTES) throw new PictureError(`the file has more than ${MAX_BYTES / 2 ** 20} MB; make it smaller`);
  const header = readHeader(new Uint8Array(await blob.arrayBuffer()));
  if (header.format === null) throw new PictureError("this is not a picture; choose a JPEG, PNG, WebP, AVIF or GIF file");
  if (header.width * header.height > MAX_PIXELS) throw tooLarge(header);
  if (!header.isWhole) throw new PictureError("the picture is cut off; get the file again");
  let bitmap;
  try {
    // Without conversion of colours: the numbers in the file are what Python reads, too.
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    const isForeign = header.format === "HEIF";
    throw new PictureError(
      isForeign ? "this browser cannot read HEIC pictures; save it as JPEG" : "the picture is damaged; get the file again",
    );
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) throw tooLarge(bitmap);
  return { picture: toPicture(bitmap), bitmap };
}

/** The pixels of a bitmap as { width, height, data RGB }. `canvas` may be one that is used again for every frame. */
export function toPicture(bitmap, canvas = new OffscreenCanvas(bitmap.width, bitmap.height)) {
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
  return new PictureError(`${width} × ${height} pixels are more than the ${most} million of this page; scale it down`);
}
