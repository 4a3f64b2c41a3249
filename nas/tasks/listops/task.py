"""ListOps as a task: lists of digits and operators, classified by the digit that they come to.

In: the sizes of lists. Out: training batches of lists of like length, held-out batches, and metrics of
whole lists, as classification has them.

All parts are a pure function of the options: no list of one part stands in another, nor twice in one. They
are made once, lie in the cache of data, and are shared by all candidates, workers and studies. Where every
step is to have fresh lists, a pool of them is drawn for so many steps at a time, so that a step finds
enough of like length; what is held out is left out, and but for what fills up the last step of a class (a
few per cent) no list is read twice.

Legend: N lists of a part, B lists of a batch, W views of lists, C labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.base import Batch, Labels, StepShape, Task, hashed
from nas.tasks.class_metrics import ClassMetrics, frequent_label_scores
from nas.tasks.data import CacheReader, CacheWriter, Ragged, cached
from nas.tasks.listops.expressions import DIGITS, VOCABULARY, Sizes, lists
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.texts import Epochs, cut_share, drawn_views, grouped, read_views, views
from nas.tasks.windows import Positions

# Of the generator; a change of it is a change of the data.
GENERATOR_VERSION: Final = 1
# A pool of fresh lists lasts for so many steps.
POOL_STEPS: Final = 128
LARGEST_DRAW: Final = 4096
# Where fewer than one draw in so many is of use, or none of so many more, nobody would wait for the end.
RAREST: Final = 20_000
FRUITLESS: Final = 200_000


@dataclass(frozen=True)
class Lists:
    """Lists in one row.

    Attributes:
        tokens: of each.
        value_N: the digit that each comes to, int64.
    """

    tokens: Ragged
    value_N: Positions


class ListOps(Task):
    """Classification of lists by a head over the ten digits."""

    spec: ClassVar[specs.TaskSpec] = specs.ListOps()
    labels: Labels

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        self.tokenizer = None
        self._sizes = Sizes(*(int(options[key]) for key in ("shortest", "longest", "max_depth", "max_arguments")))
        self._too_long, self._training = str(options["too_long"]), int(options["training_examples"])
        self.labels = Labels(tuple(map(str, range(DIGITS))), too_long=self._too_long)
        self.shape = specs.TaskShape(vocabulary=VOCABULARY, head=self.spec.head, labels=DIGITS)
        self.data_version = hashed({**self.spec.data_options(options), "generator": GENERATOR_VERSION})
        held_out = int(options["evaluation_examples"])
        reader = _made(self._sizes, {"validation": held_out, "test": held_out, "train": self._training})
        self._parts = {
            part: Lists(reader.ragged(part), reader.array(f"{part}_values")) for part in reader.facts["parts"]
        }
        if self._training:
            self._epochs = Epochs(self._parts["train"].tokens.lengths)
        else:
            self._left_out = {_digest(held[row]) for held in self._held_out_tokens() for row in range(len(held))}
        self._pool = lru_cache(maxsize=2)(self._made_pool)

    def longest_sequence(self, max_context: int) -> int:
        """That of the longest list that there may be, or what the context holds of it."""
        return min(max_context, self._sizes.longest)

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The most that a step may have."""
        return self.longest_sequence(max_context)

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of the step's class of lists (see `nas.tasks.texts`)."""
        _, epochs, place = self._source(seed, step, tokens, max_context)
        return epochs.shape(seed=seed, step=place, tokens=tokens, max_context=max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Lists of like length; of a fixed set every one once in an epoch."""
        self.check(tokens=tokens, max_context=max_context)
        part, epochs, place = self._source(seed, step, tokens, max_context)
        taken = epochs.step(seed=seed, step=place, tokens=tokens, max_context=max_context)
        random = generator(Purpose.TRAINING, seed=seed, step=2 * step)
        found = drawn_views(random, taken.text_B, part.tokens.lengths[taken.text_B], max_context, self._too_long)
        inputs = read_views(part.tokens, found, taken.length)
        return Batch(inputs, torch.from_numpy(part.value_N[taken.text_B]))

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """The held-out lists, every view of each."""
        part = self._parts[split]
        found = views(np.arange(len(part.tokens)), part.tokens.lengths, context, self._too_long)
        for group, length in grouped(found, tokens_per_batch):
            inputs = read_views(part.tokens, group, length)
            yield Batch(inputs, torch.from_numpy(part.value_N[group.text_W]), torch.from_numpy(group.text_W))

    def known_scores(self, split: Split, *, context: int) -> dict[str, float]:
        """cut_share."""
        return {"cut_share": cut_share(self._parts[split].tokens.lengths, context, self._too_long)}

    def metrics(self) -> Metrics:
        """Accuracy, macro F1, calibration error and loss."""
        return ClassMetrics(DIGITS, multi_label=False)

    def baseline(self, split: Split) -> dict[str, float]:
        """Always the most frequent digit of the part; its loss is the entropy of the digits."""
        return frequent_label_scores(self._parts[split].value_N, DIGITS)

    def part(self, name: str) -> Lists:
        """The lists of "validation", "test" or, where there is a fixed training set, "train"."""
        return self._parts[name]

    def _held_out_tokens(self) -> list[Ragged]:
        return [self._parts[part].tokens for part in ("validation", "test")]

    def _source(self, seed: int, step: int, tokens: int, max_context: int) -> tuple[Lists, Epochs, int]:
        """What a step's lists are taken from, in which order, and which step of that order it is."""
        if self._training:
            return self._parts["train"], self._epochs, step
        mean = float(np.minimum(self._parts["validation"].tokens.lengths, max_context).mean())
        pool, place = divmod(step, POOL_STEPS)
        part, epochs = self._pool(seed, pool, int(POOL_STEPS * tokens / mean) + 1)
        return part, epochs, place

    def _made_pool(self, seed: int, pool: int, count: int) -> tuple[Lists, Epochs]:
        random = generator(Purpose.TRAINING, seed=seed, step=2 * pool + 1)
        tokens, values = [], []
        for found, value in _drawn(random, self._sizes, count, self._left_out, distinct=False):
            tokens.append(found)
            values.append(value)
        offsets = np.concatenate([[0], np.cumsum([len(found) for found in tokens])])
        part = Lists(Ragged(np.concatenate(tokens), offsets), np.array(values, dtype=np.int64))
        return part, Epochs(part.tokens.lengths)


def _made(sizes: Sizes, counts: Mapping[str, int]) -> CacheReader:
    """The parts in the cache, written first where they are not there."""
    key = json.dumps(["listops", GENERATOR_VERSION, astuple(sizes), dict(counts)])
    return cached(hashlib.sha256(key.encode()).hexdigest(), lambda writer: _write(writer, sizes, counts))


def _write(writer: CacheWriter, sizes: Sizes, counts: Mapping[str, int]) -> None:
    purposes = {"validation": Purpose.VALIDATION, "test": Purpose.TEST, "train": Purpose.EXAMPLES}
    seen: set[bytes] = set()
    for part, count in counts.items():
        if count:
            row, values = writer.ragged(part, np.uint8), []
            for tokens, value in _drawn(generator(purposes[part], seed=0), sizes, count, seen, distinct=True):
                row.append(tokens)
                values.append(value)
            writer.array(f"{part}_values", np.array(values, dtype=np.int64))
    writer.facts({"parts": [part for part, count in counts.items() if count]})


def _drawn(
    random: np.random.Generator, sizes: Sizes, count: int, seen: set[bytes], *, distinct: bool
) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """So many lists that were not seen, and their values.

    Args:
        random: draws them.
        sizes: of the lists.
        count: how many.
        seen: digests of lists to leave out.
        distinct: whether each counts as seen then.

    Raises:
        DataError: there are hardly any such lists.
    """
    missing, tried, fruitless = count, 0, 0
    while missing:
        size = min(max(4 * missing, 64), LARGEST_DRAW)
        tried, fruitless = tried + size, fruitless + size
        found, values = lists(random, sizes, size)
        for tokens, value in zip(found, values.tolist(), strict=True):
            digest = _digest(tokens)
            if missing and digest not in seen:
                missing, fruitless = missing - 1, 0
                if distinct:
                    seen.add(digest)
                yield tokens, value
        if fruitless > FRUITLESS or tried > RAREST * (1 + count - missing):
            raise DataError(
                f"only {count - missing} of the {count} lists that were asked for turned up in {tried} draws: "
                f"lists of {sizes.shortest} to {sizes.longest} tokens with max_depth {sizes.max_depth} and "
                f"max_arguments {sizes.max_arguments} are too rare, or too few differ; widen shortest to longest "
                f"or ask for fewer"
            )


def _digest(tokens: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
