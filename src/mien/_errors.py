"""The tree of errors. Every message is one line that names the cause and the cure.

MienError                 the base: what the command line prints as one line before it exits with status 2
├── ImageError            a picture that cannot be read
│   ├── NotAnImageError   the bytes are no image format that Pillow knows
│   ├── TruncatedError    the image ends before its last row
│   └── TooLargeError     more bytes or pixels than the limit
├── SourceError           a film, camera or stream that cannot be opened, or that breaks off
├── ModelError            a model file that breaks the contract, or an unknown model
├── DataError             a data set with wrong columns, counts, labels or rows
├── RecipeError           an unknown key, a wrong type, a recipe that does not exist
├── DeviceError           an accelerator that is not there, or that does not work
├── DivergedError         a training whose loss is no longer a number
├── DownloadError         a file that could not be fetched, or whose sha256 is wrong
├── OutputError           a place that cannot be written: full disk, missing rights
└── MissingExtraError     an optional dependency that is not installed
"""


class MienError(Exception):
    """Base of every error that mien raises on purpose."""


class ImageError(MienError):
    """A picture cannot be read."""


class NotAnImageError(ImageError):
    """The bytes are not an image in any format that Pillow reads."""


class TruncatedError(ImageError):
    """The image file is cut off or damaged."""


class TooLargeError(ImageError):
    """The image has more bytes or pixels than the limits allow."""


class SourceError(MienError):
    """A film, camera or stream cannot be opened, or breaks off."""


class ModelError(MienError):
    """A model is unknown, or its file breaks the contract of mien's ONNX files."""


class DataError(MienError):
    """A data set is not what it should be; the message names file, row or column."""


class RecipeError(MienError):
    """A recipe is unknown or holds a key or value that mien does not know."""


class DeviceError(MienError):
    """The devices that a training asks for are not there."""


class DivergedError(MienError):
    """The loss of a training is no longer a number."""


class DownloadError(MienError):
    """A file could not be fetched, or is not the file that was expected."""


class OutputError(MienError):
    """A result cannot be written where the user asked for it."""


class MissingExtraError(MienError):
    """An optional part of mien needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """``package`` is the import that failed, ``extra`` the extra of mien that brings it."""
        super().__init__(f'{package} is not installed; run: pip install "mien[{extra}]"')
