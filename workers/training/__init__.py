"""The training engine: a config, rows, a grader and a recorder go in; checkpoints and numbers come out.

It knows no database, no job and no HTTP, and it never opens a connection. `loop.py` is where to start
reading.
"""

import logging
import os

# Read by the libraries when they are first imported, hence before any module of this package.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Threads that wait by spinning starve each other on a busy machine: 2 on 2 shared cores cost 8 times the CPU.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As it is imported, it asks for a package with kernels for CPUs, which nothing here calls.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
