"""The `frontier` sampler: a surrogate for what is measured, exact values for what is known.

draws, mutations, crossings ─► Option ─► surrogate ─► expected hypervolume improvement ─► one
"""

from nas.search.frontier.sampler import FrontierSampler

__all__ = ["FrontierSampler"]
