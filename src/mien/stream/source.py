"""What the user names -> frames: a film, a camera, an address, a folder."""

import os
import re
from pathlib import Path

from mien._errors import MienError, SourceError
from mien.stream.ahead import aside
from mien.stream.camera import OPEN_SECONDS, READ_SECONDS, Live, open_camera
from mien.stream.film_file import FilmFile
from mien.stream.folder import Folder
from mien.stream.frames import Frames
from mien.stream.pictures import open_container

_ADDRESS = re.compile(r"^(rtsps?|https?|rtmps?|udp|tcp|srt)://", re.IGNORECASE)
_DEVICE = re.compile(r"^/dev/video\d+$")
# FFmpeg would play some texts as films: subtitles, and the art of terminals.
_NO_FILMS = frozenset({"tty", "bin", "xbin", "adf", "idf", "ffmetadata", "lavfi"})


def open_source(source: str | os.PathLike[str] | int, *, fps: float = 25.0) -> Frames:
    """Open what ``source`` names.

    A number is a camera (0 the first), as is ``/dev/videoN``. ``rtsp://``, ``http://`` and the like are streams: one
    that knows its end is read whole like a file, any other is live. A folder is the frames of a film at ``fps`` frames
    a second. Everything else is a film in a file.

    Raises ``SourceError`` that says what is wrong with it, ``MissingExtraError`` without PyAV (folders need none).
    """
    if not 0 < fps < 1e6:
        raise MienError(f"fps is frames a second above 0, not {fps}")
    name = os.fsdecode(source) if not isinstance(source, int) else str(source)
    if not name:
        raise SourceError("the source has no name; name a film, a camera, an address or a folder of frames")
    if name.isdecimal() and not Path(name).exists():
        return open_camera(int(name))
    if _DEVICE.match(name):
        return open_camera(name)
    if _ADDRESS.match(name):
        return _open_address(name)
    if Path(name).is_dir():
        return Folder(Path(name), rate=fps)
    return _open_file(name)


def _open_file(name: str) -> Frames:
    path = Path(name)
    if not path.exists():
        raise SourceError(f"{name}: no such film; check the path")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{name}: no permission to read it; change its access rights or run as its owner")
    cure = "name a film such as MP4, or get the file again"
    # "file:" keeps FFmpeg from taking a name such as "a:b.mp4" for an address.
    container = open_container(f"file:{name}", name, cure)
    if container.format.name in _NO_FILMS:
        container.close()
        raise SourceError(f"{name}: is no film; {cure}")
    return FilmFile(container, name)


def _open_address(name: str) -> Frames:
    options = {"rtsp_transport": "tcp"} if name.lower().startswith("rtsp") else {}
    cure = "check the address and that it can be reached"
    timeout = (OPEN_SECONDS, READ_SECONDS)
    container = aside(lambda: open_container(name, _without_password(name), cure, options=options, timeout=timeout))
    if container.duration and not name.lower().startswith("rtsp"):
        return FilmFile(container, _without_password(name))
    return Live(container, _without_password(name))


def _without_password(address: str) -> str:
    """Messages and tables must not tell the password that stands in an address."""
    return re.sub(r"//[^/@]*@", "//", address)
