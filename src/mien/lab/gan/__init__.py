"""A small conditional GAN that generates faces of rare classes (document 001), and the evaluation of its faces."""
