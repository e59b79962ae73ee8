"""The emotions, in the one place where their names, order and colours are written."""

from enum import StrEnum


class Emotion(StrEnum):
    """One expression category. The first seven stand in the order of the FER-2013 index (0 angry .. 6 neutral)."""

    ANGRY = "angry"
    DISGUST = "disgust"
    FEAR = "fear"
    HAPPY = "happy"
    SAD = "sad"
    SURPRISE = "surprise"
    NEUTRAL = "neutral"
    CONTEMPT = "contempt"

    @property
    def color(self) -> str:
        """The colour of this emotion in every plot, overlay and report, as ``#rrggbb``."""
        return _COLORS[self]


# Hues far enough apart to be told from each other beside one another, light enough for dark text on them.
_COLORS = {
    Emotion.ANGRY: "#e5484d",
    Emotion.DISGUST: "#5b9a3c",
    Emotion.FEAR: "#8e6bd8",
    Emotion.HAPPY: "#f2b01e",
    Emotion.SAD: "#3f7fd0",
    Emotion.SURPRISE: "#f0803c",
    Emotion.NEUTRAL: "#8b949e",
    Emotion.CONTEMPT: "#c2599a",
}

UNSURE_COLOR = "#f4f4f2"  # of a face below the threshold; no emotion has it: such a face must not look neutral

SEVEN = tuple(Emotion)[:7]

# A class set is data: its name and the classes in the order a network answers them.
CLASS_SETS: dict[str, tuple[Emotion, ...]] = {
    "seven": SEVEN,
    "six-no-neutral": tuple(e for e in SEVEN if e is not Emotion.NEUTRAL),  # document 000
    "six-no-disgust": tuple(e for e in SEVEN if e is not Emotion.DISGUST),  # document 002
    "three": (Emotion.ANGRY, Emotion.FEAR, Emotion.HAPPY),  # document 002
    # The order of the vote columns of FER+ (Barsoum et al., ICMI 2016).
    "eight": (
        Emotion.NEUTRAL,
        Emotion.HAPPY,
        Emotion.SURPRISE,
        Emotion.SAD,
        Emotion.ANGRY,
        Emotion.DISGUST,
        Emotion.FEAR,
        Emotion.CONTEMPT,
    ),
}


def class_set(name: str) -> tuple[Emotion, ...]:
    """The emotions of a named class set, or of a list like ``"happy, sad"`` in the order of ``Emotion``.

    Raises ``ValueError`` that names what is wrong.
    """
    if name in CLASS_SETS:
        return CLASS_SETS[name]
    words = [word.strip() for word in name.split(",")]
    strange = [word for word in words if word not in tuple(Emotion)]
    if len(words) < 2 or strange or len(set(words)) < len(words):
        known = f"{', '.join(CLASS_SETS)}, or a list of at least two of {', '.join(Emotion)}"
        raise ValueError(f"classes are one of {known}; not {name!r}")
    return tuple(emotion for emotion in Emotion if emotion in words)
