"""Shared settings of all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

# Before torch is imported: busy waiting makes threads 10 to 20 times slower beside any other load.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

# What is made of data is kept apart from the user's own cache, and gone afterwards; workers inherit it.
os.environ["NAS_CACHE"] = tempfile.mkdtemp(prefix="nas-test-cache-")
# No test sees the sets that the user has prepared.
os.environ["NAS_DATA"] = os.path.join(os.environ["NAS_CACHE"], "no-data")  # noqa: PTH118
atexit.register(shutil.rmtree, os.environ["NAS_CACHE"], ignore_errors=True)

import torch  # noqa: E402

# The tensors of the tests are small; threads cost them more than they bring.
torch.set_num_threads(1)
