"""The errors of mien. Every message is one line that names the cause and what to do.

MienError                       the base class of all errors
├── ImageError                  an image that cannot be read
│   ├── NotAnImageError         the bytes are not an image format that Pillow reads
│   ├── TruncatedError          the image ends before its last row
│   ├── UnsupportedImageError   an intact file of a variant that is not read
│   └── TooLargeError           more bytes or pixels than the limit
├── SourceError                 a video, camera or stream that cannot be opened, or that breaks off
├── ModelError                  a model file that breaks the contract, or an unknown model
├── DataError                   a data set with wrong columns, counts, labels or rows
├── RecipeError                 an unknown key, a wrong type, a recipe that does not exist
├── DeviceError                 an accelerator that is missing or does not work
├── DivergedError               a training whose loss is no longer a finite number
├── DownloadError               a file that cannot be downloaded, or has the wrong SHA-256
├── OutputError                 a path or stream that cannot be written: full disk, missing rights
└── MissingExtraError           an optional dependency that is not installed
"""

import functools
import inspect
import numbers
import os
import types
import typing
from collections import abc

from mien._format import printable

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "True or False", types.NoneType: "None"}
_LONGEST = 4096  # characters of a name or path
_hints = functools.cache(typing.get_type_hints)
_Given = typing.ParamSpec("_Given")
_Result = typing.TypeVar("_Result")


class MienError(Exception):
    """Base class of the errors that mien raises."""

    def __str__(self) -> str:
        return printable(super().__str__())  # names of files are part of messages


class ImageError(MienError):
    """An image cannot be read."""


class NotAnImageError(ImageError):
    """The bytes are not an image in any format that Pillow reads."""


class TruncatedError(ImageError):
    """The image file is cut off or damaged."""


class UnsupportedImageError(ImageError):
    """The image file is sound, but of a variant that cannot be read here."""


class TooLargeError(ImageError):
    """The image has more bytes or pixels than the limits allow."""


class SourceError(MienError):
    """A video, camera or stream cannot be opened, or breaks off."""


class ModelError(MienError):
    """A model is unknown, or its file breaks the contract of mien's ONNX files."""


class DataError(MienError):
    """A data set is damaged or incomplete; the message names file, row or column."""


class RecipeError(MienError):
    """A recipe is unknown or holds a key or value that mien does not know."""


class DeviceError(MienError):
    """The devices that a training needs are missing or do not work."""


class DivergedError(MienError):
    """The loss of a training is no longer a number."""


class DownloadError(MienError):
    """A file could not be fetched, or is not the file that was expected."""


class OutputError(MienError):
    """A result cannot be written to its path or stream."""


class MissingExtraError(MienError):
    """An optional part of mien needs a package that is not installed.

    Args:
        package: The package that cannot be imported.
        extra: The extra of mien that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; run: pip install "mien[{extra}]"')
        self._given = package, extra

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), self._given


def why_absent(path: str | os.PathLike[str], otherwise: str) -> str:
    """Say why a path is not found: a folder on its way may be closed to this user.

    Args:
        path: The path.
        otherwise: What is said where it does not exist, such as ``"no such file; check the path"``.

    Returns:
        The cause and the cure.
    """
    try:
        os.stat(path)  # noqa: PTH116 (also of names that are no path)
    except PermissionError:
        return "no permission to look at it; change the access rights of its folders or run as their owner"
    except (OSError, ValueError):
        pass
    return otherwise


def is_number(value: object) -> bool:
    """Return whether an argument is a number, of Python or of numpy.

    Args:
        value: The argument, of any type.

    Returns:
        True for whole and real numbers, NaN included.
    """
    return isinstance(value, numbers.Real)


def shown(value: object) -> str:
    """Write an argument for an error message.

    Args:
        value: The argument, of any type.

    Returns:
        The beginning of its ``repr``, at most 80 characters on one line.
    """
    try:
        return " ".join(repr(value).split())[:80]
    except ValueError:  # Python does not write whole numbers of more than 4,300 digits
        return "a number of thousands of digits"


def require_kind(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """Refuse an argument of another type.

    Args:
        name: The name of the argument.
        value: Its value.
        kind: The type or types that are allowed, as for ``isinstance``.
        expected: What it must be, in words.

    Raises:
        MienError: The value is of another type.
    """
    if not isinstance(value, kind):
        raise MienError(f"{name} is {shown(value)}; it must be {expected}")


def require_number(name: str, value: object, *, lowest: float, highest: float) -> None:
    """Refuse an argument that is not a number, or out of range.

    Args:
        name: The name of the argument.
        value: Its value.
        lowest: The smallest value that is allowed.
        highest: The largest value that is allowed.

    Raises:
        MienError: The value is out of range, or of another type.
    """
    if not isinstance(value, numbers.Real) or not lowest <= value <= highest:  # type: ignore[operator]
        raise MienError(f"{name} is {shown(value)}; it must be a number from {lowest:g} to {highest:g}")


def require_integer(name: str, value: object, *, lowest: int, highest: int = 2**62) -> None:
    """Refuse an argument that is not a whole number, or out of range.

    Args:
        name: The name of the argument.
        value: Its value.
        lowest: The smallest value that is allowed.
        highest: The largest value that is allowed.

    Raises:
        MienError: The value is out of range, or of another type.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not lowest <= int(value) <= highest:
        upper = f" and at most {highest:,}" if highest < 2**62 else ""
        raise MienError(f"{name} is {shown(value)}; it must be {lowest} or more{upper}, a whole number")


def first_line(error: Exception) -> str:
    """Shorten the message of an error from another library.

    Args:
        error: The error.

    Returns:
        The first line of its message, at most 200 characters; the name of its class where it has no message.
    """
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__


def checked(function: abc.Callable[_Given, _Result]) -> abc.Callable[_Given, _Result]:
    """Make a function refuse arguments of other types than it declares. It is for entry points, not for inner loops.

    Args:
        function: A function whose parameters have annotations.

    Returns:
        The function; it raises ``MienError`` for a wrong type.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: _Given.args, **options: _Given.kwargs) -> _Result:
        hints = _hints(function)
        for name, value in signature.bind(*args, **options).arguments.items():
            if not _fits(value, hints[name]):
                raise MienError(f"{name} is {shown(value)}; it must be {_in_words(hints[name])}")
            if isinstance(value, str) and len(value) > _LONGEST:
                raise MienError(f"{name} has {len(value):,} characters; at most {_LONGEST:,} are allowed")
        return function(*args, **options)

    return call


def _fits(value: object, hint: typing.Any) -> bool:
    """Whether a value is of an annotated type. Whole numbers are also floats; of mappings the items are not checked."""
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if kind in (float, int):
        return isinstance(value, numbers.Real if kind is float else numbers.Integral) and not isinstance(value, bool)
    if kind in (abc.Sequence, abc.Iterable, tuple, list):
        is_list = isinstance(value, kind) and not isinstance(value, str | bytes)
        return is_list and (not isinstance(value, list | tuple) or all(_fits(each, inner[0]) for each in value))
    if kind is typing.Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind)


def _in_words(hint: typing.Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, inner))
    if kind in (abc.Sequence, abc.Iterable, tuple, list):
        return f"a list, each value {_in_words(inner[0])}"
    return _WORDS.get(kind) or f"a {kind.__name__}"
