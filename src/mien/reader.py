"""Reader: decode, detect, extract, infer, for one picture or for a stream of them with their faces batched."""

import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import ImageError, MienError
from mien._face import Detection, Face, Reading
from mien._metrics import METRICS, format_metric, metric_name
from mien.bundled import DEFAULT_MODEL
from mien.decode import MAX_BYTES, MAX_PIXELS, Source, decode, name_of
from mien.detect import Detector, open_detector
from mien.extract import extract
from mien.infer import Classifier, find_model

# Pictures decoded at the same time: a 12-megapixel photograph takes 36 MB and its tiles as much again.
_MOST_WORKERS = 8
# Bytes of kept pictures at which a batch is closed early, so that 64 large photographs do not fill the memory.
_MOST_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture between ``Reader.prepare`` and ``Reader.classify``: its crops wait for the classifier.

    ``reading`` is the reading so far, without faces; ``crops`` (uint8 ``[N, S, S]``) and ``to_image`` (``[N, 2, 3]``)
    stand in the order of the ``detections``.
    """

    reading: Reading
    detections: Sequence[Detection]
    crops: NDArray[np.uint8]
    to_image: NDArray[np.float64]


class Reader:
    """Reads faces: opens the models once, then answers a ``Reading`` for every picture. Threads may share a reader."""

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        detector: str | Detector = "blazeface",
        precision: str = "int8",
        threads: int = 1,
        providers: Sequence[str] = ("cpu",),
        abstain: float = 0.0,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Open ``model`` (an embedded name, or the path of an ONNX file of mien's contract) and ``detector``.

        ``detector`` is ``"blazeface"``, ``"yunet"``, ``"none"`` (each picture is one tight crop of a face) or a
        callable of your own. ``precision`` chooses an embedded model's file, ``"int8"`` or ``"fp32"``. ``threads`` is
        in how many pictures ``read_many`` looks for faces at once, and how many cores may classify a batch (0: all).
        ``providers`` are ONNX Runtime's, first choice first: ``"cpu"``, ``"cuda"``, ``"coreml"``, ``"openvino"``,
        ``"directml"``. A face whose highest probability lies below ``abstain`` (0..1) gets the emotion ``None``.
        ``max_bytes`` and ``max_pixels`` limit every picture.

        Raises ``ModelError`` for a model, detector or provider that is not there, ``MienError`` for a number out of its
        range.
        """
        if not 0 <= abstain <= 1:
            raise MienError(f"abstain is a probability from 0 to 1, not {abstain}")
        if threads < 0:
            raise MienError(f"threads counts from 0 (all cores), not {threads}")
        self.model = Classifier(find_model(model, precision=precision), threads=threads, providers=providers)
        # One core a picture: a second one makes a single picture no faster, and many are read side by side.
        self.detector = open_detector(detector, providers=providers) if isinstance(detector, str) else detector
        self.abstain = abstain
        self._workers = min(threads or os.cpu_count() or 1, _MOST_WORKERS)
        self._limits = {"max_bytes": max_bytes, "max_pixels": max_pixels}

    def read(self, image: Source, *, keep_pixels: bool = False) -> Reading:
        """Read one picture: a path, bytes, a binary stream, an array (RGB uint8 ``[H, W, 3]``, grey) or a Pillow image.

        ``keep_pixels`` leaves the decoded picture in the reading. Raises an ``ImageError`` that names what is wrong
        with the picture.
        """
        return self.classify([self.prepare(image, keep_pixels=keep_pixels)])[0]

    def read_many(
        self, images: Iterable[Source], *, batch: int = 64, keep_pixels: bool = False
    ) -> Generator[Reading, None, None]:
        """Read pictures in their order, one ``Reading`` each; the faces of several are classified together.

        Lazy: at most about ``batch`` pictures (or the pictures of ``batch`` faces) are taken from ``images`` before
        their readings are given out; with ``batch=1`` each is given out at once. Pictures are decoded ahead on as many
        threads as the reader has. A picture that cannot be read gives a reading whose ``error`` says why; every other
        error, also one of ``images`` itself, is raised. Closing the generator stops the threads.
        """
        if batch < 1:
            raise MienError(f"batch counts from 1, not {batch}")
        return self._read_batches(images, batch, keep_pixels)

    def prepare(self, image: Source, *, keep_pixels: bool = False) -> Prepared:
        """The first half of ``read``: decode the picture, find its faces, cut their crops.

        For programs that batch the second half, ``classify``, in their own way. Raises an ``ImageError`` as ``read``.
        """
        picture = decode(image, **self._limits)
        pixels = picture.pixels
        height, width = pixels.shape[:2]
        detections = self.detector(pixels)
        crops, to_image = extract(pixels, detections, size=self.model.size, framing=self.model.framing)
        reading = Reading((), picture.source, (width, height), picture.note, pixels=pixels if keep_pixels else None)
        return Prepared(reading, detections, crops, to_image)

    def classify(self, prepared: Sequence[Prepared]) -> list[Reading]:
        """The second half of ``read``: the faces of all these pictures in one batch, a reading for each picture."""
        if not prepared:
            return []
        probs, maps = self.model(np.concatenate([picture.crops for picture in prepared]))
        answers = zip(probs, maps, strict=True)
        return [self._complete(picture, answers) for picture in prepared]

    def read_at(self, pixels: NDArray[np.uint8], detections: Sequence[Detection]) -> tuple[Face, ...]:
        """Read the faces of an RGB uint8 ``[H, W, 3]`` picture where ``detections`` say they are, in that order."""
        crops, to_image = extract(pixels, detections, size=self.model.size, framing=self.model.framing)
        answers = zip(detections, crops, to_image, *self.model(crops), strict=True)
        return tuple(self._face(*answer) for answer in answers)

    def describe(self) -> dict[str, str]:
        """Describe the model and the detector for people, as ``Html`` shows them.

        Returns:
            Terms and texts in the order to show them: model, emotions, measured metrics, detector, recipe, commit,
            licence. A term that the model's file does not state is left out.
        """
        metadata = self.model.metadata
        facts = {
            "model": f"{metadata['name']} ({metadata['precision']})",
            "emotions": ", ".join(self.model.emotions),
            **_measured(metadata["accuracy"]),
            "detector": self._detector_name,
            "recipe": metadata["recipe"],
            "commit": metadata["commit"][:12],
            "licence": metadata["licence"],
        }
        return {term: text for term, text in facts.items() if text}

    def __repr__(self) -> str:
        precision = self.model.metadata["precision"]
        return f"Reader({self.model.name}, {precision}, detector={self._detector_name}, abstain={self.abstain})"

    @property
    def _detector_name(self) -> str:
        return getattr(self.detector, "name", type(self.detector).__name__)

    def _read_batches(self, images: Iterable[Source], batch: int, keep: bool) -> Generator[Reading, None, None]:
        pending: list[Prepared] = []
        faces = kept_bytes = 0
        prepared_ahead = self._prepare_ahead(images, batch, keep)
        try:
            for prepared in prepared_ahead:
                pending.append(prepared)
                faces += len(prepared.detections)
                kept_bytes += 0 if prepared.reading.pixels is None else prepared.reading.pixels.nbytes
                if max(len(pending), faces) >= batch or kept_bytes >= _MOST_KEPT_BYTES:
                    yield from self.classify(pending)
                    pending, faces, kept_bytes = [], 0, 0
            yield from self.classify(pending)
        finally:
            prepared_ahead.close()

    def _prepare_ahead(self, images: Iterable[Source], batch: int, keep: bool) -> Generator[Prepared, None, None]:
        """Prepared pictures in order. The window of running threads is short: it bounds the memory."""
        if self._workers == 1:
            yield from (self._prepare_safely(image, keep) for image in images)
            return
        window = min(2 * self._workers, batch)
        running: deque[Future[Prepared]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mien-decode")
        try:
            for image in images:
                running.append(pool.submit(self._prepare_safely, image, keep))
                if len(running) >= window:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare_safely(self, image: Source, keep: bool) -> Prepared:
        try:
            return self.prepare(image, keep_pixels=keep)
        except ImageError as error:
            size = self.model.size
            reading = Reading(faces=(), source=name_of(image), size_wh=(0, 0), error=" ".join(str(error).split()))
            return Prepared(reading, (), np.empty((0, size, size), np.uint8), np.empty((0, 2, 3)))

    def _complete(self, prepared: Prepared, answers: Iterator[tuple[Any, Any]]) -> Reading:
        found = zip(prepared.detections, prepared.crops, prepared.to_image, strict=True)
        # `answers` runs on through the batch: each picture takes as many as it has faces.
        faces = [self._face(detection, crop, matrix, *next(answers)) for detection, crop, matrix in found]
        return replace(prepared.reading, faces=tuple(faces))

    def _face(
        self,
        detection: Detection,
        crop: NDArray[np.uint8],
        to_image: NDArray[np.float64],
        probs: NDArray[np.float32],
        maps: NDArray[np.float32],
    ) -> Face:
        emotions = self.model.emotions
        best = int(probs.argmax())
        confidence = float(probs[best])
        return Face(
            box=detection.box,
            score=detection.score,
            points=detection.points,
            emotion=emotions[best] if confidence >= self.abstain else None,
            confidence=confidence,
            probs=dict(zip(emotions, probs.tolist(), strict=True)),
            maps=_own(maps),
            crop=_own(crop),
            to_image=_own(to_image),
        )


def _measured(text: str) -> dict[str, str]:
    """The metrics in a model file's metadata, by name; none where the text is not a JSON object of numbers."""
    try:
        values = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    known = {key: values[key] for key in METRICS if isinstance(values.get(key), int | float)}
    shown = {metric_name(key): format_metric(key, value) for key, value in known.items()}
    return {"measured on": str(values.get("split", "an unnamed split")), **shown} if shown else {}


def _own(view: NDArray[Any]) -> NDArray[Any]:
    """A read-only copy: a face that is kept must not keep the arrays of its whole batch."""
    copied = view.copy()
    copied.flags.writeable = False
    return copied
