"""Search spaces and architectures, free of torch.

In: YAML files or plain mappings. Out: `Space`, and from it `Architecture`s in canonical form.
"""

from __future__ import annotations

from nas.space.architecture import Architecture
from nas.space.constraints import Constraint, Figure
from nas.space.layers import Layer
from nas.space.space import Parameter, Space

__all__ = ["Architecture", "Constraint", "Figure", "Layer", "Parameter", "Space"]
