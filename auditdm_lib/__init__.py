"""The AuditDM kit: audit a vision-language model, name its failures, mend them, score it again."""

import os

__version__ = "0.1.0"

# How often a waiting thread of PyTorch looks for work before it sleeps (GNU OpenMP reads it when torch is imported). At the
# library's default two threads beside busy processes keep each other from the cores, and a training step of these small models
# takes three to twelve times as long. SPIN costs nothing on a quiet machine; SPIN_BUSY is slower there and quicker beside others.
SPIN, SPIN_BUSY = "3000", "300"
os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
