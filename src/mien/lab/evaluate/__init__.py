"""Evaluation of a model on labelled faces: metrics, predictions and an HTML report.

find_subjects -> load_tests -> prepare -> evaluate_task -> Evaluation -> metrics.json, predictions.npz, report.html
"""
