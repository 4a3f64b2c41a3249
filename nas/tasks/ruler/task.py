"""RULER as a task: fresh examples at every training step, held-out ones of any length.

In: kinds, a form and a length. Out: batches of whole examples, the answers being what is scored.

Two things are asked of a candidate, and they have names of their own, so that a score always means
the same whoever's it is:

    ruler_recall             how much of examples of `length` tokens it recalls, whatever its own context.
                             Where it sees no more than c tokens, it reads the last c, which end with the
                             question and its answer: what does not fit is not seen. All candidates are
                             compared on the same examples. So is ruler_loss.
    ruler_recall_by_length   at a context of c tokens: how much it recalls of examples that were made c
                             tokens long, below `length` and beyond, all of which it sees. This is RULER's
                             curve, and what effective_context is told by.

At a context of `length` tokens they are the same. Training mixes lengths up to the candidate's own
context, each step's examples made at that step's length, so that one model knows all of them.

Source: Hsieh et al. 2024 (RULER).

Legend: B sequences, L positions, E examples, T tokens of all of them in one row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import IGNORED, Batch, Questions, Task, hashed
from nas.tasks.inputs import Inputs
from nas.tasks.lengths import mixed_length
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.ruler.forms import FORMS
from nas.tasks.ruler.held_out import Asked, HeldOut, RecallMetrics, held_out
from nas.tasks.ruler.kinds import KINDS, Example, Kind
from nas.tasks.windows import Windows, batches

# Of the example generator; a change of it is a change of the data.
GENERATOR_VERSION = 1


class Ruler(Task):
    """Needles, chains of variables and counted words in contexts of any length."""

    spec: ClassVar[specs.TaskSpec] = specs.Ruler()

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        form = FORMS[str(options["form"])](options)
        self.tokenizer = form.tokenizer
        self.shape = specs.TaskShape(vocabulary=form.vocabulary, head=self.spec.head)
        self.data_version = hashed({**self.spec.data_options(options), "generator": GENERATOR_VERSION})
        self._stop_tokens = form.stop_tokens
        self._kinds = {name: KINDS[name](name, form, options) for name in specs.ruler_kinds(options)}
        self._length, self._examples = int(options["length"]), int(options["evaluation_examples"])
        self._unit = "tokens" if form.tokenizer is None else "bytes"
        self._check_length("length", self._length)
        contexts: Any = options.get("contexts", [])
        for context in contexts:
            self._check_length("a context", context)
        self._held_out: dict[tuple[Split, int], HeldOut] = {}

    def longest_sequence(self, max_context: int) -> int:
        """max_context, which has to hold an example of every kind.

        Raises:
            DataError: it does not, or there are too few words to fill it.
        """
        self._check_length("max_context", max_context)
        return max_context

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """max_context or one of its halves that holds every kind (see `nas.tasks.lengths`)."""
        return mixed_length(seed=seed, step=step, max_context=max_context, shortest=self._shortest)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Fresh examples of the step's length, the kinds in equal shares."""
        self.check(tokens=tokens, max_context=max_context)
        length = self.step_length(seed=seed, step=step, max_context=max_context)
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        rows = tokens // length
        inputs_BL = np.zeros((rows, length), dtype=np.int64)
        targets_BL = np.full((rows, length), IGNORED, dtype=np.int64)
        # Where the rows are no multiple of the kinds, another kind is one short at each step.
        first = int(random.integers(len(self._kinds)))
        for row, kind in enumerate(self._turns(first, rows)):
            found = kind.example(random, length)
            said, end = len(found.prompt), len(found.prompt) + len(found.answer)
            inputs_BL[row, :end] = found.prompt + found.answer
            targets_BL[row, said - 1 : end - 1] = found.answer
        return Batch(Inputs(torch.from_numpy(inputs_BL)), torch.from_numpy(targets_BL))

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """The answers to held-out examples of `length` tokens, teacher-forced; of each the last `context` tokens.

        Raises:
            DataError: the context holds no example of some kind.
        """
        self._check_length("a context", context)
        found = self.held_out(split, self._length)
        first_E = np.maximum(found.prompt_E, found.end_E - context)
        windows = Windows(first_E, found.answer_E - 1, found.end_E, found.end_E)
        return batches(found.tokens_T, found.targets(), windows, tokens_per_batch=tokens_per_batch)

    def questions(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Questions]:
        """The prompts of examples of `length` tokens, and of others of `context` tokens.

        Raises:
            DataError: the context holds no example of some kind.
        """
        self._check_length("a context", context)
        for length in dict.fromkeys((self._length, context)):
            found = self.held_out(split, length)
            for name, kind in self._kinds.items():
                chosen_E = np.flatnonzero(np.array(found.kinds_E) == name)
                yield from self._questions_of(split, found, chosen_E, kind.room, context, tokens_per_batch)

    def curve_contexts(self, max_context: int) -> tuple[int, ...]:
        """A quarter, a half and twice of it, where they hold an example of every kind."""
        return tuple(context for context in super().curve_contexts(max_context) if not self._misfit(context))

    def metrics(self) -> Metrics:
        """ruler_recall, ruler_recall_by_length, ruler_loss, and the recall of each of several kinds."""
        return RecallMetrics(self._asked, tuple(self._kinds) if len(self._kinds) > 1 else ())

    def baseline(self, split: Split) -> dict[str, float]:
        """Guessing evenly, without repeating a guess.

        Among what the example shows: the values of its needles, its variables, its words. Where it shows
        nothing but what is asked for, that would not be guessing: then among all that could be shown.
        """
        found = self.held_out(split, self._length)
        recalls: dict[str, list[float]] = {name: [] for name in self._kinds}
        nats = 0.0
        for name, expected, shown in zip(found.kinds_E, found.expected_E, found.shown_E, strict=True):
            asked = len(expected)
            choices = shown if shown > asked else self._kinds[name].stock.size
            recalls[name].append(asked / choices)
            nats += sum(math.log(choices - said) for said in range(asked))
        mean = fmean(chance for part in recalls.values() for chance in part)
        scores = {
            "ruler_recall": mean,
            "ruler_recall_by_length": mean,
            "ruler_loss": nats / int((found.end_E - found.answer_E).sum()),
        }
        if len(self._kinds) > 1:
            scores |= {f"ruler_recall_{name}": fmean(part) for name, part in recalls.items()}
        return scores

    def held_out(self, split: Split, length: int) -> HeldOut:
        """The held-out examples of a length, the kinds in turn."""
        if (split, length) not in self._held_out:
            purpose = Purpose.VALIDATION if split == "validation" else Purpose.TEST
            random = generator(purpose, seed=0, step=length)
            kinds = list(self._turns(0, self._examples))
            examples: list[Example] = [kind.example(random, length) for kind in kinds]
            self._held_out[split, length] = held_out(examples, [kind.name for kind in kinds], length)
        return self._held_out[split, length]

    @property
    def _shortest(self) -> int:
        return max(kind.shortest for kind in self._kinds.values())

    def _turns(self, first: int, count: int) -> Iterator[Kind]:
        kinds = list(self._kinds.values())
        return (kinds[(first + place) % len(kinds)] for place in range(count))

    def _misfit(self, length: int) -> str:
        """Why some kind has no example of a length, with the nearest length that has one; or nothing."""
        for name, kind in self._kinds.items():
            if length < kind.shortest:
                return f"at least {self._shortest} {self._unit} to hold {name}, not {length}: nearest {self._shortest}"
            if kind.longest is not None and length > kind.longest:
                return (
                    f"at most {kind.longest} {self._unit}, for {name} has only {kind.stock.size} words, "
                    f"not {length}: nearest {kind.longest}"
                )
        return ""

    def _check_length(self, what: str, length: int) -> None:
        if misfit := self._misfit(length):
            raise DataError(f"{what} must be {misfit}")

    def _questions_of(
        self,
        split: Split,
        found: HeldOut,
        chosen_E: NDArray[np.int64],
        room: int,
        context: int,
        tokens_per_batch: int,
    ) -> Iterator[Questions]:
        """The questions of one kind, those with the longest prompts first."""
        first_E = np.maximum(found.prompt_E, found.answer_E - (context - room))
        size_E = found.answer_E - first_E
        order_E = chosen_E[np.argsort(-size_E[chosen_E], kind="stable")]
        at = 0
        while at < len(order_E):
            longest = int(size_E[order_E[at]])
            rows = order_E[at : at + max(tokens_per_batch // (longest + room), 1)]
            tokens_BL = np.zeros((len(rows), longest), dtype=np.int64)
            for row, example in enumerate(rows.tolist()):
                tokens_BL[row, : size_E[example]] = found.tokens_T[first_E[example] : found.answer_E[example]]
            lengths_B = None if (size_E[rows] == longest).all() else torch.from_numpy(size_E[rows])
            yield Questions(
                inputs=Inputs(torch.from_numpy(tokens_BL), lengths_B),
                example_B=self._numbers(split, found.length, rows.tolist()),
                most_tokens=room,
                stop_tokens=self._stop_tokens,
            )
            at += len(rows)

    def _numbers(self, split: Split, length: int, places: Sequence[int]) -> tuple[int, ...]:
        """One number for each held-out example of every part and length."""
        first = (2 * length + (split == "test")) * self._examples
        return tuple(first + place for place in places)

    def _asked(self, number: int) -> Asked:
        which, place = divmod(number, self._examples)
        length, is_test = divmod(which, 2)
        found = self.held_out("test" if is_test else "validation", length)
        return Asked(found.kinds_E[place], found.expected_E[place], is_own=length == self._length)
