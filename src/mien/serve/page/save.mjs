// Readings -> files: JSON and CSV as `mien predict` and `mien track` write them, and the annotated image.

import { drawFaces } from "./draw.mjs";
import { labelOf } from "./emotions.mjs";

const round = (value, digits) => Number(value.toFixed(digits));
const QUALITY = ["quality", "size", "sharpness", "turn"];
export const POINTS = ["right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear"]; // in the order of the detector

/** A face as plain values, as mien's Face.to_dict(). */
export function faceValues(face, threshold) {
  const { emotion, confidence } = labelOf(face, threshold);
  const probs = Object.entries(face.probs).map(([name, value]) => [name, round(value, 4)]);
  return {
    box: face.box.map((side) => round(side, 1)),
    score: round(face.score, 4),
    points: face.points
      ? Object.fromEntries(face.points.map((place, k) => [POINTS[k], place?.map((side) => round(side, 1)) ?? null]))
      : null,
    emotion,
    confidence: round(confidence, 4),
    probs: Object.fromEntries(probs),
    quality: qualityValues(face.quality),
  };
}

function qualityValues({ score, size, sharpness, turn }) {
  return { score: round(score, 3), size: round(size, 1), sharpness: round(sharpness, 4), turn: turn === null ? null : round(turn, 3) };
}

/** Readings as a JSON list, each { source, size_wh, faces, error } as mien's Reading.to_dict(). */
export function readingsToJson(readings, threshold) {
  const plain = readings.map(({ source, width = 0, height = 0, faces, error, note }) => ({
    source, size_wh: [width, height], faces: faces.map((face) => faceValues(face, threshold)), error, ...(note ? { note } : {}),
  }));
  return `${JSON.stringify(plain, null, 2)}\n`;
}

/** Readings as CSV: one row per face; an image without faces, or with an error, has one row. */
export function readingsToCsv(readings, threshold, emotions) {
  const first = ["source", "face", "x1", "y1", "x2", "y2", "score", "emotion", "confidence", ...emotions];
  const places = POINTS.flatMap((name) => [`${name}_x`, `${name}_y`]);
  const rows = [[...first, ...QUALITY, "image_width", "image_height", ...places, "error"]];
  const noPoints = places.map(() => "");
  for (const { source, width, height, faces, error } of readings) {
    if (faces.length === 0) rows.push([source, ...[...first.slice(1), ...QUALITY].map(() => ""), width, height, ...noPoints, error]);
    faces.forEach((face, index) => {
      const { box, score, points, emotion, confidence, probs, quality } = faceValues(face, threshold);
      const values = emotions.map((name) => probs[name]);
      const places = points ? POINTS.flatMap((name) => points[name] ?? ["", ""]) : noPoints;
      rows.push([source, index, ...box, score, emotion, confidence, ...values, ...Object.values(quality), width, height, ...places, error]);
    });
  }
  return toCsv(rows);
}

/** The frame results { frame, seconds, faces } of a camera session as JSON lines. */
export function frameResultsToJson(frameResults, threshold) {
  const lines = frameResults.map(({ frame, seconds, faces }) => {
    const values = faces.map((face) => ({ track_id: face.id, ...faceValues(face, threshold), points: undefined }));
    return JSON.stringify({ frame, seconds: round(seconds, 4), faces: values });
  });
  return lines.map((line) => `${line}\n`).join("");
}

/** The frame results as CSV, one row per frame and face. */
export function frameResultsToCsv(frameResults, threshold, emotions) {
  const rows = [["frame", "seconds", "track_id", "x1", "y1", "x2", "y2", "emotion", "confidence", ...emotions, ...QUALITY]];
  for (const { frame, seconds, faces } of frameResults) {
    for (const face of faces) {
      const { box, emotion, confidence, probs, quality } = faceValues(face, threshold);
      const values = emotions.map((name) => probs[name]);
      rows.push([frame, round(seconds, 4), face.id, ...box, emotion, confidence, ...values, ...Object.values(quality)]);
    }
  }
  return toCsv(rows);
}

// Characters that control a terminal or hide text, and the beginnings of formulas in spreadsheets, as in mien/_format.py.
const CONTROLS =
  /[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\u{e0000}-\u{e007f}]/gu;
const FORMULA = /(^|[;|])(?=[=+@\uff0b\uff0d\uff1d\uff20-])/g;

/** Text as spreadsheets show it and do not calculate it: controls escaped as in JSON, a ' before what would be a formula. */
function csvText(text) {
  const code = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const escaped = (found) => JSON.stringify(found).slice(1, -1).replace(/[^ -~]/g, code);
  return text.replace(CONTROLS, escaped).replace(FORMULA, "$1'");
}

function toCsv(rows) {
  const quoted = (text) => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const cell = (value) => (typeof value === "string" ? quoted(csvText(value)) : (value ?? ""));
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}

/** The image with boxes, labels and, optionally, maps, as a PNG blob in the image's own size. */
export async function annotatedPng(bitmap, faces, { threshold, maps, ownScale, mirrored = false }) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (mirrored) context.setTransform(-1, 0, 0, 1, width, 0);
  context.drawImage(bitmap, 0, 0);
  drawFaces(context, faces, { threshold, width, height, maps, ownScale, mirrored });
  return canvas.convertToBlob({ type: "image/png" });
}

/** Download a file. */
export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
