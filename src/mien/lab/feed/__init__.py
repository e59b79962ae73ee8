"""From a path to the faces that a recipe learns from: which, how often, and what is told about each."""
