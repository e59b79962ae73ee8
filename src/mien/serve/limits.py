"""What one request, one stream and all of them together may take."""

from dataclasses import dataclass

from mien._errors import MienError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the server. Raises ``MienError`` that names the option, for a bound that lets nothing through."""

    max_bytes: int = 32 * 2**20
    """Bytes of a request's body, and of one frame of a stream."""
    max_pixels: int = 50_000_000
    """Width x height of a picture; three bytes each while it is read."""
    max_images: int = 16
    """Pictures of one request."""
    timeout: float = 30.0
    """Seconds in which a request must have arrived, and again in which it must be answered."""
    queue: int = 128
    """Pictures that are accepted and not yet answered; beyond them the answer is 503."""
    streams: int = 8
    """Streams open at the same time."""
    idle: float = 60.0
    """Seconds without a frame after which a stream is closed."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "queue"):
            if getattr(self, name) < 1:
                raise MienError(f"--{name.replace('_', '-')} counts from 1, not {getattr(self, name)}")
        for name in ("timeout", "idle"):
            if not 0 < getattr(self, name) < float("inf"):
                raise MienError(f"--{name} is a number of seconds above 0, not {getattr(self, name)}")
        if self.streams < 0:
            raise MienError(f"--streams counts from 0, not {self.streams}")
        if self.max_images > self.queue:
            raise MienError(
                f"--max-images {self.max_images} does not fit into --queue {self.queue}; such requests would never pass"
            )

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are in memory at the same time; beyond them the answer is 503."""
        return 8 * self.max_bytes
