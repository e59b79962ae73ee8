"""The emotions: names, order, colours and class sets. All other modules read them here."""

from enum import StrEnum


class Emotion(StrEnum):
    """A facial expression. The first seven are in the order of the FER-2013 labels (0 angry .. 6 neutral)."""

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


# Hues that are easy to tell apart side by side, and light enough for dark text on them.
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

UNSURE_COLOR = "#f4f4f2"  # for a face below the threshold, which must not look neutral

SEVEN = tuple(Emotion)[:7]

# The name of each class set and its classes, in the order of a network's outputs.
CLASS_SETS: dict[str, tuple[Emotion, ...]] = {
    "seven": SEVEN,
    "six-no-neutral": tuple(e for e in SEVEN if e is not Emotion.NEUTRAL),  # document 000
    "six-no-disgust": tuple(e for e in SEVEN if e is not Emotion.DISGUST),  # document 002
    "three": (Emotion.ANGRY, Emotion.FEAR, Emotion.HAPPY),  # document 002
    # The order of the vote columns of FER+ (Barsoum et al., ICMI 2016).
    "eight": tuple(map(Emotion, ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt"))),
}


def class_set(name: str) -> tuple[Emotion, ...]:
    """Return the emotions of a class set.

    Args:
        name: A key of ``CLASS_SETS``, or a list of at least two emotions such as ``"happy, sad"``.

    Returns:
        The emotions, those of a list in the order of ``Emotion``.

    Raises:
        ValueError: The name is unknown; the message lists the known ones.

    Example:
        >>> [str(emotion) for emotion in class_set("sad, happy")]
        ['happy', 'sad']
    """
    if name in CLASS_SETS:
        return CLASS_SETS[name]
    words = [word.strip() for word in name.split(",")]
    if len(words) < 2 or len(set(words)) < len(words) or not set(words) <= set(Emotion):
        known = f"{', '.join(CLASS_SETS)}, or a list of at least two of {', '.join(Emotion)}"
        raise ValueError(f"classes are one of {known}; not {name!r}")
    return tuple(emotion for emotion in Emotion if emotion in words)
