"""What an architecture costs, known before it is trained."""

from __future__ import annotations

from nas.cost.estimate import Estimate, estimate

__all__ = ["Estimate", "estimate"]
