"""A searched vocabulary: what each size of it makes of the task, and of a candidate.

In: a study whose space draws `vocabulary`. Out: for each size the task as it is read with that tokenizer,
and candidates whose context is counted in tokens.

Tokens of different vocabularies hold unequal amounts of text. So that candidates are compared fairly, the
budget and `max_context` of such a study count bytes of text: a candidate's context in tokens is what that
many bytes take on average with its tokenizer, on the training part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import DataError
from nas.records import TaskReference
from nas.space.architecture import Architecture
from nas.space.space import Drawn, Space
from nas.specs.tasks import TaskShape


@dataclass(frozen=True)
class Cut:
    """How texts are cut with one of the vocabularies.

    Attributes:
        vocabulary: as it is drawn; a small corpus may give a tokenizer with fewer tokens.
        reference: the task with that tokenizer.
        shape: what it fixes of a model.
        bytes_per_token: of the training part, on average.
    """

    vocabulary: int
    reference: TaskReference
    shape: TaskShape
    bytes_per_token: float

    def tokens(self, size: int) -> int:
        """How many tokens so many bytes of text take, at least 1.

        >>> Cut(512, TaskReference(name="language_modeling"), TaskShape(512, "causal_lm"), 2.5).tokens(1024)
        410
        """
        return max(1, round(size / self.bytes_per_token))

    def fit(self, architecture: Architecture) -> Architecture:
        """An unbound architecture whose max_context counts bytes, with one that counts tokens."""
        return Architecture.from_mapping(
            architecture.to_mapping() | {"max_context": self.tokens(architecture.max_context)}
        )


def reference_with(task: TaskReference, vocabulary: int) -> TaskReference:
    """The task with a tokenizer of that vocabulary."""
    options: dict[str, Any] = dict(task.options)
    named = options["tokenizer"]
    options["tokenizer"] = {**(named if isinstance(named, dict) else {"kind": named}), "vocabulary": vocabulary}
    return replace(task, options=tuple(sorted(options.items())), data_version="")


def bind(space: Space, drawn: Drawn, shape: TaskShape | None, cuts: Sequence[Cut]) -> Architecture:
    """The network of a draw, bound to the task, or to the task of its vocabulary."""
    if not cuts:
        return space.bind(drawn, shape)
    assert drawn.architecture is not None
    cut = next(cut for cut in cuts if cut.vocabulary == drawn.vocabulary)
    return cut.fit(drawn.architecture).bind(cut.shape)


def draws_of(
    space: Space, architecture: Architecture, cuts: Sequence[Cut]
) -> Iterator[tuple[Architecture, int | None]]:
    """The unbound networks, and the vocabularies, that may have been drawn for a bound one."""
    unbound = replace(architecture, vocabulary=None, head=None, labels=None)
    if not cuts:
        yield unbound, None
    for cut in cuts:
        if cut.shape.vocabulary != architecture.vocabulary:
            continue
        for size in space.globals["max_context"].domain.grid or ():
            if cut.tokens(int(size)) == architecture.max_context:
                yield Architecture.from_mapping(unbound.to_mapping() | {"max_context": int(size)}), cut.vocabulary


def joint_version(cuts: Sequence[Cut], expected: str) -> str:
    """One version for the data of all of them.

    Raises:
        DataError: it is not what was expected.
    """
    found = hashlib.sha256(" ".join(cut.reference.data_version for cut in cuts).encode()).hexdigest()[:16]
    if expected and found != expected:
        raise DataError(
            f"the data of task '{cuts[0].reference.name}' must stay as it was when the study was made: version "
            f"{expected} then, {found} now; restore it or start another study"
        )
    return found
