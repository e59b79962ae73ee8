"""The training of one recipe: batches, objective, course, the loop, and what it keeps between two epochs."""
