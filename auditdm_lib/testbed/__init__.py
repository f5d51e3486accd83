"""The testbed: a small procedural world in which the right answer to every question is known."""
