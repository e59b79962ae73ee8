"""Arguments of the command line -> images: files, folders, globs and standard input."""

import glob
import os
import re
import shlex
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from mien._errors import MienError, why_absent
from mien._face import Reading
from mien._format import without_password
from mien._output import identity, is_own, protect_inputs, seen_before

if TYPE_CHECKING:
    from mien.decode import Source

# Suffixes of the videos that are looked for in a folder.
_VIDEOS = ("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "wmv", "flv", "3gp", "ogv")
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS)
_AGAIN, _OTHERS = "folders that were read already", "files of other kinds"
# Unlike those of Path, they raise no error for a path that cannot be looked at: reading it reports what is wrong.
_is_folder, _exists = os.path.isdir, os.path.exists
_Names = dict[tuple[int, int] | None, set[str]]  # names of files, by the identity of their folder


@dataclass
class Inputs:
    """The images that arguments name.

    Attributes:
        sources: The images, in the order to read them.
        failed: Readings with an error, for folders that cannot be read.
        left_out: What is not read in folders, and how often.
        roots: The folders, and the folders in which globs were expanded.
    """

    sources: "list[Source]" = field(default_factory=list)
    failed: list[Reading] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    roots: list[str] = field(default_factory=list)

    def note(self) -> str:
        """Return what is left out, as ``files of other kinds (3)``; empty where nothing is."""
        return ", ".join(f"{kind} ({count:,})" for kind, count in self.left_out.items() if count)


def image_suffixes() -> frozenset[str]:
    """Return the suffixes of the images that are looked for in a folder, in lower case with their full stop."""
    from PIL import Image

    from mien.decode import FORMATS

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    # HEIC is read by pillow-heif; without it an error names what to install. MPO is a JPEG with further images.
    return frozenset(suffixes | {".heic", ".heif", ".hif", ".mpo"})


def expand_inputs(paths: Sequence[str], *, suffixes: AbstractSet[str] | None = None) -> Inputs:
    """Find the images that arguments name.

    A folder gives the image files below it, sorted, without hidden files and annotated copies (``*.mien.*``). Links to
    folders are followed; each folder is read once. A glob is expanded unless a file has exactly its name. A file is not
    opened: reading it reports what is wrong.

    Args:
        paths: Files, folders, globs, or ``-`` for the bytes on standard input.
        suffixes: The suffixes of the files that are taken from folders; the default is ``image_suffixes``.

    Returns:
        The images, which no output of the command may replace from now on.

    Raises:
        MienError: Standard input is closed, or a terminal.
    """
    inputs = Inputs()
    suffixes = image_suffixes() if suffixes is None else suffixes
    for path in paths:
        if re.match("(https?|ftp|s3|gs)://", path, re.IGNORECASE):
            cure = f"mien does not download; run: curl -sL {shlex.quote(path)} | mien predict -"
            inputs.failed.append(Reading((), path, (0, 0), error=f"{path}: {cure}"))
            continue
        names = [path]
        seen: set[tuple[int, int] | None] = set()
        named: _Names = defaultdict(set)
        if path != "-" and glob.has_magic(path) and not _exists(path):
            names = _expand_glob(path, inputs)
            if not names and "[" in path and "*" in path:  # a folder such as "album [2024]"
                _add_error(inputs, path, "no such file; write [[] for a bracket of a name, else it is a wildcard")
            elif not names:
                names = [path]
            for name in names:
                named[identity(Path(name).parent)].add(Path(name).name)
            inputs.roots.append(str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(path).parts))))
        for name in names:
            if name == "-":
                if sys.stdin is None or sys.stdin.isatty():
                    kind = "closed" if sys.stdin is None else "a terminal"
                    raise MienError(f"standard input is {kind}; send an image to it: mien predict - < photo.jpg")
                inputs.sources.append(sys.stdin.buffer)
            elif _is_folder(name):
                inputs.roots.append(name)
                _add_folder(name, inputs, seen, suffixes, named)
            else:
                inputs.sources.append(name)
    protect_inputs(inputs.sources)
    return inputs


def expand_videos(sources: Sequence[str]) -> tuple[list[str], bool]:
    """Find the videos that arguments name.

    A folder with videos gives the videos below it, sorted, without hidden files and annotated copies (``*.mien.*``).
    Any other folder is one of frames.

    Args:
        sources: Videos, folders, cameras or addresses.

    Returns:
        The sources, which no output may replace from now on, and whether they are a set of videos.
    """
    videos, several = list[str](), len(sources) > 1
    for source in sources:
        inputs = Inputs()
        below = [
            os.path.join(root, name)  # noqa: PTH118 (Path would drop the "./" that the user typed)
            for root, names in (_walk(source, inputs, set()) if _is_folder(source) else ())
            for name in names
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not Path(name).stem.endswith(".mien")
        ]
        below = [path for path in below if not _is_written(path)]
        several = several or bool(below)
        videos += below or [source]
        if _is_folder(source) and not below:
            expand_inputs([source])  # protects the frames
    protect_inputs(videos)
    return videos, several


def _is_written(path: str) -> bool:
    """Whether mien wrote a video. An empty one is named by the error of reading it."""
    return os.path.isfile(path) and os.path.getsize(path) > 0 and is_own(path)  # noqa: PTH113, PTH202 (as above)


def names_of(videos: Sequence[str]) -> list[str]:
    """Return a name for each of several videos: its path below the folder that they share.

    Args:
        videos: Their paths.

    Raises:
        MienError: One is no file, or is named twice.
    """
    for video in videos:
        if not _exists(video) or _is_folder(video):
            cure = "cameras, addresses and folders of frames are tracked one at a time, into files: --out FILE.csv"
            raise MienError(f"{without_password(video)}: {why_absent(video, f'no such video; {cure}')}")
    whole = [Path(video).resolve() for video in videos]
    if len(set(whole)) < len(whole):
        raise MienError("a video is named twice; name it once")
    shared = Path(os.path.commonpath([path.parent for path in whole]))
    return [str(path.relative_to(shared)) for path in whole]


def _expand_glob(pattern: str, inputs: Inputs) -> list[str]:
    """The names that match a glob, sorted. Links to folders are followed, and each folder is read once."""
    stars = re.search(r"(?:^|(?<=/))\*\*/", pattern)
    names = [] if stars else sorted(glob.glob(pattern))  # noqa: PTH207 (Path takes no absolute pattern)
    if stars:
        first, rest = pattern[: stars.start()], pattern[stars.end() :]
        for start in sorted(glob.glob(first or ".")):  # noqa: PTH207
            for folder, _ in _walk(start, inputs, set()):
                inside = _expand_glob(f"{glob.escape(folder.rstrip('/'))}/{rest}", inputs)
                names += [name if first else name.removeprefix("./") for name in inside]
    folders = set(filter(_is_folder, names))
    parents = {name: str(Path(name).parent) for name in set(names) - folders}
    # Apart: a folder of which some files match may have others, which are read if the folder matches under any name.
    again, again_inside = _seen_again(folders), _seen_again(set(parents.values()))
    inputs.left_out[_AGAIN] += len(again | again_inside)
    special = {name for name in names if _is_special(name)}
    inputs.left_out[_OTHERS] += len(special)
    names = sorted(set(names) - special - again)
    return [name for name in names if parents.get(name) not in again_inside]


def _seen_again(folders: set[str]) -> set[str]:
    seen: set[tuple[int, int] | None] = set()
    return {folder for folder in sorted(folders) if seen_before(folder, seen)}


def _add_folder(
    folder: str, inputs: Inputs, seen: set[tuple[int, int] | None], suffixes: AbstractSet[str], named: _Names
) -> None:
    if seen_before(folder, seen):
        inputs.left_out[_AGAIN] += 1
        return
    is_empty, before = True, inputs.left_out[_AGAIN]
    for root, names in _walk(folder, inputs, seen):
        others = named.get(identity(root), ()) if named else ()  # which the glob names itself
        is_empty = is_empty and not others
        for name in (each for each in names if each not in others):
            path = os.path.join(root, name)  # noqa: PTH118 (Path would drop the "./" that the user typed)
            # Annotated copies would count every face twice.
            if Path(name).stem.endswith(".mien"):
                inputs.left_out["annotated copies"] += 1
            elif Path(name).suffix.lower() in suffixes and not _is_special(path):
                inputs.sources.append(path)
                is_empty = False
            else:
                inputs.left_out[_OTHERS] += 1
    if is_empty and inputs.left_out[_AGAIN] == before:
        _add_error(inputs, folder, "no images in this folder; name files or a folder of images")


def _is_special(path: str) -> bool:
    """Whether a path leads to a pipe or a device, which may never end. A named one is read, as in ``<(command)``."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a Path for each of a million images is slow)
        return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
    except OSError:
        return False  # reading it reports what is wrong


def _walk(folder: str, inputs: Inputs, seen: set[tuple[int, int] | None]) -> Iterator[tuple[str, list[str]]]:
    """Each folder below a folder and the names of its files, sorted. Links are followed, each folder is read once."""
    seen_before(folder, seen)

    def on_error(error: OSError) -> None:
        reason = (error.strerror or "unknown reason").lower()
        _add_error(inputs, error.filename, f"this folder cannot be opened ({reason}); change its access rights")

    for root, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in visible if not seen_before(os.path.join(root, name), seen)]  # noqa: PTH118
        inputs.left_out[_AGAIN] += len(visible) - len(folders)
        yield root, sorted(name for name in files if not name.startswith("."))


def _add_error(inputs: Inputs, folder: str, message: str) -> None:
    inputs.failed.append(Reading(faces=(), source=folder, size_wh=(0, 0), error=f"{folder}: {message}"))
