"""Where a network looked: maps by several methods, and how far they can be believed.

explain(net, faces, classes) -> maps; study(model, faces) -> mean maps, attention by region, faithfulness, sanity
"""

from mien.lab.explain.methods import METHODS, explain

__all__ = ["METHODS", "explain"]
