"""One model on labelled faces, for people to believe and to look at: figures, answers and a page.

find_subjects -> load_tests -> read_faces -> Evaluation -> metrics.json, predictions.npz, report.html
"""
