"""What went wrong, in our words: the first line of a foreign error, and which of ours stands for it."""

from PIL import Image

from mien._errors import ImageError, TooLargeError, TruncatedError


def why(error: Exception, name: str) -> ImageError:
    """Our error for what Pillow raised while it read a header or pixels."""
    if isinstance(error, MemoryError):
        return TooLargeError(f"{name}: not enough memory for this picture; scale it down")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return TooLargeError(f"{name}: {first_line(error)}; scale it down")
    return TruncatedError(f"{name}: the picture is cut off or damaged ({first_line(error)}); get the file again")


def first_line(error: Exception) -> str:
    """What ``error`` says, or what it is called where it says nothing."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
