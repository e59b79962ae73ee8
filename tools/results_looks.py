"""The part of docs/results.md that tells where a network looks, from results/explain/*.json.

`mien explain MODEL --data SET --keep results/explain` wrote them: a map for every drawn face, its evidence counted by
region of the face, and the claims that a document makes of it.
"""

import json
from pathlib import Path
from typing import Any

from markdown import table
from mien.lab.explain import words

Json = dict[str, Any]


def sections(results: Path) -> list[str]:
    """One section a model."""
    told = [json.loads(path.read_text("utf-8")) for path in sorted((results / "explain").glob("*.json"))]
    return [block for said in told for block in _look(said)]


def _look(said: Json) -> list[str]:
    method = "class activation maps" if said["method"] == "map" else f"maps by {said['method']}"
    how = f"{method.capitalize()} at `{said['layer']}`, {said['map'][0]}x{said['map'][1]} places. "
    shown = "Times chance: 1 is what a map that knows nothing would have there. **Bold**: more or less than chance."
    claims = [f"- Document {c['document']}, {c['region']} for {c['emotion']}: {words.claim(c)}" for c in said["claims"]]
    tests = [words.faithful(said["faithfulness"]), words.sound(said["sanity"])]
    source = said["provenance"]
    return [
        f"## Where `{said['model']['model']}` looks",
        how + words.account(said),
        f"{shown}\n\n{_attention(said)}",
        "\n".join([*claims, *(f"- {test}" for test in tests)]),
        f"`{source['command']}` at commit `{source['commit']}`, {source['machine']}.",
    ]


def _attention(said: Json) -> str:
    regions = [name for name in said["regions"]["area"] if name != "rest"]
    lines = []
    for emotion, found in said["attention"].items():
        cells = [_times(found["regions"][region]) for region in regions if region in found["regions"]]
        lines.append([emotion, str(found["faces"]), str(found["right"]), *cells])
    return table(["read as", "faces", "rightly", *regions], lines)


def _times(region: Json) -> str:
    low, high = region["relative_interval"]
    told = words.times(region)
    return f"**{told}**" if low > 1 or high < 1 else told
