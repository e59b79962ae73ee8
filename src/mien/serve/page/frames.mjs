// The frames of a camera: why there are none, the picture as it is now, and when there is a new one.

const LONGEST = 640; // pixels of a frame's longer side, as it is read

const REFUSALS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings, and start it again.",
  NotFoundError: "There is no camera on this device. Connect one, or choose a picture.",
  NotReadableError: "The camera is in use by another program. Close that program, and start the camera again.",
  OverconstrainedError: "The camera has no picture that fits. Try another one.",
  SecurityError: "A browser gives the camera only to pages of https or localhost.",
};

/** Why the camera did not start, in one line. */
export function refusal(error) {
  return REFUSALS[error.name] ?? `The camera did not start (${error.message || error.name}).`;
}

/** Turn a camera off; nothing where there is none. */
export function stopTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** The video's picture as it is now, its longer side no more than LONGEST. */
export function grab(video) {
  const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
  const resizeWidth = Math.round(video.videoWidth * scale);
  const resizeHeight = Math.round(video.videoHeight * scale);
  return createImageBitmap(video, scale < 1 ? { resizeWidth, resizeHeight, resizeQuality: "medium" } : {});
}

/** Waits for frames of a video that were not read yet: not at all where one came while the last was read. */
export class Clock {
  constructor(video) {
    this.video = video;
    this.isFresh = true;
    this.waiting = null;
    this.listen();
  }

  next() {
    if (!this.isFresh) return new Promise((resolve) => (this.waiting = resolve)).then(() => (this.isFresh = false));
    this.isFresh = false;
    return Promise.resolve();
  }

  listen() {
    const arrived = () => {
      this.isFresh = true;
      this.waiting?.();
      this.waiting = null;
      if (this.video.srcObject !== null) this.listen();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(arrived);
    else requestAnimationFrame(arrived);
  }
}
