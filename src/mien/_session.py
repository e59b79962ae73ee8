"""Opens ONNX files: threads, execution providers and their errors; and a trial of files that mien does not bring."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import onnxruntime as ort

from mien._checksum import is_damaged
from mien._errors import ModelError, first_line, require_integer, shown

# The short name of each execution provider, and its name in ONNX Runtime.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
}

_FATAL = 4  # the highest severity of ONNX Runtime's log
# Called before each run of a model, of which an image with thousands of faces takes as many. The server sets a function
# that raises an error after the time limit or when the client has left.
CHECK: ContextVar[Callable[[], object]] = ContextVar("CHECK", default=bool)
_MOST_THREADS = 4096
_TRIAL_BYTES = 2**30  # memory of a trial; the largest net of mien needs 0.6 GB in fp32
_TRIAL_SECONDS = 30.0  # of the first run, of one or two faces; the largest net of mien takes 0.1 s

ort.disable_telemetry_events()  # for Windows, and for programs that import ONNX Runtime before mien


class Session(ort.InferenceSession):  # type: ignore[misc]  # onnxruntime has no types
    """A session that is opened again where it is unpickled, so readers may be sent to other processes."""

    def run(self, *args: Any, **options: Any) -> Any:
        """Run the model, unless ``CHECK`` of this thread raises an error.

        Args:
            *args: As ``onnxruntime.InferenceSession.run`` takes them.
            **options: Likewise.

        Returns:
            The outputs.
        """
        CHECK.get()()
        return super().run(*args, **options)

    def run_trial(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        """Run a model of unknown origin for the first time, with a time limit.

        ONNX Runtime ends between two operations, so also in a loop.

        Args:
            outputs: Names of the outputs.
            inputs: The inputs by their names.

        Returns:
            The outputs.

        Raises:
            ModelError: The model takes longer.
        """
        options = ort.RunOptions()
        timer = Timer(_TRIAL_SECONDS, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self.run(outputs, inputs, options)
        except Exception as error:
            if options.terminate:
                raise ModelError(f"its first run takes longer than {_TRIAL_SECONDS:g} s") from error
            raise
        finally:
            timer.cancel()

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reopen, ()


def open_session(path: Path, *, threads: int = 1, providers: Sequence[str] = ("cpu",)) -> Session:
    """Open an ONNX file.

    Args:
        path: The file.
        threads: Threads for one call; 0 uses all cores.
        providers: Execution providers, keys of ``PROVIDERS``, first choice first.

    Returns:
        The session.

    Raises:
        ModelError: The file is missing or damaged, or a provider is unknown or not installed.
    """
    require_integer("threads", threads, lowest=0, highest=_MOST_THREADS)
    is_list = isinstance(providers, list | tuple)
    if not is_list or not all(isinstance(provider, str) for provider in providers):
        raise ModelError(f"providers is {shown(providers)}; it must be a list of names, such as ('cpu',)")
    available = ort.get_available_providers()
    for provider in providers:
        if provider not in PROVIDERS:
            raise ModelError(f"unknown provider {provider!r}; mien knows {', '.join(PROVIDERS)}")
        if PROVIDERS[provider] not in available:
            here = ", ".join(short for short, name in PROVIDERS.items() if name in available)
            cause = f"provider {provider!r} is not in the installed onnxruntime (here: {here})"
            raise ModelError(f"{cause}; install the build that has it")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Errors are raised as well; their lines on standard error would only repeat them.
    options.log_severity_level = _FATAL
    ort.set_default_logger_severity(_FATAL)
    # A thread that spins between calls keeps the core from the other steps.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _saturates():  # an exact kernel, 30 to 45 % slower here; on a core with VNNI it would take 2.5 times as long
        options.add_session_config_entry("session.x64quantprecision", "1")
    _read(path)
    session = _open(path, options, [PROVIDERS[provider] for provider in providers])
    session.reopen = partial(open_session, path.absolute(), threads=threads, providers=tuple(providers))
    return session


# An ONNX file of one operator, MatMulInteger: int32 y = uint8 a @ int8 b.
_PRODUCTS = (
    b'\x08\x08:>\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\t\n\x01a\x12\x04\n\x02\x08\x02Z\t\n\x01b\x12\x04\n\x02'
    b"\x08\x03b\t\n\x01y\x12\x04\n\x02\x08\x06B\x04\n\x00\x10\n"
)


@cache
def _saturates() -> bool:
    """Whether int8 products are wrong on this core.

    x86 cores without VNNI add pairs of them in 16 bits, which saturate: the embedded models lost 3 points of accuracy.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_PRODUCTS, options, providers=[PROVIDERS["cpu"]])
    largest = {"a": np.full((1, 64), 255, np.uint8), "b": np.full((64, 16), 127, np.int8)}
    return bool((session.run(None, largest)[0] != 64 * 255 * 127).any())


def int8_kernel() -> str:
    """Name the kernel that int8 files use on this processor, for reports of its speed.

    Returns:
        ``"default"``, or ``"exact, without VNNI"`` where the default one of ONNX Runtime saturates.
    """
    return "exact, without VNNI" if _saturates() else "default"


def open_trial(path: Path, *, is_foreign: bool = False) -> Session:
    """Open an ONNX file of unknown origin for ``Session.run_trial``.

    Nothing is computed in advance. Memory is limited, and subgraphs, which loops need, are refused.

    Args:
        path: The file.
        is_foreign: Whether the file needs more memory and subgraphs, as nets of other programs may.

    Returns:
        A slow session on the CPU.

    Raises:
        ModelError: The file is missing or damaged, or has a subgraph.
    """
    content = memoryview(b"" if is_foreign else _read(path))
    try:
        graphs = [part for number, part in _fields(content) if number == _GRAPH]
        nodes = [part for graph in graphs for number, part in _fields(graph) if number == _NODE]
        attributes = [part for node in nodes for number, part in _fields(node) if number == _ATTRIBUTE]
        has_loop = any(number in _SUBGRAPHS for attribute in attributes for number, _ in _fields(attribute))
        has_loop |= any(number == _FUNCTION for number, _ in _fields(content))
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not a usable ONNX file ({first_line(error)}); export it again") from error
    if has_loop:
        raise ModelError(
            f"{path}: its graph has loops, branches or functions, which mien does not run; export it again"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not is_foreign and _has_limit():
        options.add_session_config_entry("session.use_env_allocators", "1")
    return _open(path, options, [PROVIDERS["cpu"]])


@cache
def _has_limit() -> bool:
    """Whether ONNX Runtime has the limited allocator of trials, which a process registers once."""
    limits = {"max_mem": _TRIAL_BYTES, "arena_extend_strategy": 1, "initial_chunk_size_bytes": 2**20}
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with suppress(Exception):  # another package of the process has registered its own
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({**limits, "max_dead_bytes_per_chunk": 2**20}))
        return True
    return False


# Numbers of fields in the protobuf messages of ONNX: of a model, a graph, a node and an attribute.
_GRAPH, _FUNCTION = 7, 25
_NODE = 1
_ATTRIBUTE = 5
_SUBGRAPHS = (6, 11)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The number and content of each field of a protobuf message that has a length."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of variable length, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError("not a protobuf message")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); get the right to read it") from error
    if is_damaged(content):
        raise ModelError(f"{path}: damaged: its checksum is wrong; install mien again or export it again")
    return content


def _open(path: Path, options: ort.SessionOptions, providers: Sequence[str]) -> Session:
    try:
        session = Session(str(path), options, providers=providers, enable_fallback=0)  # it prints
        # Names and metadata that are not UTF-8 raise UnicodeDecodeError here, and not where they are used.
        _ = session.get_modelmeta().custom_metadata_map
        _ = [(value.name, value.shape) for value in (*session.get_inputs(), *session.get_outputs())]
    except Exception as error:  # ONNX Runtime's own classes share no base below Exception
        raise ModelError(
            f"{path}: not a usable ONNX file ({first_line(error)}); install mien again or export it again"
        ) from error
    return session
