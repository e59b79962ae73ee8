"""Checksums inside of files: a SHA-256 of all other bytes of the file, so that no damage is read in silence.

It is where the format has a place for remarks, so other programs read the file as before: an entry of the metadata of
an ONNX file, the comment of a ZIP file (``.pt``, ``.npz``), the last key of JSON. Files without one are not verified.
"""

import hashlib
import re
import struct

KEY = "checksum"  # of the entry in metadata and JSON
_MARK = "mien-sha256"  # before and after the digits: a single wrong bit leaves one of them
BLANK = f"{_MARK}:{'0' * 64}:{_MARK}"  # its place until the file is complete
_PATTERN = re.compile(f"{_MARK}:([0-9a-f]{{64}}):{_MARK}".encode())
_TAIL = 4096  # bytes at the end of a file in which the checksum is


def fill_checksum(content: bytes) -> bytes:
    """Fill in the checksum of a file that holds a blank one.

    Args:
        content: The content of the file.

    Returns:
        The content with its checksum; unchanged without a blank one.
    """
    at = content.rfind(BLANK.encode(), -_TAIL)
    start = at + len(_MARK) + 1
    return content if at < 0 else content[:start] + _digits(content, start) + content[start + 64 :]


def is_damaged(content: bytes) -> bool:
    """Return whether a file differs from its checksum.

    Args:
        content: The content of the file.

    Returns:
        ``False`` also for a file without a checksum.
    """
    tail = content[-_TAIL:]
    if _MARK.encode() not in tail:
        return False
    found = _PATTERN.search(tail)
    return not found or found[1] != _digits(content, len(content) - len(tail) + found.start(1))


def with_comment(archive: memoryview) -> bytes:
    """Give a ZIP file without a comment a blank checksum as its comment.

    Args:
        archive: The content of the file; it ends with the length of the comment, 0.

    Returns:
        The content with the comment.
    """
    comment = BLANK.encode()
    return b"".join((archive[:-2], struct.pack("<H", len(comment)), comment))


def _digits(content: bytes, start: int) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256(view[:start])
    digest.update(view[start + 64 :])
    return digest.hexdigest().encode()
