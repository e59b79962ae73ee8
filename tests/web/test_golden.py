"""The golden readings hold in Python; test_page.py checks them in the browser."""

import pytest

from mien.reader import Reader
from support.golden_readings import GOLDEN, TOOL, differ, golden_image


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize("name", GOLDEN)
def test_python_reads_the_golden_images(reader: Reader, name: str) -> None:
    faces = [TOOL.values(face) for face in reader.read(golden_image(name)).faces]
    difference = differ(GOLDEN[name]["faces"], faces)
    assert difference.probability <= 1e-2  # another processor's int8 kernels may round otherwise
    assert difference.pixels <= 0.5


def test_they_are_of_the_embedded_model(reader: Reader) -> None:
    import hashlib

    digest = hashlib.sha256(reader.model.path.read_bytes()).hexdigest()
    assert {golden["model_sha256"] for golden in GOLDEN.values()} == {digest}, "run tools/write_golden.py"


def test_the_golden_images_vary() -> None:
    counts = {name: len(golden["faces"]) for name, golden in GOLDEN.items()}
    assert counts.pop("no_face") == 0
    assert counts.pop("several") == 6
    assert set(counts.values()) == {1}
    assert len({max(f["probs"], key=f["probs"].get) for g in GOLDEN.values() for f in g["faces"]}) >= 2
