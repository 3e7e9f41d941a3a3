"""Tests mirror the sources: tests/<room>/test_<module>.py."""

import os

# Before numpy is imported: a worker a core, a thread a worker. With a thread a core as well, the suite took 400 seconds
# of processor time on two busy cores instead of 155: threads of BLAS spin while they wait.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
