"""Frames -> moments: the faces of a film or a camera, followed from frame to frame, their readings smoothed in time.

source      path | address | camera | folder -> frames   rotation applied, broken frames skipped, newest if live
tracker     frame -> moment                               search, look, follow, read and smooth, a frame at a time
follow      places -> ids                                 motion predicted, lost and found again
smooth      values -> smoothed values                     a time constant in seconds, at any frame rate
moments     track: all of it in one call
"""

from mien.stream.frames import Frames
from mien.stream.moments import track
from mien.stream.records import Frame, Moment, TrackedFace
from mien.stream.source import open_source
from mien.stream.tracker import Tracker

__all__ = ["Frame", "Frames", "Moment", "TrackedFace", "Tracker", "open_source", "track"]
