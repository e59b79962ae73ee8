"""Makes a film to try `mien track` on: faces that move, enter, leave, cross and change their expression.

    python tools/make_film.py --out film.mp4 --seconds 12 --audio

Every face is the one of examples/astronaut.png (public domain), mirrored, tinted, lit, tilted, scaled and bent into
another expression, before a drawn background. The same arguments give the same pictures. Beside the film lies the
truth, film.json: for every frame its time and every face in it, `{"face": number, "role": name, "box": [x1, y1, x2,
y2], "visible": 0..1}`. A face that comes back has a new number. The box is where mien's detector draws it, about.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from film_heads import HEAD, MIDDLE, OVAL, bend, draw_background, dress
from film_roles import ORDER, ROLES, SCENE, Key, Role, place_at, timed

FACE = (176.0, 75.0, 279.0, 178.0)  # as the detector draws it
LEVELS = 17  # expressions drawn beforehand, from a frown over the smile to an open mouth
CLOCK = 90_000  # ticks a second of the film's times


@dataclass(frozen=True)
class Film:
    """The play as pictures: iterate over ``frames()``."""

    seconds: float = SCENE
    size_wh: tuple[int, int] = (1280, 720)
    rate: float = 30.0
    faces: int = 4
    variable: bool = False

    def times(self) -> list[float]:
        """The presentation time of every frame in seconds: even, or jumping between a third and twice the step."""
        count = max(1, round(self.seconds * self.rate))
        steps = np.full(count, 1 / self.rate)
        if self.variable:
            steps *= np.resize([1.0, 0.5, 1.5, 2.0, 0.5, 0.5], count)
        ticks = np.rint(np.concatenate([[0], np.cumsum(steps)[:-1]]) * CLOCK)
        return [float(tick) / CLOCK for tick in ticks]

    def frames(self) -> Iterator[tuple[NDArray[np.uint8], float, list[dict[str, Any]]]]:
        """For every frame its pixels RGB uint8 [H, W, 3], its time in seconds, and the faces in it as the truth."""
        for seconds in self.times():
            yield self.draw(seconds), seconds, self.truth(seconds)

    def draw(self, seconds: float) -> NDArray[np.uint8]:
        """The picture at a time, RGB uint8 [H, W, 3]."""
        picture = self._background.copy()
        for role, key in self._present(seconds):
            self._paste(picture, role, key)
        return np.asarray(picture)

    def truth(self, seconds: float) -> list[dict[str, Any]]:
        """The faces at a time: those of which a part lies in the picture."""
        present = self._present(seconds)
        found = []
        for index, (role, key) in enumerate(present):
            box = self._box(role, key)
            visible = share_seen(box, [other for _, other in present[index + 1 :]], self.size_wh)
            if visible > 0:
                number = self._number(role, seconds)
                corners = [round(v, 1) for v in box]
                found.append({"face": number, "role": role.name, "box": corners, "visible": round(visible, 3)})
        return found

    @cached_property
    def _length(self) -> float:
        """Seconds of one scene: the film holds a whole number of them."""
        return self.seconds / max(1, round(self.seconds / SCENE))

    def _present(self, seconds: float) -> list[tuple[Role, Key]]:
        at = seconds / self._length % 1
        players = [role for role in ROLES if role.name in ORDER[: self.faces]]
        placed = [(role, place_at(timed(role, self._length), at)) for role in players]
        return [(role, key) for role, key in placed if key is not None]

    def _number(self, role: Role, seconds: float) -> int:
        """1 for the host, who never leaves; the others get a new number in every scene."""
        rank = ORDER.index(role.name)
        return 1 if rank == 0 else 1 + rank + int(seconds / self._length) * (len(ORDER) - 1)

    @cached_property
    def _background(self) -> Image.Image:
        return draw_background(self.size_wh)

    @cached_property
    def _sprites(self) -> dict[tuple[str, int], Image.Image]:
        players = [role for role in ROLES if role.name in ORDER[: self.faces]]
        heads = [bend(mood) for mood in np.linspace(-1, 1, LEVELS)]
        return {
            (role.name, level): dress(head, role.gamma, role.tint)
            for role in players
            for level, head in enumerate(heads)
        }

    def _matrix(self, role: Role, key: Key) -> NDArray[np.float64]:
        """Pixels of the example -> pixels of the film, affine [2, 3]."""
        width, height = self.size_wh
        scale = key.height * height / (2 * OVAL[1])
        angle = np.radians(key.tilt)
        mirror = -1 if role.mirrored else 1
        turn = scale * np.array([[np.cos(angle) * mirror, -np.sin(angle)], [np.sin(angle) * mirror, np.cos(angle)]])
        return np.column_stack([turn, np.array([key.x * width, key.y * height]) - turn @ MIDDLE])

    def _box(self, role: Role, key: Key) -> tuple[float, float, float, float]:
        """The detector's boxes stay upright and keep their size under a turn: the middle moves, the side scales."""
        middle = self._matrix(role, key) @ [(FACE[0] + FACE[2]) / 2, (FACE[1] + FACE[3]) / 2, 1]
        half = (FACE[2] - FACE[0]) / 2 * key.height * self.size_wh[1] / (2 * OVAL[1])
        return (*(middle - half).tolist(), *(middle + half).tolist())

    def _paste(self, picture: Image.Image, role: Role, key: Key) -> None:
        sprite = self._sprites[role.name, round((key.mood + 1) / 2 * (LEVELS - 1))]
        matrix = self._matrix(role, key)
        corners = matrix @ [[HEAD[0], HEAD[2], HEAD[2], HEAD[0]], [HEAD[1], HEAD[1], HEAD[3], HEAD[3]], [1, 1, 1, 1]]
        x1, y1 = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int).tolist()
        x2, y2 = np.minimum(np.ceil(corners.max(axis=1)), self.size_wh).astype(int).tolist()
        if x1 >= x2 or y1 >= y2:
            return
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        back[:, 2] += back[:, :2] @ [x1, y1] - HEAD[:2]
        size = (x2 - x1, y2 - y1)
        turned = sprite.transform(size, Image.Transform.AFFINE, back.ravel().tolist(), Image.Resampling.BILINEAR)
        picture.paste(turned, (x1, y1), turned)


def share_seen(box: tuple[float, ...], front: list[Key], size_wh: tuple[int, int]) -> float:
    """The share of a box that lies in the picture and under none of the heads in front of it."""
    width, height = size_wh
    x, y = np.meshgrid(*(np.linspace(box[i], box[i + 2], 64) for i in (0, 1)))
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    for key in front:
        half = key.height * height / 2
        aside = (x - key.x * width) / (half * OVAL[0] / OVAL[1])
        seen &= np.hypot(aside, (y - key.y * height) / half) > 1
    return float(seen.mean())


def make_film(
    out: Path, film: Film | None = None, *, audio: bool = False, rotate: int = 0, preset: str = "veryfast"
) -> dict[str, Any]:
    """Write `film` to `out` (H.264 MP4) and its truth beside it; the truth is also returned.

    `audio` adds a tone as AAC. `rotate` (0, 90, 180, 270) stores the pictures turned, with the metadata that turns them
    back, counter-clockwise, when the film is shown; the truth is in the pixels that are shown.
    """
    import av

    film = film or Film()
    truth: dict[str, Any] = {"size": list(film.size_wh), "rate": film.rate, "seconds": film.seconds, "frames": []}
    size = film.size_wh if rotate % 180 == 0 else film.size_wh[::-1]
    with av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as container:
        clock = Fraction(1, CLOCK)
        rate = Fraction(film.rate).limit_denominator(1001)
        video = container.add_stream("libx264", rate, width=size[0], height=size[1], time_base=clock)
        video.options = {"preset": preset, "crf": "20"}
        if rotate:
            video.set_display_rotation(rotate)
        tone = Tone(container) if audio else None
        for index, (pixels, seconds, faces) in enumerate(film.frames()):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels, -rotate // 90)), "rgb24")
            frame.pts, frame.time_base = round(seconds * CLOCK), clock
            container.mux(video.encode(frame))
            if tone is not None:
                tone.until(seconds)
            truth["frames"].append({"index": index, "seconds": round(seconds, 5), "faces": faces})
        container.mux(video.encode())
        if tone is not None:
            tone.until(film.seconds)
            tone.close()
    out.with_suffix(".json").write_text(json.dumps(truth) + "\n", "utf-8")
    return truth


class Tone:
    """A quiet tone of 440 hertz that swells once a second, mono, 48 kHz, AAC."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._stream = container.add_stream("aac", 48_000, layout="mono")
        self._done = 0  # samples

    def until(self, seconds: float) -> None:
        """Write whole frames of 1024 samples up to a time."""
        import av

        while self._done + 1024 <= seconds * 48_000:
            at = (self._done + np.arange(1024)) / 48_000
            wave = (0.2 * np.sin(2 * np.pi * 440 * at) * np.sin(np.pi * at) ** 2).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, self._done, Fraction(1, 48_000)
            self._container.mux(self._stream.encode(frame))
            self._done += 1024

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode())


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="the film, an MP4 file")
    parser.add_argument("--seconds", type=float, default=SCENE)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT in pixels, even numbers")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second")
    parser.add_argument("--faces", type=int, default=4, choices=(1, 2, 3, 4))
    parser.add_argument("--audio", action="store_true", help="add a tone (AAC)")
    parser.add_argument("--variable", action="store_true", help="let the time between frames vary")
    parser.add_argument("--rotate", type=int, default=0, choices=(0, 90, 180, 270), help="store it turned")
    options = parser.parse_args(arguments)
    width, _, height = options.size.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) % 2 == int(height) % 2 == 0 and options.seconds > 0):
        parser.error("--size is WIDTHxHEIGHT with even numbers, --seconds above 0")
    film = Film(options.seconds, (int(width), int(height)), options.rate, options.faces, options.variable)
    truth = make_film(options.out, film, audio=options.audio, rotate=options.rotate)
    print(f"{options.out}: {len(truth['frames'])} frames; the truth: {options.out.with_suffix('.json')}")


if __name__ == "__main__":
    main()
