"""The results of a run: its tables, measurements, claims, figures and report."""
