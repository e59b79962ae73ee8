/** An emotion of the model, such as "happy"; `Reader.model.emotions` lists all of them. */
export type Emotion = string;

/** A place in pixels of the image: [x, y]. */
export type Point = [number, number];

/** What can be read: a file, which is decoded without colour conversion, as in Python (of an animation the first frame), or
 * anything that a canvas can draw.
 * Images, videos and canvases must be loaded, and of this site (or sent with CORS). */
export type Source = Blob | ImageBitmapSource;

export interface OpenOptions {
  /** The address of the folder with this package's files; by default that of index.mjs. Needed after bundling. */
  folder?: string | URL;
  /** The confidence below which `emotion` is null: 0 to 1, or "card", the thresholds measured for the model, which depend on
   * the size of the face. By default 0: every face has an emotion. */
  abstain?: number | "card";
}

export interface Model {
  name: string;
  /** "int8" or "fp32". */
  precision: string;
  /** In the order of the model's outputs. */
  emotions: Emotion[];
  /** The side of a crop in pixels. */
  size: number;
  detector: string;
}

/** How well a face can be seen. */
export interface Quality {
  /** 0 to 1; the smallest of what follows. */
  score: number;
  /** The side of the crop in pixels of the image. */
  size: number;
  /** 0 (blurred) to 1. */
  sharpness: number;
  /** 0 from the front; 1 and -1 where the nose is below an eye. Null without key points. */
  turn: number | null;
}

/** Saliency maps, one for each emotion, in the order of `Model.emotions`. */
export interface Maps {
  /** [C, height, width]; each map from 0 to 255 of its own peak. */
  data: Uint8Array;
  width: number;
  height: number;
  /** The peak of each map, in logits. */
  peaks: number[];
}

/** The key points of a face. Left and right are the subject's. */
export interface Points {
  right_eye: Point;
  left_eye: Point;
  nose: Point;
  mouth: Point;
  right_ear: Point | null;
  left_ear: Point | null;
}

export interface Face {
  /** The most probable emotion; null ("unsure") if its probability is below the threshold of `OpenOptions.abstain`. */
  emotion: Emotion | null;
  /** The probability of the most probable emotion. */
  confidence: number;
  /** The calibrated probability of each emotion; their sum is 1. */
  probs: Record<Emotion, number>;
  /** [x1, y1, x2, y2] in pixels of the image. */
  box: [number, number, number, number];
  /** The detector's score, 0 to 1. */
  score: number;
  points: Points;
  quality: Quality;
  /** What the network received: grey, `cropSize` x `cropSize`. */
  crop: Uint8Array;
  cropSize: number;
  /** [a, b, c, d, e, f]: (x, y) of the crop is (a x + b y + c, d x + e y + f) of the image. */
  toImage: [number, number, number, number, number, number];
  maps: Maps;
}

/** A face of a video: `probs` and `box` are smoothed over time. */
export interface TrackedFace extends Face {
  /** The number of the track, from 1: the same person keeps it while in view. */
  id: number;
  /** The reading of this frame alone. */
  raw: { box: [number, number, number, number]; probs: Record<Emotion, number> };
}

export interface Reading<F extends Face = Face> {
  /** The largest first; those of `track` in the order of their tracks. */
  faces: F[];
  /** Of the image, in pixels. */
  width: number;
  height: number;
  /** The time of each step. */
  milliseconds: { decode: number; detect: number; extract: number; infer: number };
}

export interface MapOptions {
  /** Give each map its own scale; by default all maps of a face have one, so that the map of an improbable emotion is pale. */
  ownScale?: boolean;
}

/** Finds and reads the faces of images, in a worker. */
export class Reader {
  /** Start the worker and load runtime and models, about 18 MB, once.
   * @throws RangeError if `abstain` is out of range; Error that names the file which could not be loaded. */
  static open(options?: OpenOptions): Promise<Reader>;
  private constructor();
  readonly model: Model;
  /** Read an image. It is not changed, and an ImageBitmap stays open. Calls are queued.
   * @throws Error that says why the image cannot be read. */
  read(source: Source): Promise<Reading>;
  /** Read the next frame of a video or camera: faces keep their ids, readings are smoothed.
   * @param seconds The time of the frame, never falling.
   * @param options `smooth`: the time constant of the smoothing in seconds, 0.5 by default; 0 switches it off.
   * @throws RangeError if `smooth` or `seconds` is no number or `seconds` falls: call `reset` before another video or an earlier time. */
  track(frame: ImageBitmapSource, seconds: number, options?: { smooth?: number }): Promise<Reading<TrackedFace>>;
  /** Forget all tracks: another video begins. */
  reset(): Promise<void>;
  /** Draw boxes and labels, and with `maps` the map of the most probable emotion of each face, on a context in pixels of the
   * image. */
  draw(context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D, reading: Reading, options?: MapOptions & { maps?: boolean }): void;
  /** End the worker; readings that have not ended are rejected. */
  close(): void;
}

/** Draw the map of an emotion over a face, on a context in pixels of the image. */
export function drawMap(context: CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D, face: Face, emotion: Emotion, options?: MapOptions): void;

/** The colour of each emotion, as "#rrggbb". */
export const COLORS: Readonly<Record<Emotion, string>>;
