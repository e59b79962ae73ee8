"""The section that says which differences are noise."""

from mien.lab.compare import words
from mien.lab.compare.compare import Comparison
from mien.lab.compare.pairs import ALPHA, Pair
from mien.lab.page import details, paragraph, section, table
from mien.lab.page.blocks import Section
from mien.lab.page.words import p_value, points

# Points of difference that get the full colour.
_FULL = 0.2
_FIGURES = {"accuracy": "Accuracy", "macro_f1": "Macro F1"}


def noise_section(comparison: Comparison) -> Section:
    """Matrices in words and colour, sentences, and every test with its numbers."""
    blocks = [
        paragraph(
            "Every pair is tested on the same faces. Noise: a difference that the choice of these faces may have made "
            f"(p of at least {ALPHA} once corrected for {len(comparison.pairs)} pairs). Else a cell says by how many "
            "points the model of its row is better or worse than that of its column; the stronger the colour, the more."
        )
    ]
    for key, name in _FIGURES.items():
        blocks += [f"<h3>{name}</h3>", _matrix(comparison, key)]
    sentences = "".join(paragraph(text) for text in words.differences_in_words(comparison, "accuracy"))
    blocks.append(details("The differences in accuracy in sentences", sentences))
    blocks.append(details(f"All {len(comparison.pairs)} tests with their numbers", _tests(comparison)))
    blocks.append(
        paragraph(
            "That the faces were drawn by chance is in these tests. That another seed would have trained another net "
            "is not: train several seeds and name them all."
        )
    )
    return section("Which differences are noise", *blocks)


def _matrix(comparison: Comparison, key: str) -> str:
    order = words.ranking(comparison)
    rows, shade = [], []
    for number, place in enumerate(order, 1):
        cells = [_cell(comparison, place, other, key) for other in order]
        rows.append([f"{number} {comparison.contenders[place].name}", *(text for text, _ in cells)])
        shade.append([strength for _, strength in cells])
    return table(["row against column", *(str(number) for number, _ in enumerate(order, 1))], rows, shade=shade)


def _cell(comparison: Comparison, place: int, other: int, key: str) -> tuple[str, float | None]:
    if place == other:
        return "·", None
    pair, sign = comparison.pair(place, other)
    found, differs = words.told(pair, key)
    if not differs:
        return "noise", None
    value = sign * found.value
    return f"{'better' if value > 0 else 'worse'} {points(value)}", min(1.0, 0.15 + abs(value) / _FULL)


def _tests(comparison: Comparison) -> str:
    header = ["first", "second", "faces", "first alone", "second alone", "accuracy", "95 % interval", "p", "corrected"]
    header += ["macro F1", "95 % interval", "p", "corrected", "verdict"]
    return table(header, [_test(comparison, pair) for pair in comparison.pairs])


def _test(comparison: Comparison, pair: Pair) -> list[str]:
    first, second = (comparison.contenders[place].name for place in (pair.first, pair.second))
    accuracy, f1 = pair.accuracy, pair.macro_f1
    return [
        first,
        second,
        f"{pair.n:,}",
        str(pair.first_alone),
        str(pair.second_alone),
        points(accuracy.value),
        words.interval("accuracy", accuracy.interval),
        p_value(accuracy.p),
        p_value(pair.accuracy_holm),
        points(f1.value),
        words.interval("macro_f1", f1.interval),
        p_value(f1.p),
        p_value(pair.f1_holm),
        verdict(first, second, pair),
    ]


def verdict(first: str, second: str, pair: Pair) -> str:
    """What both tests of a pair say together, in words."""
    ahead = [
        (first if found.value > 0 else second, name)
        for found, differs, name in (
            (pair.accuracy, pair.accuracy_differs, "accuracy"),
            (pair.macro_f1, pair.f1_differs, "macro F1"),
        )
        if differs
    ]
    if not ahead:
        return "noise"
    if len({name for name, _ in ahead}) == 1:
        return f"{ahead[0][0]} in {' and '.join(figure for _, figure in ahead)}"
    return ", ".join(f"{name} in {figure}" for name, figure in ahead)
