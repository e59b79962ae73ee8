"""The positions of eyes, nose and mouth in a crop."""

import json
from dataclasses import asdict, dataclass

from mien._errors import ModelError, first_line

_CLOSEST = 0.05  # smallest distance of the eyes, and of eyes and mouth, as a share of the crop's side
Fraction = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Framing:
    """The positions of key points in a crop, as fractions ``(x, y)`` of its side, 0 to 1 from the top left.

    Attributes:
        right_eye: The subject's right eye, on the left of the image.
        left_eye: The subject's left eye.
        nose: The tip of the nose.
        mouth: The middle of the mouth.
        tilt: Largest in-plane rotation of a head that is left in a crop, in degrees. Heads of the training set are
            tilted by as much.
    """

    right_eye: Fraction
    left_eye: Fraction
    nose: Fraction
    mouth: Fraction
    tilt: float = 0.0

    def to_json(self) -> str:
        """Return the framing as JSON, for the metadata of a model file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Framing":
        """Read a framing from the metadata of a model file.

        Args:
            text: JSON, as ``to_json`` returns it.

        Returns:
            The framing.

        Raises:
            ModelError: The text is not a framing.
        """
        try:
            values = json.loads(text)
            tilt = float(values.pop("tilt", 0.0))
            points = {key: (float(x), float(y)) for key, (x, y) in values.items()}
            framing = cls(**points, tilt=tilt)
            inside = all(0 <= value <= 1 for point in points.values() for value in point) and 0 <= tilt <= 180
            eyes = framing.left_eye[0] - framing.right_eye[0]
            if not inside or min(eyes, framing.mouth[1] - max(framing.left_eye[1], framing.right_eye[1])) < _CLOSEST:
                raise ValueError("it is no face within the crop")
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            cause = first_line(error)
            raise ModelError(f"the model's framing is not readable ({cause}); export the model again") from error
        return framing


# Medians of BlazeFace's key points over 1,500 training faces (`python tools/measure_framing.py points FER2013`).
# With this tilt mien-0 reads detected PublicTest faces best (`python tools/measure_framing.py tilts DATA`).
FER2013 = Framing(
    right_eye=(0.314, 0.397), left_eye=(0.668, 0.391), nose=(0.496, 0.581), mouth=(0.498, 0.752), tilt=15.0
)
