"""Reader: decode, detect, extract and infer, for one image or for batches of many."""

import os
import pickle
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._errors import ImageError, MienError, first_line, require_integer, require_kind, require_number
from mien._face import Detection, Face, Pixels, Reading, crop_side
from mien._format import percent
from mien._metrics import METRICS, format_metric, metric_name
from mien._ordered import in_order, until_error
from mien._signals import interruptible
from mien._workers import EndedError, ReaderPool, Send, serve
from mien.bundled import DEFAULT_MODEL
from mien.decode import (
    MAX_BYTES,
    MAX_PIXELS,
    DecodedImage,
    Source,
    decode,
    decode_half,
    is_single_image,
    name_of,
    read_bytes,
)
from mien.detect import MAX_FACES, Detector, from_detections, open_detector
from mien.extract import extract
from mien.infer import Classifier, find_model

# Images decoded at the same time: a photograph of 12 megapixels takes 36 MB, and its tiles take as much again.
_MAX_WORKERS = 8
# Bytes of kept pixels at which a batch ends early, so that 64 large photographs do not fill the memory.
_MAX_KEPT_BYTES = 256 * 2**20
_MOST_PROCESSES = 1024
# Images whose faces another process classifies together. A crop took 4.1 ms alone, 3.4 ms among 8 or 64.
_TOGETHER = 8
_CARD = "card"  # as abstain: the thresholds of the model's card


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image between ``Reader.prepare`` and ``Reader.classify``.

    Attributes:
        reading: The reading so far, without faces.
        detections: The N faces that the detector found.
        crops: One grey crop for each detection, uint8 ``[N, S, S]``.
        to_image: The transform of each crop to the image, float64 ``[N, 2, 3]``, as ``mien.extract`` returns it.
    """

    reading: Reading
    detections: Sequence[Detection]
    crops: NDArray[np.uint8]
    to_image: NDArray[np.float64]


_Held = Source | Prepared  # an image that is safe to read later, or the reading with its error


class Reader:
    """Reads faces in images. It opens its models once; threads may share a reader.

    Attributes:
        model: The classifier, a ``mien.infer.Classifier``.
        detector: The detector.
        abstain: Probability from 0 to 1 below which a face gets no emotion, or ``"card"``.
        min_quality: Quality from 0 to 1 below which a face is left out.
        max_faces: The largest number of faces that are read in an image.
        max_bytes: The largest size of an encoded image, in bytes.

    Example:
        >>> import numpy as np
        >>> from mien import Reader
        >>> reader = Reader()
        >>> reading = reader.read(np.zeros((120, 160, 3), np.uint8))
        >>> reading.size_wh, reading.faces
        ((160, 120), ())
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        *,
        detector: str | Detector = "blazeface",
        precision: str = "int8",
        threads: int = 1,
        providers: Sequence[str] = ("cpu",),
        abstain: float | str = 0.0,
        min_quality: float = 0.0,
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_faces: int = MAX_FACES,
    ) -> None:
        """Open the classifier and the detector.

        Args:
            model: The name of an embedded model, or the path of an ONNX file that follows mien's contract.
            detector: ``"blazeface"``, ``"yunet"``, ``"none"`` (each image is one tight crop of a face), or an object
                that follows the protocol ``mien.detect.Detector``.
            precision: The file of an embedded model to use, ``"int8"`` or ``"fp32"``.
            threads: How many images ``read_many`` prepares at once, and how many threads classify a batch. 0 uses all
                cores.
            providers: Execution providers of ONNX Runtime, first choice first: ``"cpu"``, ``"cuda"``, ``"coreml"``,
                ``"openvino"``, ``"directml"``.
            abstain: Probability from 0 to 1. A face whose highest probability is below it gets the emotion ``None``.
                The default 0 names an emotion for every face. ``"card"``: the threshold in the model's card for faces
                of this size, from which on 75 % of the answers for PublicTest are right; the commands use it.
            min_quality: Score of ``Face.quality`` from 0 to 1. ``read``, ``read_many`` and trackers leave out the faces
                below it; a note of the reading has their number.
            max_bytes: The largest size of an encoded image, in bytes.
            max_pixels: The largest number of pixels (width times height) of an image.
            max_faces: The largest number of faces that are read in an image, the most certain ones. A note of the
                reading says so where there are more.

        Raises:
            ModelError: A model, detector or provider is unknown, missing or damaged.
            DownloadError: The detector's file cannot be downloaded.
            MienError: ``abstain``, ``threads`` or a limit is out of range.
        """
        if not isinstance(abstain, str) or abstain != _CARD:
            require_number("abstain", abstain, lowest=0, highest=1)
        require_number("min_quality", min_quality, lowest=0, highest=1)
        require_integer("threads", threads, lowest=0)
        require_integer("max_bytes", max_bytes, lowest=1)
        require_integer("max_pixels", max_pixels, lowest=1)
        require_integer("max_faces", max_faces, lowest=1)
        if not isinstance(detector, str) and not callable(detector):
            raise MienError(f"a {type(detector).__name__} is no detector; give a name or a mien.detect.Detector")
        self.model = Classifier(find_model(model, precision=precision), threads=threads, providers=providers)
        # One thread for each image: a second one makes a single image no faster, and many are prepared in parallel.
        if isinstance(detector, str):  # with one face more than are read, to know that there are more
            detector = open_detector(detector, providers=providers, max_faces=max_faces + 1)
        self.detector = detector
        self.abstain, self.min_quality = abstain, min_quality
        self._thresholds = self.model.unsure_below if abstain == _CARD else {1.0: float(abstain)}
        self._curve = np.array(list(self._thresholds)), np.array(list(self._thresholds.values()))
        self._workers = min(threads or os.cpu_count() or 1, _MAX_WORKERS)
        self._limits: dict[str, Any] = {"max_bytes": max_bytes, "max_pixels": max_pixels}
        self.max_faces, self.max_bytes = max_faces, max_bytes

    def read(self, image: Source, *, keep_pixels: bool = False) -> Reading:
        """Read the faces of one image.

        Args:
            image: A path, bytes, a binary stream, a Pillow image, or an array: RGB uint8 ``[H, W, 3]`` or grey
                ``[H, W]``.
            keep_pixels: Whether to keep the decoded image in ``Reading.pixels``.

        Returns:
            The reading, with one ``Face`` for each detection, the largest first.

        Raises:
            ImageError: The image cannot be read; the message names the reason.

        Example:
            >>> from PIL import Image
            >>> reading = Reader(detector="none").read(Image.new("RGB", (64, 64)))
            >>> len(reading.faces)
            1
        """
        return self.classify([self.prepare(image, keep_pixels=keep_pixels)])[0]

    def read_many(
        self, images: Iterable[Source], *, batch: int = 64, keep_pixels: bool = False, workers: int = 1
    ) -> Generator[Reading, None, None]:
        """Read images in their order. The faces of several images are classified together.

        The generator is lazy: it takes about ``batch`` images (or the images of ``batch`` faces) from ``images`` before
        it yields their readings. The threads of the reader prepare images in advance, or other processes read them.
        Close the generator to stop them.

        Args:
            images: Images as ``read`` takes them. Arrays may change, and streams be closed, once the next is taken.
            batch: The number of images or faces after which a batch is classified, 1 or more. With 1, each reading is
                yielded as soon as it is complete.
            keep_pixels: Whether to keep the decoded images in ``Reading.pixels``.
            workers: Processes that read, one core each; 0: one for each core. They give the same readings, start
                within a second, and take about 100 MB each. With 1, this process reads, with the threads of the reader.

        Returns:
            A generator of one ``Reading`` for each image. If an image cannot be read, ``Reading.error`` is the reason.

        Raises:
            MienError: ``batch`` or ``workers`` is out of range, ``images`` is a single image, or the detector cannot be
                sent to other processes. The generator raises an error of ``images`` itself after the readings of those
                before it, and ``MienError`` when one of the other processes ends.

        Example:
            >>> import numpy as np
            >>> images = [np.zeros((64, 64, 3), np.uint8)] * 3
            >>> [len(reading.faces) for reading in Reader(detector="none").read_many(images)]
            [1, 1, 1]
        """
        require_integer("batch", batch, lowest=1)
        require_integer("workers", workers, lowest=0, highest=_MOST_PROCESSES)
        if is_single_image(images) or not isinstance(images, Iterable):
            kind = type(images).__name__
            raise MienError(f"read_many takes several images, not one {kind}; give a list of images, or call read")
        workers = workers or os.cpu_count() or 1
        if workers > 1:
            pool = ReaderPool(self, workers, f"{__name__}:serve_images")
            return until_error(images, lambda given: self._read_apart(given, batch, keep_pixels, pool, workers))
        return until_error(images, lambda given: self._read_batches(given, batch, keep_pixels))

    def prepare(self, image: Source, *, keep_pixels: bool = False) -> Prepared:
        """Decode an image, find its faces and cut their crops: the first half of ``read``.

        It is for programs that form their own batches for ``classify``, the second half.

        Args:
            image: An image as ``read`` takes it.
            keep_pixels: Whether to keep the decoded image in ``Reading.pixels``.

        Returns:
            The prepared image.

        Raises:
            ImageError: The image cannot be read.
        """
        if keep_pixels or not isinstance(self.detector, _CloseDetector):
            decoded = decode(image, **self._limits)
        else:
            decoded, is_half = decode_half(image, **self._limits)
            if is_half:
                prepared = self._prepare_half(decoded, self.detector)
                if prepared is not None:
                    return prepared
                decoded = decode(image, **self._limits)
        pixels = decoded.pixels
        height, width = pixels.shape[:2]
        detections, note = self.detector(pixels), decoded.note
        if len(detections) > self.max_faces:
            best = np.argsort([-detection.score for detection in detections], kind="stable")[: self.max_faces]
            detections = [detections[index] for index in np.sort(best)]
            limit = f"more than {self.max_faces:,} faces: the {self.max_faces:,} most certain were read"
            note = _joined(note, limit)
        crops, to_image = extract(pixels, detections, size=self.model.size, framing=self.model.framing)
        reading = Reading((), decoded.source, (width, height), note, pixels=pixels if keep_pixels else None)
        return Prepared(reading, detections, crops, to_image)

    def _prepare_half(self, half: DecodedImage, detector: "_CloseDetector") -> Prepared | None:
        """Prepare an image of which half of the rows and columns were read, if all of its faces are close."""
        found = detector.close_faces(half.pixels)
        if found is None or len(found) > self.max_faces:
            return None
        crops, to_half = extract(half.pixels, found, size=self.model.size, framing=self.model.framing)
        height, width = half.pixels.shape[:2]
        return Prepared(
            Reading((), half.source, (2 * width, 2 * height)), [each.scaled(2) for each in found], crops, 2 * to_half
        )

    def classify(self, prepared: Sequence[Prepared]) -> list[Reading]:
        """Classify the faces of prepared images in one batch: the second half of ``read``.

        Args:
            prepared: Images as ``prepare`` returns them.

        Returns:
            One reading for each image, in the same order.
        """
        require_kind("prepared", prepared, (list, tuple), "a list of what prepare returned")
        for each in prepared:
            require_kind("prepared", each, Prepared, "a list of what prepare returned")
        if not prepared:
            return []
        probs, maps = self.model(np.concatenate([image.crops for image in prepared]))
        outputs = zip(probs, maps, strict=True)
        readings = []
        for image in prepared:
            found = zip(image.detections, image.crops, image.to_image, strict=True)
            # `outputs` covers the whole batch: each image takes as many as it has faces.
            faces = tuple(self._face(*each, *next(outputs)) for each in found)
            readings.append(self._without_poor(replace(image.reading, faces=faces)))
        return readings

    def read_at(self, image: Source, detections: Any, *, keep_pixels: bool = False) -> Reading:
        """Read faces at known places, such as those of another detector. The reader's own detector does not run.

        A detection without key points is cut out as its box, stretched to a square. So its box should be tight: from
        the forehead to the chin, as in FER-2013. Key points make the reading more exact, because the face is turned
        upright and framed by them.

        Args:
            image: An image as ``read`` takes it.
            detections: Faces in pixels of the image, as ``mien.detect.from_detections`` takes them: a list of
                ``Detection``, boxes ``[N, 4]``, or an object such as ``supervision.Detections``.
            keep_pixels: Whether to keep the decoded image in ``Reading.pixels``.

        Returns:
            The reading, with one face for each detection, in the same order.

        Raises:
            ImageError: The image cannot be read.
            MienError: The detections have another form, or a box is empty or not finite.

        Example:
            >>> import mien
            >>> reading = mien.Reader().read_at(mien.example(), [[105, 60, 215, 190]])
            >>> len(reading)
            1
        """
        decoded, faces = decode(image, **self._limits), from_detections(detections)
        height, width = decoded.pixels.shape[:2]
        kept = decoded.pixels if keep_pixels else None
        return Reading(
            self.read_faces(decoded.pixels, faces), decoded.source, (width, height), decoded.note, pixels=kept
        )

    def read_faces(self, pixels: Pixels, detections: Sequence[Detection]) -> tuple[Face, ...]:
        """Read the faces of an image that is decoded and searched already: the end of ``read_at``, without its checks.

        Args:
            pixels: The image, RGB uint8 ``[H, W, 3]``.
            detections: The faces, in pixels of the image.

        Returns:
            One face for each detection, in the same order.

        Example:
            >>> import numpy as np
            >>> from mien import Box
            >>> from mien.detect import Detection
            >>> face = Detection(Box(10, 10, 50, 50), score=1.0, points=None)
            >>> len(Reader().read_faces(np.zeros((64, 64, 3), np.uint8), [face]))
            1
        """
        crops, to_image = extract(pixels, detections, size=self.model.size, framing=self.model.framing)
        outputs = zip(detections, crops, to_image, *self.model(crops), strict=True)
        return tuple(self._face(*output) for output in outputs)

    def threshold(self, size: float) -> float:
        """Return the probability below which a face gets no emotion.

        Args:
            size: Side of its crop in pixels of the image, as ``Face.quality`` has it.

        Returns:
            The threshold, 0..1, interpolated between the sizes in the model's card.

        Example:
            >>> Reader(abstain=0.5).threshold(48)
            0.5
        """
        require_number("size (pixels)", size, lowest=0, highest=1e9)
        return float(np.interp(size, *self._curve)) if self._thresholds else 0.0

    def describe(self) -> dict[str, str]:
        """Describe the model and the detector, as ``Html`` shows them.

        Returns:
            Terms and texts in the order to show them: model, emotions, measured metrics, detector, recipe, commit,
            licence. A term without a value in the model's file is left out.
        """
        metadata = self.model.metadata
        accuracy = self.model.accuracy
        known = {key: accuracy[key] for key in METRICS if isinstance(accuracy.get(key), int | float)}
        split = {"measured on": str(accuracy.get("split", "an unnamed split"))} if known else {}
        measured = {metric_name(key): format_metric(key, value) for key, value in known.items()}
        facts = {
            "model": f"{metadata['name']} ({metadata['precision']})",
            "emotions": ", ".join(self.model.emotions),
            **split,
            **measured,
            "unsure below": self._describe_thresholds(),
            "detector": self._detector_name,
            "recipe": metadata["recipe"],
            "commit": metadata["commit"][:12],
            "licence": metadata["licence"],
        }
        return {term: text for term, text in facts.items() if text}

    def __repr__(self) -> str:
        precision = self.model.metadata["precision"]
        return f"Reader({self.model.name}, {precision}, detector={self._detector_name}, abstain={self.abstain})"

    def _describe_thresholds(self) -> str:
        if self.abstain != _CARD or not self._thresholds:
            return percent(float(self.abstain), 0) if self.abstain not in (0, _CARD) else ""
        of_sizes = (f"{percent(value, 0)} at {side:.0f} px" for side, value in self._thresholds.items())
        return f"{', '.join(of_sizes)} (from there on, 75 % of the answers for PublicTest are right)"

    def _without_poor(self, reading: Reading) -> Reading:
        """Leave out the faces below ``min_quality``."""
        if self.min_quality == 0:
            return reading
        kept = tuple(face for face in reading.faces if face.quality.score >= self.min_quality)
        count = len(reading.faces) - len(kept)
        poor = f"{count} {'face' if count == 1 else 'faces'} of a quality below {self.min_quality:g} left out"
        return replace(reading, faces=kept, note=_joined(reading.note, poor if count else None))

    @property
    def _detector_name(self) -> str:
        return getattr(self.detector, "name", type(self.detector).__name__)

    def _read_batches(self, images: Iterable[Source], batch: int, keep: bool) -> Generator[Reading, None, None]:
        pending: list[Prepared] = []
        faces = kept_bytes = 0
        with closing(self._prepare_many(images, batch, keep)) as stream:
            try:
                for prepared in stream:
                    pending.append(prepared)
                    faces += len(prepared.detections)
                    kept_bytes += 0 if prepared.reading.pixels is None else prepared.reading.pixels.nbytes
                    if max(len(pending), faces) >= batch or kept_bytes >= _MAX_KEPT_BYTES:
                        readings = self.classify(pending)
                        pending, faces, kept_bytes = [], 0, 0  # before they are yielded: none is yielded again
                        yield from readings
            except KeyboardInterrupt:  # while an image was prepared; those before it are not lost
                yield from self.classify(pending)
                raise
            yield from self.classify(pending)

    def _prepare_many(self, images: Iterable[Source], batch: int, keep: bool) -> Generator[Prepared, None, None]:
        """Prepare images in order, on several threads."""
        if self._workers == 1:
            yield from (self._prepare_safely(image, keep) for image in images)
            return
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="mien-decode")
        prepare = partial(self._prepare_safely, keep=keep)
        yield from in_order(pool, prepare, map(self._held, images), min(2 * self._workers, batch))

    def _read_apart(
        self, images: Iterable[Source], batch: int, keep: bool, pool: ReaderPool, count: int
    ) -> Generator[Reading, None, None]:
        """Read images in other processes."""

        def read(together: list[_Held]) -> list[Reading]:
            readings = None
            try:
                question = pickle.dumps((together, keep))
            except Exception:  # of a path of an own class, each of which has an error of its own
                question = b""
            try:
                readings = pool.ask(question) if question else None
            except EndedError as error:
                names = " to ".join(dict.fromkeys((name_of(together[0]), name_of(together[-1]))))
                raise MienError(f"{names}: {error}; read with one process, or fewer images") from error
            return self._read_safely(together, keep) if readings is None else readings

        size = 1 if keep else max(1, min(_TOGETHER, batch // (2 * count)))
        with closing(in_order(pool, read, _together(map(self._held, images), size), min(2 * count, batch))) as groups:
            for group in groups:
                yield from group

    def _held(self, image: Source) -> _Held:
        """Copy an image whose owner may change or close it before it is read. An error becomes a reading."""
        try:
            if isinstance(image, np.ndarray | Image.Image):
                return decode(image, **self._limits)
            if hasattr(image, "read"):
                with interruptible():  # a pipe may never end
                    return _HeldStream(*read_bytes(image, self._limits["max_bytes"]))
        except ImageError as error:
            return self._unread(image, error)
        return bytes(image) if isinstance(image, bytearray | memoryview) else image

    @interruptible()
    def _prepare_safely(self, image: _Held, keep: bool) -> Prepared:
        try:
            return image if isinstance(image, Prepared) else self.prepare(image, keep_pixels=keep)
        except ImageError as error:
            return self._unread(image, error)

    def _unread(self, image: object, error: ImageError) -> Prepared:
        reading = Reading(faces=(), source=name_of(image), size_wh=(0, 0), error=str(error))
        size = self.model.size
        return Prepared(reading, (), np.empty((0, size, size), np.uint8), np.empty((0, 2, 3)))

    def _read_safely(self, images: Sequence[_Held], keep: bool) -> list[Reading]:
        return self.classify([self._prepare_safely(image, keep) for image in images])

    def _face(
        self,
        detection: Detection,
        crop: NDArray[np.uint8],
        to_image: NDArray[np.float64],
        probs: NDArray[np.float32],
        maps: NDArray[np.float32],
    ) -> Face:
        # Copies, because a view would keep the arrays of the whole batch in memory.
        maps, crop, to_image = maps.copy(), crop.copy(), to_image.copy()
        for array in (maps, crop, to_image):
            array.flags.writeable = False
        detection = detection.scaled(1)  # numbers of Python, which JSON takes; a detector may have those of numpy
        best = int(probs.argmax())
        confidence = float(probs[best])
        is_sure = self.abstain == 0 or confidence >= self.threshold(crop_side(to_image, len(crop)))
        emotion = self.model.emotions[best] if is_sure else None
        named = dict(zip(self.model.emotions, probs.tolist(), strict=True))
        return Face(detection.box, detection.score, detection.points, emotion, confidence, named, maps, crop, to_image)


class _HeldStream(BytesIO):
    """The content of a stream, and its name."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


@runtime_checkable
class _CloseDetector(Protocol):
    """A detector that knows when an image of half the size is enough."""

    def close_faces(self, pixels: Pixels) -> list[Detection] | None: ...


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _together(images: Iterable[_Held], size: int) -> Iterator[list[_Held]]:
    """Lists of ``size`` paths. What is in memory already is alone, so that few images are in memory at a time."""
    together: list[_Held] = []
    for image in images:
        together.append(image)
        if len(together) == size or not isinstance(image, str | os.PathLike):
            yield together
            together = []
    if together:
        yield together


def serve_images() -> None:
    """Read images in this process for ``Reader.read_many`` in another one."""
    serve(_answer)


def _answer(reader: Reader, question: bytes, send: Send) -> None:
    try:
        images, keep = pickle.loads(question)
    except Exception:  # of a class that is not known here
        send(None)
        return
    answer: object
    try:
        answer = reader._read_safely(images, keep)
    except MienError as error:
        answer = error
    except Exception as error:  # of a detector; the traceback is on standard error
        traceback.print_exc()
        answer = MienError(f"the reader failed ({type(error).__name__}: {first_line(error)}); mend its detector")
    send(answer)
