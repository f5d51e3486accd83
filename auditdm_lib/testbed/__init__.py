"""The testbed: a small procedural world that knows the right answer to every question asked about it."""
