"""Faces spoilt in known ways, and what a model's answers are worth then.

spoilings -> read -> figures -> corruption, groups -> kept -> report
"""
