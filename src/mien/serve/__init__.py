"""``mien serve``: the reader behind HTTP and WebSocket, on this machine alone unless its owner says otherwise.

    limits      what one request, one stream and all of them together may take
    problems    errors as problem details (RFC 9457)
    metrics     what is counted, for Prometheus
    engine      bounded queue, threads that decode and detect; behind them
    batcher     the thread that classifies the crops of several requests together
    guard       who may ask: host, origin, token; counts and logs every request
    bodies      the pictures of a request, parsed in memory while they arrive
    query       wishes in a request's address, read strictly
    service     what the paths share: body -> pictures -> futures -> waiting
    answers     readings -> JSON and PNG
    pictures    POST /v1/predict, POST /v1/explain
    wish        wishes of a stream, read strictly
    stream      WS /v1/stream
    about       GET /v1/models, /healthz, /readyz, /metrics, /docs
    site        the page at /
    schemas     what the OpenAPI says of answers; spec: of everything else
    app         all of the above as one application
    protocol    connections that dawdle, heads without end
    server      uvicorn: socket, signals

One process: the models are loaded once, the crops of all requests meet in one batch, and the limits hold for all of
them. The work is done outside of Python's lock (JPEG decoder, ONNX Runtime), so threads use the cores.

Needs the extra ``mien[serve]``.
"""

from mien.serve.app import create_app
from mien.serve.engine import Limits

__all__ = ["Limits", "create_app"]
