"""Trainings: of the auditor, and of the target that is rectified."""
