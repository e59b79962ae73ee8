"""Opens ONNX files: threads, execution providers and their errors."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from mien._errors import ModelError

# Short names of execution providers, and ONNX Runtime's names.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
}


def open_session(path: Path, *, threads: int = 1, providers: Sequence[str] = ("cpu",)) -> ort.InferenceSession:
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
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A thread that spins between calls takes the core from the other steps.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # x86 cores without VNNI add pairs of int8 products in 16 bits, which saturate: the embedded models lost 3 points of
    # accuracy there. This selects an exact kernel on such cores (a third slower) and changes nothing on others.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=[_full_name(p) for p in providers])
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's own classes share no base below Exception
        raise ModelError(
            f"{path}: not a usable ONNX file ({_first_line(error)}); install mien again or export it again"
        ) from error


def _full_name(provider: str) -> str:
    available = ort.get_available_providers()
    full = PROVIDERS.get(provider)
    if full is None:
        raise ModelError(f"unknown provider {provider!r}; mien knows {', '.join(PROVIDERS)}")
    if full not in available:
        here = ", ".join(short for short, name in PROVIDERS.items() if name in available)
        raise ModelError(
            f"provider {provider!r} is not in the installed onnxruntime (here: {here}); install the build that has it"
        )
    return full


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
