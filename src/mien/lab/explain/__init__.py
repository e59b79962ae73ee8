"""Explanations of a network: saliency maps by several methods, and tests of how faithful they are.

methods -> attention, faithfulness -> study -> report
"""

from mien.lab.explain.methods import METHODS, Explainer, saliency_maps
from mien.lab.explain.study import DatasetExplanation, explain_dataset

__all__ = ["METHODS", "DatasetExplanation", "Explainer", "explain_dataset", "saliency_maps"]
