"""Track faces through videos, cameras, streams and folders of frames, and smooth their readings over time.

sources        path | address | camera | folder -> frames
prefetch       decodes a few frames in advance on a thread
association    boxes of one frame -> tracks, by predicted motion
tracker        frame -> FrameResult; ``track`` does all of it in one call
types          Frame, TrackedFace, FrameResult
video_writer   results -> annotated MP4; ``audio`` copies the audio of the source
statistics     results -> time by emotion of each track; ``timeline`` shows it as an HTML page
outputs        results -> JSON lines, CSV, Parquet, and all of these files
"""

from mien.video.sources import FrameSource, open_source
from mien.video.tracker import Tracker, track
from mien.video.types import Frame, FrameResult, TrackedFace

__all__ = ["Frame", "FrameResult", "FrameSource", "TrackedFace", "Tracker", "open_source", "track"]
