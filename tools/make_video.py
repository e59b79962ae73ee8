"""Makes a test video for `mien track`: faces that move, enter, leave, cross and change their expression.

    python tools/make_video.py --out video.mp4 --seconds 12 --audio

Every face is the one of examples/astronaut.png (public domain): mirrored, tinted, lit, tilted, scaled and bent into
another expression, in front of a drawn background. The same arguments give the same images. The ground truth is written
to video.json: for every frame its time and every face in it, `{"face": number, "role": name, "box": [x1, y1, x2, y2],
"visible": 0..1}`. A face that comes back has a new number. The box is roughly the one of mien's detector.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SCENE = 12.0  # seconds: approximate length of the scene, which repeats in a longer video
FLASH = 0.6  # seconds that the last role is visible: less than a second in any video


@dataclass(frozen=True)
class Key:
    """Position of a role at a time of the scene (0..1): centre and height of the head as fractions of the image."""

    at: float
    x: float
    y: float
    height: float
    tilt: float = 0.0  # degrees
    mood: float = 0.0  # -1 a frown, 0 the smile of the example, 1 an open mouth


@dataclass(frozen=True)
class Role:
    """One face of the scene: how it differs from the example, and its path."""

    name: str
    tint: tuple[float, float, float]
    gamma: float
    mirrored: bool
    keys: tuple[Key, ...]


# Drawn in this order: the last one is in front.
ROLES = (
    Role(
        "walker", (1.0, 0.86, 0.78), 1.15, True,
        (Key(0.06, -0.15, 0.42, 0.40, -4, -1), Key(0.3, 0.2, 0.44, 0.42, 0, -1), Key(0.5, 0.5, 0.40, 0.42, 5, -0.6),
         Key(0.72, 0.82, 0.42, 0.42, 0, 0), Key(0.84, 1.15, 0.44, 0.42, 4, 0)),
    ),
    Role(
        "host", (1.0, 1.0, 1.0), 1.0, False,
        (Key(0.0, 0.56, 0.5, 0.5, 0, 0), Key(0.2, 0.6, 0.48, 0.5, 4, 0), Key(0.36, 0.58, 0.5, 0.52, -6, 1),
         Key(0.55, 0.46, 0.52, 0.5, -3, 1), Key(0.7, 0.5, 0.5, 0.54, 6, 0), Key(0.85, 0.54, 0.5, 0.5, 0, -1),
         Key(1.0, 0.56, 0.5, 0.5, 0, 0)),
    ),
    Role(
        "visitor", (0.72, 0.82, 1.0), 0.85, False,
        (Key(0.22, 1.12, 0.24, 0.30, 8, 1), Key(0.34, 0.86, 0.24, 0.30, 10, 1), Key(0.5, 0.87, 0.22, 0.29, -8, 0),
         Key(0.6, 0.86, 0.2, 0.30, 0, 0), Key(0.7, 0.88, -0.25, 0.30, 0, 0)),
    ),
    Role("flash", (0.95, 1.0, 0.8), 1.3, True, (Key(0.9, 0.14, 0.76, 0.34, 6, 0), Key(0.9, 0.2, 0.74, 0.34, 2, 0))),
)  # fmt: skip
ORDER = ("host", "walker", "visitor", "flash")  # the roles of a video with one, two, three, four faces


def timed(role: Role, length: float) -> tuple[Key, ...]:
    """The keys of a role; the flash has the same duration in a short scene and in a long one."""
    if role.name != "flash":
        return role.keys
    first, last = role.keys
    return first, Key(first.at + FLASH / length, last.x, last.y, last.height, last.tilt, last.mood)


def place_at(keys: tuple[Key, ...], at: float) -> Key | None:
    """Interpolated position with smooth starts and stops; None before the first key and after the last."""
    for one, other in pairwise(keys):
        if one.at <= at < other.at:
            part = (at - one.at) / (other.at - one.at)
            soft = part * part * (3 - 2 * part)
            values = [(1 - soft) * getattr(one, name) + soft * getattr(other, name) for name in Key.__annotations__]
            return Key(*values)
    return None


ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "astronaut.png"
HEAD = (130, 2, 322, 206)  # pixels of the example, x1 y1 x2 y2: the part that is cut out
MIDDLE = (226.0, 104.0)  # centre of the head, pixels of the example
OVAL = (84.0, 97.0)  # half its width and height


@cache
def bend(mood: float) -> NDArray[np.float32]:
    """The head cut out of the example and bent into an expression, float32 [h, w, 4] in 0..255.

    mien-0 reads -1 as angry, 0 as happy and 1 as surprised.
    """
    with Image.open(EXAMPLE) as image:
        pixels = np.asarray(image.convert("RGB"), np.float32)
    frown, gape = max(0.0, -mood), max(0.0, mood)
    y, x = np.mgrid[HEAD[1] : HEAD[3], HEAD[0] : HEAD[2]].astype(np.float32)
    u = x - 224  # from the centre of the mouth; the head is slightly tilted
    v = y - 147 - 0.09 * u
    down = 21 * frown * ((u / 20) ** 2 - 0.45) * np.exp(-((v / 16) ** 2) - (u / 30) ** 4)
    down += gape * 10 * np.tanh(v / 4) * np.exp(-((v / 26) ** 2) - (u / 16) ** 4)
    down += gape * 4 * (v > 0) * np.exp(-((u / 40) ** 4)) * np.clip(1 - abs(v - 20) / 40, 0, 1)
    for eye_x, eye_y, side in ((205, 92, 1), (249, 96, -1)):
        near = np.exp(-(((x - eye_x) / 22) ** 4) - ((y - eye_y) / 9) ** 2)
        down += near * (8 * frown * (0.5 + side * (x - eye_x) / 22) - 6 * gape)
    aside = -gape * 0.5 * u * np.exp(-((v / 18) ** 2) - (u / 34) ** 4)
    bent = sample(pixels, x - aside, y - down)
    mouth = np.clip(1.3 - ((u / 11) ** 2 + ((v - 1) / (11 * gape + 0.01)) ** 2), 0, 0.4)[..., None] / 0.4
    bent += (gape > 0) * mouth * (np.float32([60, 20, 25]) - bent)
    radius = np.hypot((x - MIDDLE[0]) / OVAL[0], (y - MIDDLE[1]) / OVAL[1])
    alpha = 255 * np.clip((1 - radius) / 0.06, 0, 1)
    return np.dstack([bent, alpha])


def sample(pixels: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bilinear samples of an image at fractional positions."""
    x = np.clip(x, 0, pixels.shape[1] - 1.001)
    y = np.clip(y, 0, pixels.shape[0] - 1.001)
    left, top = x.astype(int), y.astype(int)
    across, below = (x - left)[..., None], (y - top)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, left + 1] * across
    lower = pixels[top + 1, left] * (1 - across) + pixels[top + 1, left + 1] * across
    return upper * (1 - below) + lower * below


def dress(head: NDArray[np.float32], gamma: float, tint: tuple[float, float, float]) -> Image.Image:
    """The head with the brightness and tint of a role."""
    light = 255 * (head[..., :3] / 255) ** gamma * np.float32(tint)
    return Image.fromarray(np.rint(np.dstack([light, head[..., 3]]).clip(0, 255)).astype(np.uint8), "RGBA")


@cache
def sprite(role: Role, level: int) -> Image.Image:
    """The head of a role with one of the ``LEVELS`` expressions."""
    return dress(bend(2 * level / (LEVELS - 1) - 1), role.gamma, role.tint)


def draw_background(size_wh: tuple[int, int]) -> Image.Image:
    """A room: a shaded wall, a window, a painting, a floor. Nothing in it looks like a face."""
    width, height = size_wh
    fade = np.linspace(0, 1, height)[:, None, None]
    wall = (1 - fade) * [196, 205, 201] + fade * [150, 161, 160]
    image = Image.fromarray(np.broadcast_to(wall, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)

    def block(x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        draw.rectangle((x1 * width, y1 * height, x2 * width, y2 * height), fill=color)

    block(0, 0.86, 1, 1, "#6b5a4a")
    block(0, 0.845, 1, 0.86, "#e8e4da")
    block(0.06, 0.08, 0.30, 0.58, "#f2efe6")
    for column in range(2):
        for row in range(2):
            left, top = 0.07 + 0.115 * column, 0.1 + 0.24 * row
            block(left, top, left + 0.105, top + 0.22, "#a9c6d8" if row == 0 else "#bcd3dc")
    block(0.74, 0.12, 0.95, 0.46, "#3d4650")
    block(0.752, 0.14, 0.938, 0.44, "#d9b98a")
    block(0.752, 0.33, 0.938, 0.44, "#7f8f6a")
    return image


FACE = (176.0, 75.0, 279.0, 178.0)  # the detector's box, pixels of the example, x1 y1 x2 y2
LEVELS = 17  # expressions that are drawn: from a frown over the smile to an open mouth
CLOCK = 90_000  # ticks per second of the video's timestamps


@dataclass(frozen=True)
class Video:
    """The scene as images: iterate over ``frames()``."""

    seconds: float = SCENE
    size_wh: tuple[int, int] = (1280, 720)
    rate: float = 30.0
    faces: int = 4
    variable: bool = False

    def times(self) -> list[float]:
        """Presentation time of every frame in seconds, with steps of half to twice the mean where ``variable``."""
        count = max(1, round(self.seconds * self.rate))
        steps = np.full(count, 1 / self.rate)
        if self.variable:
            steps *= np.resize([1.0, 0.5, 1.5, 2.0, 0.5, 0.5], count)
        ticks = np.rint(np.concatenate([[0], np.cumsum(steps)[:-1]]) * CLOCK)
        return [float(tick) / CLOCK for tick in ticks]

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], float, list[dict[str, Any]]]]:
        """For every frame: pixels RGB uint8 [H, W, 3], time in seconds, and the true faces in it."""
        for seconds in self.times():
            yield self.draw(seconds), seconds, self.truth(seconds)

    def draw(self, seconds: float) -> NDArray[np.uint8]:
        """The image at a time, RGB uint8 [H, W, 3]."""
        image = self._background.copy()
        for role, key in self._present(seconds):
            self._paste(image, role, key)
        return np.asarray(image)

    def truth(self, seconds: float) -> list[dict[str, Any]]:
        """The faces at a time that are at least partly visible."""
        present = self._present(seconds)
        found = []
        for index, (role, key) in enumerate(present):
            box = self._box(role, key)
            visible = visible_share(box, [other for _, other in present[index + 1 :]], self.size_wh)
            if visible > 0:
                number = self._number(role, seconds)
                corners = [round(v, 1) for v in box]
                found.append({"face": number, "role": role.name, "box": corners, "visible": round(visible, 3)})
        return found

    @cached_property
    def _length(self) -> float:
        """Seconds of one scene: the video holds a whole number of scenes."""
        return self.seconds / max(1, round(self.seconds / SCENE))

    def _present(self, seconds: float) -> list[tuple[Role, Key]]:
        at = seconds / self._length % 1
        roles = [role for role in ROLES if role.name in ORDER[: self.faces]]
        placed = [(role, place_at(timed(role, self._length), at)) for role in roles]
        return [(role, key) for role, key in placed if key is not None]

    def _number(self, role: Role, seconds: float) -> int:
        """1 for the host, who never leaves; the others have a new number in every scene."""
        rank = ORDER.index(role.name)
        return 1 if rank == 0 else 1 + rank + int(seconds / self._length) * (len(ORDER) - 1)

    @cached_property
    def _background(self) -> Image.Image:
        return draw_background(self.size_wh)

    def _matrix(self, role: Role, key: Key) -> NDArray[np.float64]:
        """Pixels of the example -> pixels of the video, affine [2, 3]."""
        width, height = self.size_wh
        scale = key.height * height / (2 * OVAL[1])
        angle = np.radians(key.tilt)
        mirror = -1 if role.mirrored else 1
        turn = scale * np.array([[np.cos(angle) * mirror, -np.sin(angle)], [np.sin(angle) * mirror, np.cos(angle)]])
        return np.column_stack([turn, np.array([key.x * width, key.y * height]) - turn @ MIDDLE])

    def _box(self, role: Role, key: Key) -> tuple[float, float, float, float]:
        """The detector's box, which stays upright and keeps its size when the head rotates."""
        middle = self._matrix(role, key) @ [(FACE[0] + FACE[2]) / 2, (FACE[1] + FACE[3]) / 2, 1]
        half = (FACE[2] - FACE[0]) / 2 * key.height * self.size_wh[1] / (2 * OVAL[1])
        return (*(middle - half).tolist(), *(middle + half).tolist())

    def _paste(self, image: Image.Image, role: Role, key: Key) -> None:
        head = sprite(role, round((key.mood + 1) / 2 * (LEVELS - 1)))
        matrix = self._matrix(role, key)
        corners = matrix @ [[HEAD[0], HEAD[2], HEAD[2], HEAD[0]], [HEAD[1], HEAD[1], HEAD[3], HEAD[3]], [1, 1, 1, 1]]
        x1, y1 = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(corners.max(axis=1)), self.size_wh).astype(int).tolist()
        if x1 >= x2 or y1 >= y2:
            return
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        back[:, 2] += back[:, :2] @ [x1, y1] - HEAD[:2]
        size = (x2 - x1, y2 - y1)
        turned = head.transform(size, Image.Transform.AFFINE, back.ravel().tolist(), Image.Resampling.BILINEAR)
        image.paste(turned, (x1, y1), turned)


def visible_share(box: tuple[float, ...], front: list[Key], size_wh: tuple[int, int]) -> float:
    """The share of a box that is inside the image and not covered by a head in front of it."""
    width, height = size_wh
    x, y = np.meshgrid(*(np.linspace(box[i], box[i + 2], 64) for i in (0, 1)))
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    for key in front:
        half = key.height * height / 2
        aside = (x - key.x * width) / (half * OVAL[0] / OVAL[1])
        seen &= np.hypot(aside, (y - key.y * height) / half) > 1
    return float(seen.mean())


def make_video(
    out: Path, video: Video | None = None, *, audio: bool = False, rotate: int = 0, preset: str = "veryfast"
) -> dict[str, Any]:
    """Write ``video`` to ``out`` (H.264 MP4) and the ground truth to the same name with .json; returns the truth.

    ``audio`` adds a tone as AAC. ``rotate`` (0, 90, 180, 270) stores rotated frames with metadata by which players
    rotate them back counter-clockwise; the truth is in the pixels as displayed.
    """
    import av

    video = video or Video()
    truth: dict[str, Any] = {"size": list(video.size_wh), "rate": video.rate, "seconds": video.seconds, "frames": []}
    size = video.size_wh if rotate % 180 == 0 else video.size_wh[::-1]
    with av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as container:
        clock = Fraction(1, CLOCK)
        rate = Fraction(video.rate).limit_denominator(1001)
        stream = container.add_stream("libx264", rate, width=size[0], height=size[1], time_base=clock)
        stream.options = {"preset": preset, "crf": "20"}
        if rotate:
            stream.set_display_rotation(rotate)
        tone = Tone(container) if audio else None
        for index, (pixels, seconds, faces) in enumerate(video.frames()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels, -rotate // 90)), "rgb24")
            frame.pts, frame.time_base = round(seconds * CLOCK), clock
            container.mux(stream.encode(frame))
            if tone is not None:
                tone.until(seconds)
            truth["frames"].append({"index": index, "seconds": round(seconds, 5), "faces": faces})
        container.mux(stream.encode())
        if tone is not None:
            tone.until(video.seconds)
            tone.close()
    out.with_suffix(".json").write_text(json.dumps(truth) + "\n", "utf-8")
    return truth


class Tone:
    """A quiet tone of 440 Hz whose volume rises and falls once a second: mono, 48 kHz, AAC."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._stream = container.add_stream("aac", 48_000, layout="mono")
        self._done = 0  # samples

    def until(self, seconds: float) -> None:
        """Write whole frames of 1024 samples up to a time in seconds."""
        import av

        while self._done + 1024 <= seconds * 48_000:
            at = (self._done + np.arange(1024)) / 48_000
            wave = (0.2 * np.sin(2 * np.pi * 440 * at) * np.sin(np.pi * at) ** 2).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, self._done, Fraction(1, 48_000)
            self._container.mux(self._stream.encode(frame))
            self._done += 1024

    def close(self) -> None:
        """Flush the encoder."""
        self._container.mux(self._stream.encode())


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="the video to write, an MP4 file")
    parser.add_argument("--seconds", type=float, default=SCENE)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT in pixels, even numbers")
    parser.add_argument("--rate", type=float, default=30.0, help="frames per second")
    parser.add_argument("--faces", type=int, default=4, choices=(1, 2, 3, 4))
    parser.add_argument("--audio", action="store_true", help="add a tone (AAC)")
    parser.add_argument("--variable", action="store_true", help="vary the time between frames")
    parser.add_argument(
        "--rotate", type=int, default=0, choices=(0, 90, 180, 270), help="store rotated frames with rotation metadata"
    )
    options = parser.parse_args(arguments)
    width, _, height = options.size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) % 2 == int(height) % 2 == 0 and options.seconds > 0):
        parser.error("--size is WIDTHxHEIGHT with even numbers, --seconds above 0")
    video = Video(options.seconds, (int(width), int(height)), options.rate, options.faces, options.variable)
    truth = make_video(options.out, video, audio=options.audio, rotate=options.rotate)
    print(f"{options.out}: {len(truth['frames'])} frames; ground truth: {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
