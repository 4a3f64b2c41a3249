"""The memory of the device that candidates are trained on, as a limit.

In: the words `device_memory` and `device_reserve` of a study. Out: a constraint on the peak of a training step, at
the tokens that a step of the study takes: what does not fit is known before it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nas import catalog
from nas.errors import InputError
from nas.space.architecture import Architecture
from nas.space.constraints import Constraint
from nas.units import BYTES, format_bytes, parse_number, parse_size

AUTO = "auto"
# Of the device's memory: what the formulas leave out (the driver's own, workspaces of kernels, fragments).
DEFAULT_RESERVE = "10%"


@dataclass(frozen=True)
class StepPeak:
    """Peak bytes of a training step: as many sequences of max_context as its tokens hold, and at least one.

    Attributes:
        tokens_per_step: of the study.
        checkpointing: whether layers keep their input alone.
    """

    tokens_per_step: int
    checkpointing: bool = False
    takes_bytes: ClassVar[bool] = True

    def __call__(self, architecture: Architecture) -> float:
        """The bytes for an architecture."""
        batch = max(1, self.tokens_per_step // architecture.max_context)
        figure = catalog.load("figure", "train_peak_bytes")
        return float(figure(architecture, batch=batch, checkpointing=self.checkpointing))


@dataclass(frozen=True)
class DeviceMemory:
    """What a candidate may take of the device that it is trained on.

    Attributes:
        bytes: of the device for one candidate; None: read when the study is run.
        reserve_share: of that memory, kept free.
        reserve_bytes: kept free besides.
    """

    bytes: float | None
    reserve_share: float = 0.0
    reserve_bytes: float = 0.0

    @staticmethod
    def parse(memory: str | float, reserve: str | float = DEFAULT_RESERVE) -> DeviceMemory:
        """That of a study's words.

        Args:
            memory: "auto", or bytes such as "8 GiB".
            reserve: a share such as "10%", or bytes.

        Raises:
            InputError: one is neither, or the reserve leaves nothing.
        """
        size = None if memory == AUTO else _size("device_memory", memory, f"'{AUTO}' or bytes, such as '8 GiB'")
        text = str(reserve).strip()
        if text.endswith("%"):
            share = _share(text)
            if not 0 <= share < 1:
                raise InputError(f"device_reserve must be at least 0% and below 100%, not '{reserve}'")
            return DeviceMemory(size, reserve_share=share)
        kept = 0.0 if text == "0" else _size("device_reserve", reserve, "a share or bytes, such as '10%' or '1 GiB'")
        if size is not None and kept >= size:
            whole = format_bytes(size)
            raise InputError(
                f"device_reserve must be below device_memory: {format_bytes(kept)} of {whole} leave nothing"
            )
        return DeviceMemory(size, reserve_bytes=kept)

    def constraint(
        self, tokens_per_step: int, found: float | None = None, *, checkpointing: bool = False
    ) -> Constraint:
        """The limit on a training step.

        Args:
            tokens_per_step: of the study.
            found: the device's bytes for one candidate; needed where the study leaves them to the device.
            checkpointing: whether layers keep their input alone.

        Raises:
            InputError: the reserve leaves nothing of it.
        """
        memory = self.bytes if self.bytes is not None else found
        assert memory is not None, "the device was not asked"
        limit = memory * (1 - self.reserve_share) - self.reserve_bytes
        if limit <= 0:
            raise InputError(f"device_reserve leaves nothing of the device's {format_bytes(memory)}")
        reserve = f"{100 * self.reserve_share:.4g}%" if not self.reserve_bytes else format_bytes(self.reserve_bytes)
        text = (
            f"train_peak_bytes of {tokens_per_step} tokens <= {limit:.0f} B "
            f"(device_memory {format_bytes(memory)}, {reserve} kept free)"
        )
        return Constraint(text, StepPeak(tokens_per_step, checkpointing), "<=", limit)


def _size(name: str, text: str | float, words: str) -> float:
    try:
        size = parse_size(text)
    except InputError as error:
        raise InputError(f"{name} must be {words}: {error}") from None
    if size < BYTES["MiB"] and not str(text).strip()[-1:].isalpha():
        raise InputError(f"{name} must be {words}: '{text}' has no unit, and would be bytes")
    return size


def _share(text: str) -> float:
    try:
        return parse_number(text.removesuffix("%")) / 100
    except InputError:
        raise InputError(f"device_reserve must be a share or bytes, such as '10%' or '1 GiB', not '{text}'") from None
