"""The paths that tell of the server itself: models, health, metrics, and the page about the API."""

import dataclasses
import json
from html import escape
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import mien
from mien._page import head
from mien.serve.answers import json_response
from mien.serve.service import Service


class About:
    """The paths that take nothing."""

    def __init__(self, service: Service) -> None:
        """``service`` is what they tell of."""
        self._service = service

    async def models(self, _: Request) -> Response:
        """The model that is loaded, the detector, the limits."""
        reader = self._service.engine.reader
        said = reader.model.metadata
        model = {
            "name": reader.model.name,
            "precision": said["precision"],
            "emotions": [str(emotion) for emotion in reader.model.emotions],
            "size": reader.model.size,
            "licence": said["licence"],
            "accuracy": _parsed(said["accuracy"]),
        }
        detector = getattr(reader.detector, "name", type(reader.detector).__name__)
        limits = dataclasses.asdict(self._service.limits)
        return json_response({"models": [model], "detector": detector, "version": mien.__version__, "limits": limits})

    async def health(self, _: Request) -> Response:
        """The process lives and its loop turns."""
        return json_response({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Whether a picture sent now would be accepted."""
        engine = self._service.engine
        if self._service.draining:
            return json_response({"status": "stopping"}, 503)
        if engine.accepted >= engine.limits.queue:
            return json_response({"status": "queue full"}, 503)
        return json_response({"status": "ready"})

    async def metrics(self, _: Request) -> Response:
        """Everything that is counted, for Prometheus."""
        return Response(self._service.metrics.to_text(), media_type=CONTENT_TYPE_LATEST)


def docs_page(api: dict[str, Any]) -> Response:
    """The OpenAPI as a page that loads nothing: every path with its parameters, answers and an example."""
    parts = [_path(path, method, said) for path, methods in api["paths"].items() for method, said in methods.items()]
    about = escape(api["info"]["description"]).replace("\n\n", "</p><p>")
    title = f"{api['info']['title']} {api['info']['version']}"
    body = f"<body><main><h1>{escape(title)}</h1><p>{about}</p>"
    body += '<p>For programs: <a href="openapi.json">openapi.json</a></p>'
    return HTMLResponse(head(title, _STYLE) + body + "".join(parts) + "</main></body></html>")


def _path(path: str, method: str, said: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(p['name'])}</code> {escape(_kind(p['schema']))}: {escape(p.get('description', ''))}</li>"
        for p in said.get("parameters", ())
    )
    bodies = "".join(f"<li><code>{escape(kind)}</code></li>" for kind in said.get("requestBody", {}).get("content", ()))
    answers = "".join(
        f"<li><b>{status}</b> {escape(answer.get('description', ''))}</li>"
        for status, answer in said["responses"].items()
    )
    return (
        f"<section><h2><small>{method.upper()}</small> {escape(path)}</h2><p>{escape(said.get('description', ''))}</p>"
        + (f"<h3>Query</h3><ul>{parameters}</ul>" if parameters else "")
        + (f"<h3>Body</h3><ul>{bodies}</ul>" if bodies else "")
        + f"<h3>Answers</h3><ul>{answers}</ul>{_example(said)}</section>"
    )


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    ends = f" {schema['minimum']}..{schema['maximum']}" if "minimum" in schema else ""
    return f"{schema.get('type', '')}{ends}"


def _example(said: dict[str, Any]) -> str:
    example = said["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("example")
    return "" if example is None else f"<h3>Example</h3><pre>{escape(json.dumps(example, indent=2))}</pre>"


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_STYLE = """
main { max-width: 52rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 2rem; }
h2 { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
h2 small { opacity: .6; }
h3 { margin: 1rem 0 .25rem; font-size: 1rem; }
ul { margin: 0; padding-left: 1.25rem; }
pre { overflow-x: auto; padding: .75rem; background: var(--track); font-size: .85rem; }
"""
