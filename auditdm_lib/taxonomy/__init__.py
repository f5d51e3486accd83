"""Failure types: clustering the failures, naming the clusters, and grading them against planted gaps."""
