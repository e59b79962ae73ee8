"""Helpers of the tests; each module says in its name what it makes."""
