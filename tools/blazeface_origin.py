"""BlazeFace short-range as MediaPipe ships it: the wheel that holds it, and the two files that are taken out of it."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
MEMBER = "mediapipe/modules/face_detection/face_detection_short_range.tflite"
LICENSE_MEMBER = "mediapipe-0.10.21.dist-info/LICENSE"
TFLITE_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"


def fetch_wheel(folder: Path) -> Path:
    """Let pip download the wheel; its tags are named, because the model is the same whatever machine asks."""
    tags = [
        "--python-version",
        "311",
        "--implementation",
        "cp",
        "--abi",
        "cp311",
        "--platform",
        "manylinux_2_28_x86_64",
    ]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *tags]
    subprocess.run([*command, "--dest", str(folder), "mediapipe==0.10.21"], check=True)
    return folder / WHEEL


def read_wheel(wheel: Path) -> tuple[bytes, str]:
    """The TFLite file and the Apache licence's text; stops when the file is not the known one."""
    with zipfile.ZipFile(wheel) as archive:
        tflite = archive.read(MEMBER)
        licences = archive.read(LICENSE_MEMBER).decode()
    if hashlib.sha256(tflite).hexdigest() != TFLITE_SHA256:
        sys.exit(f"{wheel}: {MEMBER} is not the file this tool knows (sha256 {TFLITE_SHA256})")
    # The wheel appends the licence of one source file that has no part in this network.
    return tflite, licences.split("=" * 75)[0].rstrip() + "\n"
