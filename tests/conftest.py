"""Shared settings of all tests."""

from __future__ import annotations

import os

# Before torch is imported: busy waiting makes threads 10 to 20 times slower beside any other load.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch

# The tensors of the tests are small; threads cost them more than they bring.
torch.set_num_threads(1)
