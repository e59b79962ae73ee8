"""Recipes and adapters that ask for too much, or that chance has changed, are refused in one short line."""

import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._errors import DataError, MienError, ModelError, RecipeError
from mien.lab import recipe as recipes
from mien.lab.data.selection import read_exclude
from mien.lab.models import read_adapter
from mien.lab.recipe.load import as_toml
from mien.lab.search.space import read_space
from mien.lab.train.run import build_net
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny

ADAPTER = 'model = "m.onnx"\nlabels = ["angry", "happy"]\nsize = 48\n'


def refusal(text: str, path: Path) -> str:
    """What is said when a recipe of this text is loaded and its net is built."""
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        build_net(recipes.load(str(path)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("data.size = 100000", "data.size is in [8, 1024], not 100000"),
        ("data.oversample = {fear = 1e300}", "oversample: fear is a finite number up to 1e+30, not 1e+300"),
        ("data.oversample = {fear = 1e9}", "data.oversample.fear is in [0, 1000], not 1000000000.0"),
        ("minority.oversample = 1e9", "minority.oversample is in [0, 1000]"),
        ("data.expand = 1e9", "data.expand is in [0, 100]"),
        ("train.epochs = 1000000000000", "train.epochs is in [1, 1000000], not 1000000000000"),
        ("train.epochs = " + "9" * 4000, "a number of 13,288 bits"),
        ("train.epochs = " + "9" * 5000, "not valid TOML: Exceeds the limit"),
        ("train.lr = 1" + "0" * 400, "is a finite number up to 1e+30"),
        ("augment.blur = 1e20", "augment.blur is in [0, 100]"),
        ("net.options.depths = [-1, 2, 2]", "net 'mien': depths is from 0 to 256, not -1"),
        ("net.options.depths = [100000, 2, 2]", "net 'mien': depths is from 0 to 256, not 100000"),
        ("net.options.widths = [100000, 2, 2]", "net 'mien': widths is from 1 to 16384"),
        ("net.options.widths = [16384, 16384, 16384]", "parameters, more than 1,000,000,000; lower its options"),
        ("net.options.stem = " + "[" * 30 + "]" * 30, "stem is nested too deeply"),
        ("net.options.stem = " + "[" * 9000 + "]" * 9000, "not valid TOML"),
        ('about = "' + "x" * 20000 + '"', "about has 20,000 items or characters, more than 10,000"),
        ('about = "' + "x" * 2**21 + '"', "cannot be read (it has more than 1 MB)"),
        ("phases = [" + "{}," * 101 + "]", "phases is at most 100, not 101"),
        ("k" * 5000 + " = 1", "unknown key 'kkk"),
        ("train.lr = [" + "1," * 3000 + "]", "lr is of type float, not [1, 1"),
    ],
    ids=lambda text: text[:40],
)
def test_a_recipe_that_asks_for_too_much(line: str, says: str, tmp_path: Path) -> None:
    about = "" if line.startswith("about") else 'about = "x"\n'
    said = refusal(f'name = "x"\n{about}{line}\n', tmp_path / "x.toml")
    assert says in said
    assert "\n" not in said
    assert len(said) < 500 + len(str(tmp_path))


def test_a_grid_of_a_thousand_million_members(tmp_path: Path) -> None:
    values = "".join(f'[grid.a{axis}.v{value}]\n"seed" = {value}\n' for axis in range(9) for value in range(10))
    path = tmp_path / "grid.toml"
    path.write_text(f'name = "x"\nabout = "x"\n{values}')
    with pytest.raises(RecipeError, match="its grid has 1,000,000,000 members, more than 1,000"):
        recipes.members(str(path))


def test_a_search_with_too_many_choices(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text(f'name = "x"\nabout = "x"\n[search]\n"seed" = {list(range(1000))}\n')
    with pytest.raises(RecipeError, match="has 1,000 choices, more than 100"):
        read_space(str(path))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no endless file")
def test_an_endless_exclude_file() -> None:
    with pytest.raises(DataError, match=r"data\.exclude cannot be read \(it has more than 64 MB\)"):
        read_exclude(Path("/dev/zero"), cartoon_set(per_split=(7, 7, 7)))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("size = 100000", "size is a whole number from 1 to 1024, not 100000"),
        ("size = " + "9" * 4000, "size is a whole number from 1 to 1024, not 999"),
        ("size = " + "9" * 5000, "cannot be read as TOML (Exceeds the limit"),
        ("batch = 1000\nsize = 1024", "batch (1000) of faces of 1024 pixels needs GB; lower it"),
        ("mean = 1e300", "mean is a number up to 1e6"),
        ("std = 1e-300", "std is a number up to 1e6, or 1 of them (std not 0)"),
        ("std = nan", "std is a number up to 1e6"),
        ("mean = " + "[" * 9000 + "]" * 9000, "cannot be read as TOML"),
        ("model = 5", "model is a text of at most 1000 characters, not 5"),
        ('name = "' + "x" * 5000 + '"', "name is a text of at most 1000 characters, not 'xxx"),
        ('name = "a\\nb"', "name is a text of at most"),
        ("labels = [" + '"angry",' * 2000 + "]", "labels is a list of up to 1000 names"),
        ("k" * 5000 + " = 1", "unknown key 'kkk"),
    ],
    ids=lambda text: text[:40],
)
def test_an_adapter_that_asks_for_too_much(line: str, says: str, tmp_path: Path) -> None:
    key = {each.split(" = ")[0] for each in line.splitlines()}
    lines = [each for each in ADAPTER.splitlines() if each.split(" = ")[0] not in key]
    path = tmp_path / "adapter.toml"
    path.write_text("\n".join([*lines, line]))
    with pytest.raises(ModelError) as caught:
        read_adapter(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def fuzz(path: Path, *, count: int, seed: int) -> None:
    """Change lines and characters of a recipe and an adapter: each is read, or refused in one short line."""
    generator = random.Random(seed)
    numbers = ["1e300", "-1", "nan", "inf", "9" * 400, "[]", "{}", '""', "true", "[[[1]]]", "1e9", "0", "1979-05-27"]
    texts = {recipes.load: as_toml(tiny(), whole=True), read_adapter: ADAPTER + "mean = 0.5\nbatch = 8\n"}
    for _ in range(count):
        read = generator.choice(list(texts))
        lines = texts[read].splitlines()
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(lines))
            key, sign, value = lines[at].partition(" = ")
            changed = list(value or key)
            changed.insert(generator.randrange(len(changed) + 1), chr(generator.randrange(32, 1000)))
            lines[at] = f"{key}{sign}{generator.choice([*numbers, ''.join(changed)])}" if sign else "".join(changed)
        path.write_text("\n".join(lines), "utf-8")
        said = ""
        try:
            read(path if read is read_adapter else str(path))
        except MienError as error:
            said = str(error)
        assert "\n" not in said, lines
        assert len(said) < 600 + len(str(path)), said


def test_changed_recipes_and_adapters(tmp_path: Path) -> None:
    fuzz(tmp_path / "x.toml", count=150, seed=0)


@pytest.mark.release
def test_thousands_of_changed_recipes_and_adapters(tmp_path: Path) -> None:
    fuzz(tmp_path / "x.toml", count=20_000, seed=1)
