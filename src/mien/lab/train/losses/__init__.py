"""The losses that a recipe can name: of the class, and auxiliary ones that teach the features something more.

class_loss          logits against the target: cross-entropy or focal
Contrast            faces of one class near each other, all others apart
Alignment           faces near their emotion's description in words
outside_share       how much of a class's map lies outside of the face oval
"""

from mien.lab.train.losses.alignment import Alignment
from mien.lab.train.losses.classes import class_loss
from mien.lab.train.losses.contrast import Contrast, contrastive_loss
from mien.lab.train.losses.oval import class_maps, outside_share

__all__ = ["Alignment", "Contrast", "class_loss", "class_maps", "contrastive_loss", "outside_share"]
