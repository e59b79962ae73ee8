"""The results of mien: boxes, key points, faces and readings. All are frozen, and their arrays are read-only."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mien._emotions import UNSURE_COLOR, Emotion
from mien._errors import MissingExtraError, ModelError, require_kind, shown
from mien._format import counted, probability_percent
from mien._page import data_uri, escape
from mien._suggest import suggest

if TYPE_CHECKING:
    from supervision import Detections

Pixels = NDArray[np.uint8]  # an image, RGB uint8 [H, W, 3]
Point = tuple[float, float]
LARGEST_PLACE = 1e9  # of a coordinate in pixels, far from numbers whose squares overflow


class Box(NamedTuple):
    """A rectangle in pixels of the image.

    Attributes:
        x1: Left edge.
        y1: Upper edge.
        x2: Right edge.
        y2: Lower edge.

    Example:
        >>> Box(10, 20, 50, 80).width
        40
        >>> print(Box(10.0375, 20, 50, 80))
        Box(x1=10.0, y1=20.0, x2=50.0, y2=80.0)
    """

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.y2 - self.y1

    def __str__(self) -> str:
        return f"Box(x1={self.x1:.1f}, y1={self.y1:.1f}, x2={self.x2:.1f}, y2={self.y2:.1f})"


class KeyPoints(NamedTuple):
    """The landmarks of a face, ``(x, y)`` in pixels of the image. Left and right are the subject's.

    Attributes:
        right_eye: The right eye, on the left of the image.
        left_eye: The left eye.
        nose: The tip of the nose.
        mouth: The middle of the mouth.
        right_ear: The right ear; ``None`` if the detector does not find ears.
        left_ear: The left ear; ``None`` if the detector does not find ears.
    """

    right_eye: Point
    left_eye: Point
    nose: Point
    mouth: Point
    right_ear: Point | None = None
    left_ear: Point | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """A face that a detector found.

    Attributes:
        box: The place of the face, in pixels of the image.
        score: The detector's score, 0..1.
        points: Key points; ``None`` if the detector has none.
    """

    box: Box
    score: float
    points: KeyPoints | None

    def scaled(self, factor: float) -> "Detection":
        """Return the detection in an image of another size.

        Args:
            factor: The width of the other image, in widths of this one.

        Returns:
            The detection with scaled box and points.
        """

        def place(point: Any) -> Any:  # an ear may be absent
            return None if point is None else (float(point[0]) * factor, float(point[1]) * factor)

        points = None if self.points is None else KeyPoints(*map(place, self.points))
        return Detection(Box(*(float(side) * factor for side in self.box)), float(self.score), points)


QUALITY_COLUMNS = ("quality", "size", "sharpness", "turn")  # of tables
_FULL_SIZE = 32  # pixels from which mien-0 reads shrunk faces of PublicTest nearly as well as large ones
_FULL_SHARPNESS = 0.15  # from which it reads blurred faces of PublicTest nearly as well as sharp ones
_FULL_TURN = 0.5  # up to which a turn of the head lowers no score; it is 0 at 1, where the nose is below an eye


class Quality(NamedTuple):
    """How well a face can be seen. It depends on the image and the key points alone, not on the answer of the model.

    Attributes:
        score: From 0 to 1: the smallest of size / 32, sharpness / 0.15 and 2 - 2 |turn|, at most 1.
        size: Side of the crop in pixels of the image.
        sharpness: From 0 (flat, blurred or enlarged) to 1: the share of the differences of neighbouring pixels of the
            crop that a blur over 3 pixels takes away (the measure of Crete et al., 2007). Noise counts as sharpness.
        turn: Turn of the head: the distance of the nose from the middle of the eyes, along the line through the eyes,
            in halves of their distance. 0 is frontal, 1 below the subject's left eye, -1 below the right one. ``None``
            without key points.
    """

    score: float
    size: float
    sharpness: float
    turn: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Return the values, rounded, as JSON values."""
        turn = None if self.turn is None else round(self.turn, 3) + 0.0  # never -0.0
        sharpness = round(self.sharpness, 4)
        return {"score": round(self.score, 3), "size": round(self.size, 1), "sharpness": sharpness, "turn": turn}

    def __str__(self) -> str:
        turn = "" if self.turn is None else f", turn {round(self.turn, 2) + 0.0:+.2f}"
        return f"quality {self.score:.2f}: {self.size:.0f} px, sharpness {self.sharpness:.2f}{turn}"


@dataclass(frozen=True, eq=False)
class Face:
    """One face that was read.

    Attributes:
        box: The place of the face, in pixels of the image.
        score: The detector's score, 0..1.
        points: Key points; ``None`` if the detector has none.
        emotion: The most probable emotion; ``None`` ("unsure") if its probability is below the reader's threshold.
        confidence: The highest probability, 0..1.
        probs: Calibrated probability of every emotion of the model; they sum to 1.
        maps: Class activation maps (Zhou et al., CVPR 2016), float32 ``[C, h, w]`` in the order of ``probs``. The
            spatial mean of a map is the calibrated logit of its class.
        crop: The grey input of the network, uint8 ``[S, S]``.
        to_image: Affine transform, float64 ``[2, 3]``, from pixels of the crop to pixels of the image.
    """

    box: Box
    score: float
    points: KeyPoints | None
    emotion: Emotion | None
    confidence: float
    probs: Mapping[Emotion, float]
    maps: NDArray[np.float32] = field(repr=False)
    crop: NDArray[np.uint8] = field(repr=False)
    to_image: NDArray[np.float64] = field(repr=False)

    @cached_property
    def top(self) -> Emotion:
        """The most probable emotion, also when the reader abstains."""
        return max(self.probs, key=self.probs.__getitem__)

    @cached_property
    def quality(self) -> Quality:
        """How well the face can be seen: its size, sharpness and turn, and a score from 0 to 1. Computed when asked."""
        size, sharpness = crop_side(self.to_image, len(self.crop)), crop_sharpness(self.crop)
        turn = None if self.points is None else head_turn(self.points)
        limits = size / _FULL_SIZE, sharpness / _FULL_SHARPNESS, (1 - abs(turn or 0)) / (1 - _FULL_TURN)
        return Quality(min(max(min(limits), 0.0), 1.0), size, sharpness, turn)

    @property
    def color(self) -> str:
        """The colour of the face's box and label, as ``#rrggbb``: that of its emotion, or a neutral one if unsure."""
        return UNSURE_COLOR if self.emotion is None else self.emotion.color

    def map(self, emotion: Emotion | str | None = None, *, own_scale: bool = False) -> NDArray[np.float32]:
        """Return the map of an emotion: the evidence of each place.

        Args:
            emotion: An emotion of the model, or its name; the default is the most probable one.
            own_scale: Whether 1 is the largest value of this map. By default it is the largest value of all maps of the
                face, so that the map of an improbable emotion is pale.

        Returns:
            The class activation map, float32 ``[h, w]``, scaled to 0..1 with negative values cut to 0.

        Raises:
            ModelError: The model does not know the emotion.

        Example:
            >>> import mien
            >>> face = mien.Reader().read(mien.example()).faces[0]
            >>> face.map("happy").shape
            (6, 6)
        """
        require_kind("own_scale", own_scale, bool, "True or False")
        emotion = self.top if emotion is None else emotion
        names = [str(known) for known in self.probs]
        if not isinstance(emotion, str) or emotion not in names:
            raise ModelError(
                f"the model has no emotion {shown(emotion)}; it has {', '.join(names)}{suggest(shown(emotion), names)}"
            )
        positive = np.maximum(self.maps[names.index(emotion)], 0)
        peak = float((positive if own_scale else self.maps).max())
        return np.asarray(positive / peak if peak > 0 else positive)

    def to_dict(self) -> dict[str, Any]:
        """Return box, score, points, emotion, confidence, probs and quality as JSON values, without crop and maps."""
        points = None
        if self.points is not None:
            places = self.points._asdict().items()
            points = {  # JSON has no numbers that are not finite, which a detector may return for a hidden point
                name: [round(v, 1) for v in place] if place and all(map(math.isfinite, place)) else None
                for name, place in places
            }
        return {
            "box": [round(v, 1) for v in self.box],
            "score": round(self.score, 4),
            "points": points,
            "emotion": None if self.emotion is None else str(self.emotion),
            "confidence": round(self.confidence, 4),
            "probs": {str(e): round(p, 4) for e, p in self.probs.items()},
            "quality": self.quality.to_dict(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(_with_frozen_arrays(state))

    def __repr__(self) -> str:
        name = self.emotion or "unsure"
        x1, y1, x2, y2 = (round(v) for v in self.box)
        return f"Face({name} {self.confidence:.2f} at {x1},{y1} {x2 - x1}x{y2 - y1})"


@dataclass(frozen=True, eq=False)
class Reading:
    """The faces of one image. It can be iterated over, and a notebook shows it as an image with boxes and bars.

    Attributes:
        faces: The faces, largest first.
        source: The name of the image: its path, or what kind of source it was.
        size_wh: Width and height of the image in pixels.
        note: What users should know, for example that only the first frame of an animation was read.
        error: Why an image of a batch could not be read, in one line. Such a reading has no faces.
        pixels: The image, RGB uint8 ``[H, W, 3]``, with ``keep_pixels=True``; otherwise ``None``.

    Example:
        >>> import mien
        >>> reading = mien.Reader().read(mien.example())
        >>> len(reading), [str(face.emotion) for face in reading]
        (1, ['happy'])
    """

    faces: tuple[Face, ...]
    source: str
    size_wh: tuple[int, int]
    note: str | None = None
    error: str | None = None
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return ``source``, ``size_wh``, ``faces`` and ``error`` as JSON values, and ``note`` if there is one."""
        faces = [face.to_dict() for face in self.faces]
        plain: dict[str, Any] = {"source": self.source, "size_wh": list(self.size_wh), "faces": faces}
        plain["error"] = self.error
        if self.note is not None:
            plain["note"] = self.note
        return plain

    def to_records(
        self, emotions: Sequence[Emotion] | None = None, *, keep_empty: bool = False
    ) -> list[dict[str, Any]]:
        """Return one flat row for each face: the rows of ``mien.to_pandas``, ``mien.Csv`` and ``mien.Parquet``.

        Args:
            emotions: The emotions whose probabilities a row has, ``None`` where the model does not have them; the
                default is those of the model.
            keep_empty: Whether an image without faces has one row, without a face number.

        Returns:
            Rows of plain values: ``source``, ``face`` (0, 1, ...), the corners of the box, ``score``, ``emotion``
            (``None`` if unsure), ``confidence``, a column for each emotion, ``quality`` and what it is made of
            (``size``, ``sharpness``, ``turn``), the size of the image, the key points (``right_eye_x`` ...) and
            ``error``.

        Example:
            >>> import mien
            >>> rows = mien.Reader().read(mien.example()).to_records()
            >>> rows[0]["emotion"], rows[0]["image_width"]
            ('happy', 320)
        """
        if emotions is None:
            emotions = tuple(self.faces[0].probs) if self.faces else ()
        require_kind("emotions", emotions, (list, tuple), "a list of emotions")
        columns = record_columns(emotions)
        width, height = self.size_wh if self.error is None else (None, None)
        shared = {"source": self.source, "image_width": width, "image_height": height, "error": self.error}
        rows = [shared] if keep_empty and not self.faces else []
        for index, face in enumerate(self.faces):
            plain = face.to_dict()
            corners = zip(("x1", "y1", "x2", "y2"), plain["box"], strict=True)
            places = plain.pop("points") or {}
            points = {
                f"{name}_{axis}": v
                for name, place in places.items()
                for axis, v in zip("xy", place or (), strict=False)
            }
            rows.append(
                shared | {"face": index} | plain | quality_cells(plain) | plain["probs"] | dict(corners) | points
            )
        return [{name: row.get(name) for name in columns} for row in rows]

    def to_supervision(self) -> "Detections":
        """Return the faces as ``supervision.Detections``, for its annotators, trackers and filters.

        Returns:
            Boxes, ``confidence`` (of the emotion), ``class_id`` (the place of the emotion among those of the model; one
            more than the last if unsure), and as ``data``: ``class_name``, ``score`` of the detector, and ``probs``
            ``[N, C]``.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingExtraError("supervision", "supervision") from error
        faces = self.faces
        emotions = list(faces[0].probs) if faces else []
        places = [len(emotions) if face.emotion is None else emotions.index(face.emotion) for face in faces]
        probs = [list(face.probs.values()) for face in faces]
        data: dict[str, Any] = {
            "class_name": np.array([str(face.emotion or "unsure") for face in faces], dtype=str),
            "score": np.array([face.score for face in faces], np.float32),
            "probs": np.array(probs, np.float32).reshape(len(faces), len(emotions)),
        }
        return supervision.Detections(
            xyxy=np.array([face.box for face in faces], np.float32).reshape(-1, 4),
            confidence=np.array([face.confidence for face in faces], np.float32),
            class_id=np.array(places, int),
            data=data,
        )

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)

    def __len__(self) -> int:
        return len(self.faces)

    def __bool__(self) -> bool:
        return True  # also without faces: it is the reading of an image

    def __repr__(self) -> str:
        if self.error is not None:
            return f"Reading({self.source}: {self.error})"
        return f"Reading({self.source}: {counted(len(self.faces), 'face')} {list(self.faces)})"

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(_with_frozen_arrays(state))

    def _repr_html_(self) -> str:
        count = f"{len(self)} {'face' if len(self) == 1 else 'faces'}"
        title = " · ".join(text for text in (self.source, self.error or count, self.note) if text)
        image = "" if self.pixels is None else _image_html(self.pixels, self.faces)
        faces = "".join(_face_html(face, index) for index, face in enumerate(self.faces[:_SHOWN_FACES]))
        hidden = len(self) - _SHOWN_FACES
        more = f"<div>{hidden} smaller {'face' if hidden == 1 else 'faces'} not shown</div>" if hidden > 0 else ""
        return (
            f'<div style="font:13px/1.4 system-ui,sans-serif"><div>{escape(title)}</div>{image}'
            f'<div style="display:flex;flex-wrap:wrap;gap:8px 24px">{faces}</div>{more}</div>'
        )


def _with_frozen_arrays(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of what was pickled or copied, which makes arrays writeable."""
    for value in state.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return state


_SHOWN_FACES = 8  # in a notebook, the largest ones
_SHOWN_SIDE = 640  # pixels of the longer side of an image in a notebook


def record_columns(emotions: Iterable[Emotion]) -> list[str]:
    """Return the columns of a table of readings.

    Args:
        emotions: The emotions whose probabilities the table has.

    Returns:
        Names in their order.
    """
    first = ["source", "face", "x1", "y1", "x2", "y2", "score", "emotion", "confidence", *map(str, emotions)]
    points = [f"{point}_{axis}" for point in KeyPoints._fields for axis in "xy"]
    return [*first, *QUALITY_COLUMNS, "image_width", "image_height", *points, "error"]


def quality_cells(face: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the cells of the quality of a face in a table.

    Args:
        face: The face, as ``Face.to_dict`` returns it.

    Returns:
        The values of ``QUALITY_COLUMNS``.
    """
    return dict(zip(QUALITY_COLUMNS, face["quality"].values(), strict=True))


def crop_side(to_image: NDArray[np.float64], side: int) -> float:
    """Return the side of a crop in pixels of the image.

    Args:
        to_image: Its transform to the image, ``[2, 3]``.
        side: Its side in its own pixels.

    Returns:
        The square root of its area in the image.
    """
    (a, b, _), (d, e, _) = to_image.tolist()
    return side * math.sqrt(abs(a * e - b * d))


def crop_sharpness(crop: Pixels) -> float:
    """Return the sharpness of a crop, as ``Quality`` defines it.

    All sums are whole numbers, so that other languages compute the same.

    Args:
        crop: uint8 ``[S, S]``.

    Returns:
        The sharpness, 0..1; 0 if the crop is flat or smaller than 4 pixels.
    """
    lines = np.stack([crop, crop.T]).astype(np.int16)  # rows and columns
    differences = 3 * np.abs(lines[..., 2:-1] - lines[..., 1:-2])
    blurred = np.abs(lines[..., 3:] - lines[..., :-3])  # 3 times the differences of the means of 3 pixels
    total = int(differences.sum(dtype=np.int64))
    return int(np.maximum(differences - blurred, 0).sum(dtype=np.int64)) / total if total else 0.0


def head_turn(points: KeyPoints) -> float | None:
    """Return the turn of a head, as ``Quality`` defines it.

    Args:
        points: The key points of the face.

    Returns:
        The turn; ``None`` where the eyes are at one place or a point is not finite.
    """
    (x1, y1), (x2, y2), (x, y) = points.right_eye, points.left_eye, points.nose
    across, down = x2 - x1, y2 - y1
    length = across * across + down * down
    turn = 2 * ((x - (x1 + x2) / 2) * across + (y - (y1 + y2) / 2) * down) / length if length else math.nan
    return turn if math.isfinite(turn) else None


def _image_html(pixels: Pixels, faces: tuple[Face, ...]) -> str:
    """The image with a box over each face, for a notebook: every style is in the element itself."""
    from mien._memory import pillow_image

    height, width = pixels.shape[:2]
    image = pillow_image(pixels)
    image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), reducing_gap=3.0)
    boxes = "".join(
        f'<div style="position:absolute;left:{face.box.x1 / width:.2%};top:{face.box.y1 / height:.2%};'
        f"width:{face.box.width / width:.2%};height:{face.box.height / height:.2%};box-sizing:border-box;"
        f'border:2px solid {face.color};font:10px/1 system-ui" title="{escape(face_headline(face))}">'
        f'<span style="background:{face.color};color:#000;padding:0 2px">{index}</span></div>'
        for index, face in enumerate(faces)
    )
    uri = data_uri(image.convert("RGB"), "JPEG", quality=85)
    return (
        f'<div style="position:relative;display:inline-block;overflow:hidden;margin:8px 0">'
        f'<img alt="" style="display:block;max-width:100%" src="{uri}">{boxes}</div>'
    )


def _face_html(face: Face, index: int) -> str:
    """The number and the crop of a face and a bar for each emotion, for a notebook."""
    from PIL import Image

    uri = data_uri(Image.fromarray(face.crop), "PNG")
    bars = "".join(
        f'<div>{emotion}</div><div style="background:{emotion.color};height:10px;width:{max(100 * p, 1):.0f}px"></div>'
        f"<div>{escape(probability_percent(p))}</div>"
        for emotion, p in face.probs.items()
    )
    grid = "display:grid;grid-template-columns:auto 100px auto;gap:0 8px;align-items:center"
    return (
        f'<div><b>{index} · {escape(face_headline(face))}</b><div style="display:flex;gap:12px;align-items:flex-start">'
        f'<img alt="" width="96" height="96" src="{uri}"><div style="{grid}">{bars}</div></div>{face.quality}</div>'
    )


def face_headline(face: Face, percent: Callable[[float], str] = probability_percent) -> str:
    """Return the emotion of a face and its probability in a few words.

    Args:
        face: The face.
        percent: Formats the probability.

    Returns:
        For example ``happy 93 %`` or ``unsure, most likely sad 40 %``.
    """
    return f"{face.emotion or f'unsure, most likely {face.top}'} {percent(face.confidence)}"
