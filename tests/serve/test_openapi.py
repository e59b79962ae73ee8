"""The OpenAPI document is correct: Schemathesis sends many requests to every path."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import create_app, schemas
from support.encoded_images import encode
from support.http_server import serving

# The schema of an image allows any bytes or text, so Schemathesis gets real images. tests/serve/test_uploads.py sends
# others.
HOOKS = """
import base64
import pathlib
import schemathesis
from hypothesis import strategies

images = strategies.sampled_from([path.read_bytes() for path in sorted(pathlib.Path({folder!r}).glob("*.*g"))])
for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, images)
schemathesis.openapi.format("data-url", images.map(lambda image: "data:;base64," + base64.b64encode(image).decode()))
"""
WORDS = ("--max-examples", "100", "--seed", "1", "--no-color")


@pytest.mark.release
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing(tmp_path: Path, astronaut: np.ndarray) -> None:
    pytest.importorskip("schemathesis", reason="pip install schemathesis")
    (tmp_path / "a.png").write_bytes(encode(astronaut[::2, ::2]))
    (tmp_path / "b.jpg").write_bytes(encode(np.zeros((40, 60, 3), np.uint8), "JPEG"))
    (tmp_path / "hooks.py").write_text(HOOKS.format(folder=str(tmp_path)))
    with serving(create_app(Reader(), threads=2)) as server:
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{server.port}/openapi.json", *WORDS],
            cwd=tmp_path,
            env={"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_examples_match_the_schemas() -> None:
    schemas.PredictionOut.model_validate(schemas.PREDICTION_EXAMPLE)
    schemas.ProblemOut.model_validate(schemas.PROBLEM_EXAMPLE)


def test_responses_match_the_schemas(astronaut: np.ndarray) -> None:
    portrait = encode(astronaut[::2, ::2])
    with serving(create_app(Reader())) as server:
        schemas.PredictionOut.model_validate(server.request("/v1/predict?maps=true", portrait).json())
        schemas.PredictionOut.model_validate(server.form("/v1/predict", ("a", portrait), ("b", b"no")).json())
        schemas.ExplanationOut.model_validate(server.request("/v1/explain", portrait).json())
        schemas.ModelsOut.model_validate(server.request("/v1/models").json())
        schemas.ProblemOut.model_validate(server.request("/v1/predict", b"no").json())
        paths = server.request("/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/predict", "/v1/explain", "/v1/models", "/healthz", "/readyz", "/metrics"}
    good = paths["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    assert good["schema"] == {"$ref": "#/components/schemas/PredictionOut"}
    assert good["example"] == schemas.PREDICTION_EXAMPLE
