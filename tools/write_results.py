"""Write docs/results.md from the evidence in results/; a test holds it fresh.

    python tools/write_results.py            write it
    python tools/write_results.py --check    exit 1 when it is not fresh

Every figure comes from results/**/seed-*/metrics.json, which `mien record` wrote, from studies and explanations kept
beside them, and from the cards of the embedded models. Nothing is measured here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import results_claims
import results_looks
import results_pace
import results_speedrun
import results_studies
from markdown import table
from results_rows import Row, embedded, mean, read, spread

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"


def page(results: Path, *, cards: bool = True) -> str:
    """The whole page from the evidence below ``results``; ``cards``: the embedded models stand in it, too."""
    rows = read(results) + (embedded(results) if cards else [])
    every = sorted(rows, key=lambda row: (row.document or "999", row.name))
    studied = results_studies.families(results)  # their members are told of there, side by side
    rows = [row for row in every if row.name.partition("/")[0] not in studied]
    parts = ["# Results", "Written by `make docs` from `results/` and the models' cards; do not edit."]
    parts.append(_protocol(rows))
    for split in ("private", "public"):
        there = [row for row in rows if row.judged(split) and (split == "private" or not row.judged("private"))]
        if labelled := [row for row in there if not row.by_people]:
            parts += [f"## {split.capitalize()}Test", _table(labelled, split)]
        if voted := [row for row in there if row.by_people]:
            parts += [f"## {split.capitalize()}Test, eight emotions", _VOTED, _table(voted, split)]
    parts += _leaky(rows)
    parts += results_pace.sections(results)
    parts += results_speedrun.sections(results)
    parts += ["## What each cost", _costs(every)]
    parts += results_claims.sections(rows, results)
    parts += results_studies.sections(results)
    parts += results_looks.sections(results)
    parts += _changes(rows)
    parts += results_studies.left(results) if cards else []
    return "\n\n".join(parts) + "\n"


_VOTED = (
    "Judged on the majority of ten FER+ voters, where there is one (Barsoum et al., 2016), instead of the labels of "
    "FER-2013: other faces and other labels, so no row of these stands beside one of those above."
)


def _protocol(rows: Sequence[Row]) -> str:
    counts = {figures["n"] for row in rows for figures in row.judged("private")}
    clean = {figures["n"] for row in rows for figures in row.judged("private", "clean")}
    whole = f"{max(counts):,} rows of PrivateTest" if counts else "PrivateTest"
    rest = f"the {max(clean):,} of them" if clean else "those"
    return (
        "Trained on Training without the rows whose pixels stand in a test split, everything chosen on PublicTest. "
        f"Then {whole} are judged once: accuracy with its 95 % bootstrap interval, and again on {rest} without an "
        "exact copy elsewhere (clean)."
    )


def _table(rows: Sequence[Row], split: str) -> str:
    heads = ["recipe", "document", "variant", "classes", "faces", "accuracy", "95 % interval", "clean", "balanced"]
    heads += ["macro F1", "log loss", "ECE", "int8", "seeds"]
    lines = [_line(row, split) for row in sorted(rows, key=lambda row: -mean(row.judged(split), "accuracy"))]
    said = (
        "Figures of the fp32 file, calibrated on PublicTest; int8: accuracy of the quantised file. ECE: expected "
        "calibration error. Fewer classes are easier: compare rows of the same number of them."
    )
    several = any(len(row.judged(split)) > 1 for row in rows)
    return (
        table(heads, lines)
        + f"\n\n{said}"
        + (" ±: standard deviation over seeds; intervals: means of theirs." if several else "")
    )


def _line(row: Row, split: str) -> list[str]:
    whole, clean, int8 = row.judged(split), row.judged(split, "clean"), row.judged(split, precision="int8")
    low, high = (fmean(figures["interval"][edge] for figures in whole) for edge in (0, 1))
    return [
        f"`{row.name}`",
        row.document or "own",
        str(row.claim.get("variant", "own")),
        str(len(whole[0]["recall"])),
        f"{whole[0]['n']:,}",
        f"**{spread(whole, 'accuracy')}**",
        f"{100 * low:.1f} to {100 * high:.1f}",
        spread(clean, "accuracy"),
        *(spread(whole, key) for key in ("balanced_accuracy", "macro_f1", "log_loss", "ece")),
        spread(int8, "accuracy"),
        str(len(whole)),
    ]


def _leaky(rows: Sequence[Row]) -> list[str]:
    """Runs that have learned from copies of what they are judged on: told apart, for no table may hold them."""
    there = [row for row in rows if row.judged("leaky")]
    if not there:
        return []
    lines = [
        (f"`{row.name}`", row.document, f"{row.judged('leaky')[0]['n']:,}", spread(row.judged("leaky"), "accuracy"))
        for row in there
    ]
    said = "Judged on faces whose copies they have learned from: a demonstration of the leak, not a result."
    return ["## Leaky on purpose", said, table(("recipe", "document", "faces", "accuracy"), lines)]


def _costs(rows: Sequence[Row]) -> str:
    cost = ("recipe", "input", "parameters", "MMAC", "epochs", "seconds")
    heads = (*cost, "built on", "trained on", "commit", "judged at", "drawn")
    lines = []
    for row in rows:
        run = row.first
        side = f"{run['size']} px" if run.get("size") else "–"
        trainings = [part for each in row.runs for part in each.get("parts", [each])]  # a joined net has several
        seconds = " ".join(f"{each['seconds']:,}" for each in trainings)
        judged = [each.get("judged_at") or each.get("exported_at", "–") for each in row.runs]
        cells = [f"`{row.name}`", side, f"{run['parameters']:,}", f"{run['macs'] / 1e6:,.1f}", str(run["epochs"])]
        machines = "; ".join(dict.fromkeys(each["machine"] for each in trainings))
        trained = [each["commit"] for each in trainings]
        cells += [seconds, ", ".join(f"`{name}`" for name in row.needs) or "–", machines]
        lines.append([*cells, _commits(trained), _commits(judged), _drawn(row)])
    said = (
        "Of several seeds, or of the parts of a joined net, in their order; a machine or commit that several share "
        "stands once. Built on: the runs that it took its first weights or its teachers' answers from, whose seconds "
        "are not among its own."
    )
    return f"{said}\n\n{table(heads, lines)}"


def _commits(them: Sequence[str]) -> str:
    """Each commit once, its first twelve digits; `+` where files had been changed since."""
    return " ".join(dict.fromkeys(each[:12] + ("+" if each.endswith("+") else "") for each in them))


def _drawn(row: Row) -> str:
    """Links to the drawings of the evidence."""
    if not row.place:
        return "–"
    return f"[curves]({row.place}/curves.png), [confusion]({row.place}/confusion.svg)"


def _changes(rows: Sequence[Row]) -> list[str]:
    tuned = [row for row in rows if row.claim.get("variant") == "tuned" or row.changed]
    if not tuned:
        return []
    lines = [f"- `{row.name}`: {_code(row.changed)}" for row in tuned]
    said = (
        "A faithful recipe is trained as its document says. A tuned one is not, and its file says why; these are all "
        "keys in which it differs from the faithful one:"
    )
    return ["## What was changed", said, "\n".join(lines)]


def _code(changed: str) -> str:
    return f"`{changed}`" if changed else "nothing but its name"


def main() -> int:
    """Write or check the page; returns the exit status."""
    files = {PAGE: page(ROOT / "results")}
    for ground in results_pace.GROUNDS:
        if drawn := results_pace.draw(ROOT / "results", ground):
            files[PAGE.parent / ground.drawing] = drawn
    if "--check" in sys.argv[1:]:
        old = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text]
        for path in old:
            print(f"not fresh: {path.relative_to(ROOT)}; run: python tools/write_results.py", file=sys.stderr)
        return 1 if old else 0
    for path, text in files.items():
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
