"""Position-wise networks: each token transformed alone.

In: (…, width). Out: (…, width). Every class is made from (width, hidden).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Module, ABC):
    """What a block asks of a position-wise network."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The linear maps whose output is added to the residual stream."""
        return ()


class SwiGLU(MLP):
    """down(silu(gate(x)) · up(x)), no bias (Shazeer 2020).

    Args:
        width: features in and out.
        hidden: features between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The down projection."""
        return (self.down_proj,)


class GEGLU(MLP):
    """down(gelu(gate(x)) · up(x)), no bias (Shazeer 2020), with the exact GELU as in ModernBERT.

    Args:
        width: features in and out.
        hidden: features between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""
        return self.down_proj(functional.gelu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The down projection."""
        return (self.down_proj,)


class GELU(MLP):
    """down(gelu(up(x))), no bias, with the exact GELU (Hendrycks & Gimpel 2016) as in BERT.

    Args:
        width: features in and out.
        hidden: features between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) to (…, width)."""
        return self.down_proj(functional.gelu(self.up_proj(x)))  # type: ignore[no-any-return]

    def residual_projections(self) -> tuple[nn.Linear, ...]:
        """The down projection."""
        return (self.down_proj,)


class NoMLP(MLP):
    """No position-wise network: it adds nothing, and its block has no norm for it."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x)
