"""`mien search`: a recipe's space, its trials, and what they found."""
