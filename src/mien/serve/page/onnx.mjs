// What an ONNX file says about itself: its metadata, read from the bytes, because the runtime in the browser hides it.
// The file is a protocol buffer; `metadata_props` is field 14 of a model, each with a key (1) and a value (2).

const METADATA = 14;

/** The metadata of an ONNX file, as an object of strings. Throws when the bytes are no ONNX file. */
export function readMetadata(bytes) {
  const text = new TextDecoder();
  const said = {};
  for (const { field, content } of fields(bytes)) {
    if (field !== METADATA || content === null) continue;
    const pair = {};
    for (const inner of fields(content)) if (inner.content !== null) pair[inner.field] = text.decode(inner.content);
    said[pair[1]] = pair[2] ?? "";
  }
  return said;
}

/** The fields of a message: their numbers, and the bytes of those that hold bytes. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, factor] = [0, 1];
    for (;;) {
      if (at >= bytes.length) throw new Error("the file is cut off");
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
  };
  const skip = { 0: () => void varint(), 1: () => void (at += 8), 5: () => void (at += 4) };
  while (at < bytes.length) {
    const tag = varint();
    const [field, kind] = [Math.trunc(tag / 8), tag % 8];
    if (kind !== 2 && !skip[kind]) throw new Error("the file is no ONNX file");
    if (kind !== 2) {
      skip[kind]();
      yield { field, content: null };
      continue;
    }
    const length = varint();
    if (at + length > bytes.length) throw new Error("the file is cut off");
    yield { field, content: bytes.subarray(at, at + length) };
    at += length;
  }
}
