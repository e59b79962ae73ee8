"""HTTP and WebSocket server around a ``Reader``, with a web page; started by ``mien serve``.

    app         the FastAPI application: routes, middleware, and the web page at /
    routes      the HTTP endpoints
    websocket   WS /v1/stream: frames of a camera, with tracked faces
    service     state that all endpoints share; request -> images -> readings
    uploads     images of a request body, parsed in memory under the limits
    engine      limits, metrics, the bounded queue, threads, batches of crops
    auth        access by host, origin and token; counts and logs every request
    schemas     query parameters, JSON shapes and the OpenAPI document
    responses   readings and saliency maps as JSON and PNG
    problems    errors as problem details (RFC 9457)
    connections uvicorn's protocols with limits against slow or malicious clients
    server      uvicorn: socket, signals

The server is one process. The models are loaded once, the crops of concurrent requests share batches, and the limits
hold for all requests together. JPEG decoding and ONNX Runtime release Python's lock, so threads use all cores.

Requires the extra ``mien[serve]``.
"""

from mien.serve.app import create_app
from mien.serve.auth import Access
from mien.serve.engine import Limits

__all__ = ["Access", "Limits", "create_app"]
