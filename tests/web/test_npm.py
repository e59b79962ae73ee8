"""The npm package: packed, served from the unpacked tarball, and used in Chromium."""

import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mien
from mien.bundled import DEFAULT_MODEL
from mien.reader import Reader
from support.browser import WEB, Visit, chromium, need_runtime, playing, serving
from support.golden_readings import TOOL, differ
from support.paths import ROOT

ASTRONAUT = ROOT / "examples" / "astronaut.png"
PAGE = '<!doctype html><link rel="icon" href="data:,"><title>A page that uses the package</title>'
# Reads an image as each kind of source, from a page outside of the package's folder.
USE = """async () => {
    const { COLORS, drawMap, Reader } = await import("./package/index.mjs");
    const reader = await Reader.open({ folder: "package" });
    const blob = await (await fetch("astronaut.png")).blob();
    const bitmap = await createImageBitmap(blob);
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const pixels = () => context.getImageData(0, 0, canvas.width, canvas.height);
    const before = pixels();
    const readings = await Promise.all([blob, bitmap, bitmap, before, canvas].map((source) => reader.read(source)));
    const [face] = readings[0].faces;
    reader.draw(context, readings[0]);
    drawMap(context, face, "sad");
    const after = pixels();
    const changed = before.data.filter((value, at) => value !== after.data[at]).length;
    const refused = await reader.read("astronaut.png").catch(String);
    const tracked = [await reader.track(bitmap, 0), await reader.track(canvas, 0.1)];
    const late = [await reader.track(bitmap, 0).catch(String), await reader.track(bitmap).catch(String)];
    await reader.reset();
    tracked.push(await reader.track(bitmap, 0));
    const large = new OffscreenCanvas(4000, 4000); // takes longer to decode than the next frame
    large.getContext("2d").drawImage(bitmap, 0, 0, 4000, 4000);
    const calls = [reader.track(await large.convertToBlob(), 9), reader.reset(), reader.track(bitmap, 0)];
    const order = [];
    await Promise.all(calls.map((call, index) => call.then(() => order.push(index))));
    late.push(await reader.track(bitmap, 1, { smooth: NaN }).catch(String));
    const pending = reader.read(blob).catch(String);
    reader.close();
    const ended = await reader.read(blob).catch(String);
    const wrong = await Reader.open({ abstain: 2 }).catch(String);
    const missing = await Reader.open({ folder: "elsewhere" }).catch(String);
    return {
        model: reader.model, readings, tracked, late, changed, refused, wrong, missing, ended, order,
        closed: await pending, colors: Object.keys(COLORS), size: [bitmap.width, bitmap.height],
    };
}"""


class Packed(NamedTuple):
    """The tarball, and a site with its content in ``package`` and the example image."""

    tarball: Path
    site: Path


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    need_runtime()
    if shutil.which("npm") is None:
        pytest.skip("npm, which packs the package, is not installed")
    made, site = tmp_path_factory.mktemp("npm"), tmp_path_factory.mktemp("site")
    done = subprocess.run(["node", WEB / "pack.mjs", made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tarball,) = made.glob("*.tgz")
    with tarfile.open(tarball) as archive:
        archive.extractall(site, filter="data")
    shutil.copy(ASTRONAUT, site)
    (site / "index.html").write_text(PAGE)
    return Packed(tarball, site)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playing() as player, chromium(player) as opened:
        yield opened


@pytest.fixture(scope="module")
def used(packed: Packed, browser: Any) -> dict[str, Any]:
    """What the package gives in a page."""
    with serving(packed.site) as address:
        visit = Visit(browser, address)
        result: dict[str, Any] = visit.page.evaluate(USE)
        visit.context.close()
        assert [text for text in visit.said if "404" not in text] == []  # of the folder that is missing
        assert visit.strayed == []
    return result


def test_it_reads_as_python_does(used: dict[str, Any]) -> None:
    wanted = [TOOL.values(face) for face in Reader().read(ASTRONAUT).faces]
    assert used["model"]["name"] == DEFAULT_MODEL
    assert len(used["readings"]) == 5
    for reading in used["readings"]:
        assert [reading["width"], reading["height"]] == used["size"] == [512, 512]
        difference = differ(wanted, reading["faces"])
        assert difference.probability <= 1e-2
        assert difference.pixels <= 1
        assert reading["faces"][0]["emotion"] == "happy"


def test_it_tracks_draws_and_closes(used: dict[str, Any]) -> None:
    assert [[face["id"] for face in reading["faces"]] for reading in used["tracked"]] == [[1], [1], [1]]
    assert used["late"][0].startswith(
        "RangeError: seconds is 0 after 0.1; give the time of the frame, and call reset()"
    )
    assert used["late"][1].startswith("RangeError: seconds is undefined")
    assert used["changed"] > 1000  # values of the canvas
    assert set(used["model"]["emotions"]) < set(used["colors"])
    assert used["refused"].startswith("TypeError: give a Blob")
    assert used["wrong"].startswith("RangeError: abstain is 2")
    assert "closed" in used["closed"]
    assert "closed" in used["ended"]
    assert used["order"] == [0, 1, 2]
    assert used["late"][2].startswith("RangeError: smooth is NaN")
    assert re.search("elsewhere/worker.mjs could not be started; check the address", used["missing"])


def test_the_types_have_the_fields_that_are_there(used: dict[str, Any]) -> None:
    declared = {
        name: set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE))
        for name, body in re.findall(r"^export interface (\w+).*?\{\n(.*?)^\}", types(), re.MULTILINE | re.DOTALL)
    }
    reading, tracked = used["readings"][0], used["tracked"][0]
    (face,) = reading["faces"]
    there = {
        "Model": used["model"],
        "Reading": reading,
        "Face": face,
        "Quality": face["quality"],
        "Points": face["points"],
        "Maps": face["maps"],
    }
    assert {name: declared[name] for name in there} == {name: set(value) for name, value in there.items()}
    assert declared["Face"] | declared["TrackedFace"] == set(tracked["faces"][0])
    assert set(tracked) == declared["Reading"]


def test_node_is_told_that_it_needs_a_browser(packed: Packed) -> None:
    script = (
        'const { Reader } = await import("./package/index.mjs"); await Reader.open().catch((e) => console.log(`${e}`));'
    )
    command = ["node", "--input-type=module", "-e", script]
    done = subprocess.run(command, cwd=packed.site, capture_output=True, text=True, check=True)
    assert "browsers only" in done.stdout


def types() -> str:
    return (WEB / "npm" / "index.d.ts").read_text()


def test_the_example_page_reads_an_image(packed: Packed, browser: Any) -> None:
    assert len((packed.site / "package" / "example.html").read_text().splitlines()) <= 20
    with serving(packed.site / "package") as address:
        visit = Visit(browser, f"{address}example.html")
        visit.page.locator("pre", has_text="Choose an image.").wait_for()
        visit.page.set_input_files("input", str(ASTRONAUT))
        visit.page.locator("pre", has_text="happy").wait_for()
        visit.context.close()
        assert visit.said == []


def test_it_names_its_size_and_carries_the_licences(packed: Packed) -> None:
    package = packed.site / "package"
    sizes = [file.stat().st_size for file in package.rglob("*") if file.is_file()]
    readme = (package / "README.md").read_text()
    ((download, files),) = re.findall(r"([\d.]+) MB to download from the registry, ([\d.]+) MB of files", readme)
    assert float(download) == pytest.approx(packed.tarball.stat().st_size / 1e6, abs=0.051)
    assert float(files) == pytest.approx(sum(sizes) / 1e6, abs=0.051)
    assert json.loads((package / "package.json").read_text())["version"] == mien.__version__
    assert "{{" not in readme + (package / "NOTICE").read_text()
    assert "MIT License" in (package / "runtime" / "LICENSE").read_text()
    for name in ("LICENSE", f"models/{DEFAULT_MODEL}.LICENSE", "models/blazeface-short-range.LICENSE"):
        assert "Apache License" in (package / name).read_text()
    assert (package / "models" / "blazeface-short-range.NOTICE").is_file()
