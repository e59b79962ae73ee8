"""What comes with mien: the model files, the name of the default model, and an example image."""

from pathlib import Path

BUNDLED = Path(__file__).parent  # a folder a model: model.onnx, its card and licence
DEFAULT_MODEL = "mien-1"


def example() -> Path:
    """Return the path of an image with one face, to try mien with: a portrait by NASA, in the public domain.

    Returns:
        A JPEG file of 320x320 pixels. Its folder has no other image.

    Example:
        >>> import mien
        >>> mien.Reader().read(mien.example()).faces[0].emotion
        <Emotion.HAPPY: 'happy'>
    """
    return BUNDLED / "example" / "astronaut.jpg"
