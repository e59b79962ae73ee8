"""How a face lies in its crop: where FER-2013 puts eyes, nose and mouth. The one place of these numbers."""

import json
from dataclasses import asdict, dataclass

from mien._errors import ModelError

Fraction = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Framing:
    """Where the key points of a face lie in a crop, as fractions ``(x, y)`` of the crop's side, 0..1 from the top left.

    ``right_eye`` is the subject's right eye, on the left of the picture. ``tilt`` is how far, in degrees, heads lean to
    the side in the crops of the training set: so much of a face's in-plane rotation stays, the rest is removed.
    """

    right_eye: Fraction
    left_eye: Fraction
    nose: Fraction
    mouth: Fraction
    tilt: float = 0.0

    def to_json(self) -> str:
        """The framing as it stands in a model file's metadata."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Framing":
        """The framing of a model file's metadata; raises ``ModelError`` when it is not one."""
        try:
            said = json.loads(text)
            tilt = float(said.pop("tilt", 0.0))
            points = {key: (float(x), float(y)) for key, (x, y) in said.items()}
            return cls(**points, tilt=tilt)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the model's framing is not readable ({error}); export the model again") from error


# Medians of BlazeFace's key points over 1,500 training faces (`python tools/measure_framing.py points FER2013`).
# With this tilt mien-0 reads detected PublicTest faces best (`python tools/measure_framing.py tilts DATA`).
FER2013 = Framing(
    right_eye=(0.314, 0.397), left_eye=(0.668, 0.391), nose=(0.496, 0.581), mouth=(0.498, 0.752), tilt=15.0
)
