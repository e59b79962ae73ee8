// What a picture file says in its first bytes: its format, its size, and whether it ends where it should. So that a page
// can tell a text file from a photograph that was cut off, and refuse a huge one before it fills the memory.

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));

/** { format, width, height, isWhole } of the bytes of a file; format is null for what is no picture. Width and height are
 * 0, and isWhole true, where the format's header does not tell. */
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
