"""Failure types: clustered and named."""
