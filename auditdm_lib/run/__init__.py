"""Parameters, seals and the command line: how stages are run."""
