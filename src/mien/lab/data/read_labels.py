"""Names of labels -> emotions: the known names, and the map that a recipe gives for one's own."""

from collections.abc import Iterable, Mapping

from mien._emotions import Emotion
from mien._errors import DataError, RecipeError
from mien.lab.data.columns import nearest, quote

# Other words for the same eight, as public sets spell them. Nothing here is a guess: "smile" is no emotion.
_SYNONYMS = {
    "anger": Emotion.ANGRY,
    "disgusted": Emotion.DISGUST,
    "fearful": Emotion.FEAR,
    "afraid": Emotion.FEAR,
    "happiness": Emotion.HAPPY,
    "joy": Emotion.HAPPY,
    "sadness": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
    "neutrality": Emotion.NEUTRAL,
    "contemptuous": Emotion.CONTEMPT,
}
RECIPE_KEY = "data.labels"
KNOWN = {**{str(emotion): emotion for emotion in Emotion}, **_SYNONYMS}


def read_labels(
    names: Iterable[str], label_map: Mapping[str, str], *, where: str, option: str = RECIPE_KEY
) -> dict[str, Emotion | None]:
    """The emotion of every name of a label; ``None`` for those that the map drops. Upper and lower case are the same.

    Raises ``DataError`` for a name that is neither known nor in the map, ``RecipeError`` for a map to something that is
    no emotion and for a name in the map that the set does not have. ``option`` is where the user has said the map: the
    key of a recipe, or ``--map``.
    """
    found = {name: name.strip().lower() for name in names}
    said = {name.strip().lower(): _emotion(name, value, option) for name, value in label_map.items()}
    for name in said:
        if name not in found.values():
            raise RecipeError(
                f"{where}: {option} names {quote(name)}, which is no label here{nearest(name, found.values())}; "
                f"the labels are {', '.join(sorted(found))}"
            )
    for name, key in found.items():
        if key not in said and key not in KNOWN:
            said_so, left_out = (_override(name, value, option) for value in ("happy", ""))
            raise DataError(
                f"{where}: {quote(name)} is no emotion that mien knows{nearest(key, KNOWN)}; "
                f"say which it is with {said_so}, or leave its faces out with {left_out}"
            )
    return {name: said[key] if key in said else KNOWN[key] for name, key in found.items()}


def _emotion(name: str, value: str, option: str) -> Emotion | None:
    key = value.strip().lower()
    if key and key not in KNOWN:
        raise RecipeError(
            f"{option}: {name} = {quote(value)} is no emotion{nearest(key, KNOWN)}; "
            f'there are {", ".join(Emotion)}, and "" for faces to leave out'
        )
    return KNOWN.get(key)


def _override(name: str, value: str, option: str) -> str:
    """How a command line says that ``name`` is ``value``."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    if option != RECIPE_KEY:
        return f"{option} {name}={value}" if bare else f"{option} '{name}={value}'"
    return f"data.labels.{name}={value}" if bare else f'\'data.labels={{"{name}"="{value}"}}\''
