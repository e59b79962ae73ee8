"""Opens ONNX files: threads, execution providers and their errors."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

from mien._checksum import is_damaged
from mien._errors import ModelError, first_line

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
# that raises an error when nobody waits for the result any more.
CHECK: ContextVar[Callable[[], object]] = ContextVar("CHECK", default=bool)


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
    if not path.is_file():
        raise ModelError(f"{path}: no such model file")
    if isinstance(providers, str) or not all(isinstance(provider, str) for provider in providers):
        raise ModelError(f"providers is {providers!r:.80}; it must be a list of names, such as ('cpu',)")
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
    # x86 cores without VNNI add pairs of int8 products in 16 bits, which saturate: the embedded models lost 3 points of
    # accuracy. This selects an exact kernel on such cores, which is a third slower. Other cores are not affected.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        is_broken = is_damaged(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); get the right to read it") from error
    if is_broken:
        raise ModelError(f"{path}: damaged: its checksum is wrong; install mien again or export it again")
    try:
        session = Session(str(path), options, providers=[PROVIDERS[provider] for provider in providers])
        _read_names(session)
    except Exception as error:  # ONNX Runtime's own classes share no base below Exception
        raise ModelError(
            f"{path}: not a usable ONNX file ({first_line(error)}); install mien again or export it again"
        ) from error
    session.reopen = partial(open_session, path, threads=threads, providers=tuple(providers))
    return session


def _read_names(session: Session) -> None:
    """Raise UnicodeDecodeError here, and not where the names and metadata are used, if they are not UTF-8."""
    _ = session.get_modelmeta().custom_metadata_map
    for value in (*session.get_inputs(), *session.get_outputs()):
        _ = value.name, value.shape
