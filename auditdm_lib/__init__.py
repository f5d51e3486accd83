"""The AuditDM kit: audit a vision-language model, name its failures, mend them, score it again."""

import os

__version__ = "0.1.0"

# How long a waiting thread of PyTorch spins before it sleeps; read when torch is imported. Two threads that spin beside a busy
# process keep each other from the core: at the library's default, a training step of these small models is three to twelve
# times slower then. At 300 it is at most three times slower beside two busy processes, and as fast as before on a quiet machine.
os.environ.setdefault("GOMP_SPINCOUNT", "300")
