"""Hyperparameter search: the search space of a recipe, its trials, and their results."""
