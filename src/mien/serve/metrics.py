"""What the server counts about itself, for Prometheus: numbers alone, nothing of any picture."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

# Seconds: from a tiny crop to a crowd in a large photograph behind a full queue.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own: several servers in one process do not mix."""

    def __init__(self) -> None:
        """Everything starts at 0."""
        self.registry = own = CollectorRegistry()
        self.requests = Counter("mien_requests", "Requests answered.", ("path", "status"), registry=own)
        self.seconds = Histogram(
            "mien_request_seconds", "From a request's head to its answer.", ("path",), buckets=_SECONDS, registry=own
        )
        stages = Histogram(
            "mien_stage_seconds",
            "Time of a picture by stage; receive counts requests.",
            ("stage",),
            buckets=_SECONDS,
            registry=own,
        )
        self.stages = {stage: stages.labels(stage) for stage in ("receive", "wait", "decode", "detect", "classify")}
        self.batches = Histogram("mien_batch_crops", "Crops classified together.", buckets=_CROPS, registry=own)
        self.queue = Gauge("mien_queue_pictures", "Pictures accepted and not yet answered.", registry=own)
        self.held = Gauge("mien_held_bytes", "Bytes of request bodies in memory.", registry=own)
        pictures = Counter("mien_pictures", "Pictures, by whether they could be read.", ("result",), registry=own)
        self.read, self.unread = pictures.labels("read"), pictures.labels("error")
        self.faces = Counter("mien_faces", "Faces read in pictures and frames.", registry=own)
        frames = Counter("mien_frames", "Frames of streams.", ("result",), registry=own)
        self.frames = {result: frames.labels(result) for result in ("read", "dropped", "error")}
        self.streams = Gauge("mien_streams", "Streams open now.", registry=own)
        ProcessCollector(registry=own)

    def to_text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
