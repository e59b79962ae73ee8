"""Memory that an image of Pillow and an array share: pixels are not copied where both can read them."""

import ctypes
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image, _imaging

# What turns an image in the order of its memory upright: whether it is transposed, and its steps along the memory.
_TURNS = {
    (False, 1, -1): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, -1, 1): Image.Transpose.FLIP_TOP_BOTTOM,
    (False, -1, -1): Image.Transpose.ROTATE_180,
    (True, 1, 1): Image.Transpose.TRANSPOSE,
    (True, 1, -1): Image.Transpose.ROTATE_90,
    (True, -1, 1): Image.Transpose.ROTATE_270,
    (True, -1, -1): Image.Transpose.TRANSVERSE,
}


def pillow_image(pixels: NDArray[np.uint8]) -> Image.Image:
    """Make a Pillow image of pixels, without a copy where four bytes a pixel are in memory, as of a decoded file.

    Args:
        pixels: RGB uint8 ``[H, W, 3]``, or a part of such an array.

    Returns:
        The image, of mode RGB, or RGBX for a view of four bytes a pixel. It may share the memory of ``pixels``.
    """
    words = _words(pixels)
    if words is None:
        return Image.fromarray(pixels)
    transposed = abs(words.strides[0]) < abs(words.strides[1])
    stored = words.T if transposed else words
    down, across = (1 if step > 0 else -1 for step in stored.strides)
    stored = np.ascontiguousarray(stored[::down, ::across])  # by whole rows, in the order of the memory
    image = Image.frombuffer("RGBX", (stored.shape[1], stored.shape[0]), stored, "raw", "RGBX", 0, 1)
    turn = _TURNS.get((transposed, down, across))  # Pillow turns an image in blocks, numpy in rows: 3 times as long
    return image if turn is None else image.transpose(turn)


def is_shared(pixels: NDArray[np.uint8]) -> bool:
    """Return whether ``pillow_image`` copies nothing.

    Args:
        pixels: RGB uint8 ``[H, W, 3]``.

    Returns:
        True for an upright view of four bytes a pixel.
    """
    words = _words(pixels)
    return words is not None and words.flags.c_contiguous


def _words(pixels: NDArray[np.uint8]) -> NDArray[np.uint32] | None:
    """The pixels as words ``[H, W]``, if they are the first three bytes of each pixel ``[H, W, 4]`` of their base."""
    base = pixels.base
    if not isinstance(base, np.ndarray) or base.dtype != np.uint8 or base.ndim != 3 or base.shape[2] != 4:
        return None
    start = pixels.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    if start % 4 or not base.flags.c_contiguous or pixels.shape[2] != 3 or pixels.strides[2] != 1:
        return None
    words: NDArray[np.uint32] = base.reshape(-1).view(np.uint32)
    return np.lib.stride_tricks.as_strided(words[start // 4 :], pixels.shape[:2], pixels.strides[:2], writeable=False)


class OneBlock:
    """While any thread is within it, Pillow allocates each image in one block, not in blocks of 16 MB."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, step: int) -> None:
        with self._lock:
            self._users += step
            _imaging.set_use_block_allocator(int(self._users > 0))


ONE_BLOCK = OneBlock()


class _ArrowArray(ctypes.Structure):
    """The first fields of a structure of the Arrow C data interface, by which Pillow gives access to its memory."""


_ArrowArray._fields_ = [  # the structure refers to itself
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]


_POINTER_OF = ctypes.pythonapi.PyCapsule_GetPointer
_POINTER_OF.restype, _POINTER_OF.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def memory_of(image: Image.Image) -> NDArray[np.uint8] | None:
    """Return the memory of an image as an array.

    Args:
        image: A loaded image of a mode with four bytes a pixel, loaded within ``ONE_BLOCK``.

    Returns:
        Its memory, uint8 ``[H, W, 4]``; ``None`` where it is in several blocks.
    """
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:  # Pillow replaced the image while it loaded
        return None
    array = _ArrowArray.from_address(_POINTER_OF(capsule, b"arrow_array"))
    values = array.children[0].contents if array.n_children else array  # four bytes, or one number, for each pixel
    block = (ctypes.c_ubyte * (4 * image.width * image.height)).from_address(values.buffers[1])
    block.owner = capsule  # type: ignore[attr-defined]  # it keeps the memory as long as the array exists
    return np.ndarray((image.height, image.width, 4), np.uint8, memoryview(block))
