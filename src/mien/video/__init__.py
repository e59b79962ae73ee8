"""Frames -> moments: the faces of a film or a camera, followed from frame to frame, their readings smoothed in time.

source      path | address | camera | folder -> frames   rotation applied, broken frames skipped, newest if live
tracker     frame -> moment                               search, look, follow, read and smooth, a frame at a time
follow      places -> ids                                 motion predicted, lost and found again
smooth      values -> smoothed values                     a time constant in seconds, at any frame rate
moments     track: all of it in one call
"""

from mien.video.sources import Frames, open_source
from mien.video.tracker import Tracker, track
from mien.video.types import Frame, Moment, TrackedFace

__all__ = ["Frame", "Frames", "Moment", "TrackedFace", "Tracker", "open_source", "track"]
