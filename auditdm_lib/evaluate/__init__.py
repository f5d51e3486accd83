"""Scores of models on suites of held-out items."""
