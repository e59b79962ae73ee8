"""A small conditional GAN that makes faces of the rare classes (document 001), and says how good they are.

synthesize: learn (nets, perturb) -> sample -> judge (features, kernel, neighbours) -> sheet
"""
