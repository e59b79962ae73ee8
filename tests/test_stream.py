"""The tracker on pictures with faces that move: who is who, what is smoothed, what is searched."""

import numpy as np
import pytest

from mien import Box, ImageError, MienError
from mien._face import Detection
from mien.pipeline import Reader
from mien.stream import Tracker
from mien.stream.follow import center_of, overlap_of
from support.tracker_steps import Pixels, ids, step_through
from support.videos import head_of, walk


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def head(astronaut: Pixels) -> Pixels:
    return head_of(astronaut)


@pytest.mark.parametrize("every", [1, 3, 8])
def test_a_face_that_walks_keeps_its_id_and_its_box(reader: Reader, head: Pixels, every: int) -> None:
    places = [(20 + 6 * i, 60 + round(15 * np.sin(i / 4))) for i in range(36)]
    moments = step_through(Tracker(reader, every=every), walk(head, places))
    assert set(ids(moments)) == {(1,)}
    assert [moment.index for moment in moments] == list(range(36))
    truth = Tracker(reader, every=1).step(walk(head, [places[0]])[0], 0.0).faces[0].box
    for moment, (x, y) in zip(moments, places, strict=True):
        face = moment.faces[0]
        wanted = center_of(Box(*(v + d for v, d in zip(truth, (x - 20, y - 60) * 2, strict=True))))
        assert np.hypot(*np.subtract(center_of(face.box), wanted)) < 0.12 * truth.width
        assert face.seen
        assert sum(face.probs.values()) == pytest.approx(1)
        assert sum(face.face.probs.values()) == pytest.approx(1, abs=1e-4)
        assert face.confidence == max(face.probs.values())
        assert face.emotion == face.top
        assert face.face.crop.shape == (48, 48)
    assert moments[-1].size_wh == (480, 270)


def test_smoothing_calms_the_readings_and_keeps_the_raw_ones(reader: Reader, head: Pixels) -> None:
    generator = np.random.default_rng(0)
    frames = walk(head, [(100, 60)] * 30)
    spoilt = [np.clip(f + generator.normal(0, 25, f.shape), 0, 255).astype(np.uint8) for f in frames]
    smooth, raw = (step_through(Tracker(reader, smooth=s), spoilt) for s in (0.5, 0.0))

    def restlessness(values: list[list[float]]) -> float:
        return float(np.abs(np.diff(np.array(values), axis=0)).sum(axis=1).mean() / 2)

    smoothed = [list(m.faces[0].probs.values()) for m in smooth]
    kept = [list(m.faces[0].face.probs.values()) for m in smooth]
    assert kept == [list(m.faces[0].face.probs.values()) for m in raw], "smoothing does not touch the raw readings"
    assert [list(m.faces[0].probs.values()) for m in raw] == kept, "a time constant of 0 shows them"
    assert restlessness(smoothed) < 0.3 * restlessness(kept)


def test_who_leaves_is_missed_and_who_comes_back_late_is_new(reader: Reader, head: Pixels) -> None:
    there, gone = walk(head, [(100, 60)])[0], walk(head, [(900, 60)])[0]
    moments = step_through(Tracker(reader, forget=0.5), [there] * 5 + [gone] * 8 + [there] * 5 + [gone] * 20 + [there])
    assert ids(moments[:5]) == [(1,)] * 5
    held = [moment.faces for moment in moments[5:13]]
    assert [len(faces) for faces in held] == [1] * 5 + [0] * 3, "0.2 s at 25 frames a second"
    assert not any(face.seen for faces in held for face in faces)
    assert (1,) in ids(moments[13:17]), "found again within its time"
    assert ids(moments)[-1] in ((), (2,)), "given up by now; a new face is searched on every third frame"
    later = step_through(Tracker(reader, forget=0.5), [there] * 3 + [gone] * 20 + [there] * 4)
    assert ids(later)[-1] == (2,)


class Plain:
    """A detector of somebody's own: it finds faces in pictures and can do nothing else, not even tell its name."""

    def __init__(self, reader: Reader) -> None:
        self.find, self.seen = reader.detector, list[tuple[int, ...]]()

    def __call__(self, pixels: Pixels) -> list[Detection]:
        self.seen.append(pixels.shape)
        return self.find(pixels)


def test_a_detector_of_ones_own_looks_into_cut_outs(reader: Reader, head: Pixels) -> None:
    own = Plain(reader)
    moments = step_through(Tracker(Reader(detector=own), every=5), walk(head, [(20 + 8 * i, 60) for i in range(20)]))
    assert set(ids(moments)) == {(1,)}
    assert own.seen.count((270, 480, 3)) == 4
    assert max(shape[1] for shape in own.seen if shape != (270, 480, 3)) < 200
    way = moments[-1].faces[0].face.box.x1 - moments[0].faces[0].face.box.x1
    assert way == pytest.approx(8 * 19, abs=8)


def test_a_look_sees_what_a_search_sees_also_at_the_edges(reader: Reader, head: Pixels) -> None:
    near = reader.detector.near  # type: ignore[attr-defined]
    for place in ((100, 60), (-20, -10), (360, 150)):
        frame = walk(head, [place])[0]
        (found,) = reader.detector(frame)
        shifted = Box(*(v + 0.3 * found.box.width for v in found.box))
        (looked,) = near(frame, shifted)
        assert overlap_of(found.box, looked.box) > 0.75
        assert np.hypot(*np.subtract(looked.points.right_eye, found.points.right_eye)) < 0.1 * found.box.width
    for beyond in (Box(-500, -500, -400, -400), Box(900, 50, 1000, 150), Box(5, 5, 5, 5)):
        assert near(frame, beyond) == []


def test_two_faces_keep_their_ids_in_any_order_of_size(reader: Reader, astronaut: Pixels) -> None:
    near, far = head_of(astronaut, 150), head_of(astronaut, 90)
    left = walk(near, [(10 + 2 * i, 50) for i in range(20)])
    frames = []
    for i, frame in enumerate(left):
        both = frame.copy()
        both[80:170, 360 - 2 * i : 450 - 2 * i] = far
        frames.append(both)
    moments = step_through(Tracker(reader), frames)
    assert set(ids(moments)) == {(1, 2)}
    first, second = moments[-1].faces
    assert first.box.width > second.box.width
    assert first.box.x1 < second.box.x1


def test_fifty_faces_are_followed(reader: Reader, astronaut: Pixels) -> None:
    head = head_of(astronaut, 110)
    frames = []
    for shift in (0, 3, 6, 9):
        frame = np.full((720, 1280, 3), 90, np.uint8)
        for row in range(5):
            for column in range(10):
                y, x = 25 + 138 * row, 5 + shift + 126 * column
                frame[y : y + 110, x : x + 110] = head
        frames.append(frame)
    moments = step_through(Tracker(reader), frames)
    assert [len(moment.faces) for moment in moments] == [50] * 4
    assert set(ids(moments)) == {tuple(range(1, 51))}
    for number in range(50):
        way = center_of(moments[-1].faces[number].face.box)[0] - center_of(moments[0].faces[number].face.box)[0]
        assert way == pytest.approx(9, abs=3)


def test_no_face_in_the_whole_film_is_no_failure(reader: Reader) -> None:
    moments = step_through(Tracker(reader), [np.full((90, 120, 3), 80, np.uint8)] * 5)
    assert ids(moments) == [()] * 5
    assert moments[0].to_dict() == {"frame": 0, "seconds": 0.0, "faces": []}


def test_without_a_detector_each_frame_is_one_face(head: Pixels) -> None:
    moments = step_through(Tracker(Reader(detector="none"), every=5), [head] * 7)
    assert set(ids(moments)) == {(1,)}
    assert moments[-1].faces[0].face.box == Box(0, 0, 150, 150)


def test_unsure_is_said_of_the_smoothed_reading(head: Pixels) -> None:
    moment = step_through(Tracker(Reader(abstain=1.0)), walk(head, [(100, 60)]))[0]
    assert moment.faces[0].emotion is None
    assert moment.to_dict()["faces"][0]["emotion"] is None
    assert "unsure" in repr(moment)


def test_a_frame_of_another_size_starts_anew(reader: Reader, head: Pixels) -> None:
    tracker = Tracker(reader)
    one = step_through(tracker, walk(head, [(100, 60)] * 3))
    other = step_through(tracker, walk(head, [(100, 60)] * 3, size_wh=(400, 300)), start=3)
    assert (ids(one)[-1], ids(other)[0]) == ((1,), (2,))
    assert other[0].size_wh == (400, 300)


def test_what_the_tracker_refuses(reader: Reader) -> None:
    for wrong in ({"every": 0}, {"smooth": -1.0}, {"forget": float("nan")}):
        with pytest.raises(MienError):
            Tracker(reader, **wrong)  # type: ignore[arg-type]
    tracker, frame = Tracker(reader), np.zeros((40, 40, 3), np.uint8)
    tracker.step(frame, 1.0)
    tracker.step(frame, 1.0)
    with pytest.raises(MienError, match="frames come in their order"):
        tracker.step(frame, 0.5)
    for wrong_frame in (frame[..., 0], frame.astype(np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ImageError, match="a frame is RGB uint8"):
            tracker.step(wrong_frame, 2.0)
