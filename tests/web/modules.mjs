// Runs the page's modules in Node for tests/web/test_modules.py. Reads a task as JSON from standard input and writes the
// result as JSON to standard output. Bytes are base64.

import { readFileSync } from "node:fs";

const PAGE = new URL("../../src/mien/serve/page/", import.meta.url);
const load = (name) => import(new URL(`${name}.mjs`, PAGE).href);
const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
const packed = (data) => Buffer.from(data).toString("base64");
const image = ({ width, height, data }) => ({ width, height, data: bytes(data) });

const tasks = {
  async resize(cases) {
    const { resize, reduce } = await load("resize");
    return cases.map(({ image: given, size, box, gap, factors }) => {
      const source = image(given);
      return [packed(resize(source, ...size, box, gap).data), packed(reduce(source, ...factors).data)];
    });
  },
  async extract(cases) {
    const { extract } = await load("extract");
    return cases.map(({ image: given, detection, size, framing }) => {
      const { crop, toImage, quality } = extract(image(given), detection, size, framing);
      return { crop: packed(crop), toImage, quality: Object.values(quality) };
    });
  },
  async suppress(cases) {
    const { suppress } = await load("suppress");
    return cases.map((candidates) => suppress(candidates));
  },
  async cover(cases) {
    const { cover } = await load("tiles");
    return cases.map((payload) => cover(...payload));
  },
  async smooth({ values, seconds, constant, qualities = [] }) {
    const { Smoother } = await load("tracker");
    const smoother = new Smoother();
    return values.map((value, index) => smoother.step(value, seconds[index], constant, qualities[index]));
  },
  async threshold({ pairs, sizes }) {
    const { labelOf, thresholdAt } = await load("emotions");
    const face = (size) => ({ probs: { happy: 0.45, sad: 0.55 }, quality: { size } });
    return sizes.map((size) => [thresholdAt(pairs, size), labelOf(face(size), pairs).emotion]);
  },
  async metadata(paths) {
    const { readMetadata } = await load("reader");
    return paths.map((path) => readMetadata(readFileSync(path)));
  },
  async header(files) {
    const { readHeader } = await load("decode");
    return files.map((file) => readHeader(bytes(file)));
  },
  async orientation(files) {
    const { takeOrientation } = await load("decode");
    return files.map((file) => {
      const given = bytes(file);
      return [takeOrientation(given), packed(given)];
    });
  },
  async look() {
    const [{ heatRamp }, { COLORS, UNSURE_COLOR, percent }] = await Promise.all([load("draw"), load("emotions")]);
    return { ramp: heatRamp(), colors: COLORS, unsure: UNSURE_COLOR, percents: [0.001, 0.5, 0.999].map(percent) };
  },
  async save({ readings, threshold, emotions }) {
    const { readingsToJson, readingsToCsv } = await load("save");
    return [readingsToJson(readings, threshold), readingsToCsv(readings, threshold, emotions)];
  },
};

const { task, payload } = JSON.parse(readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify(await tasks[task](payload)));
