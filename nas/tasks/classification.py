"""Classification of texts: one label each, or any number of them.

In: records with a text and a label or labels. Out: training batches of texts of like length,
held-out batches, and metrics of whole texts.

A text is read with `<document>` before it. Of one that is longer than the context, what `too_long` says
is read; how much is cut off is a metric of its own. The labels are those of the training part.

A head over the labels tells the label, or the model says it behind the text, as one of the labels' own tokens
(see `nas.tasks.answers`). Then loss, probabilities and metrics are taken over the labels' tokens alone: what
is likely besides is never asked, so that training optimises what is measured, and the figures of both forms
mean the same. The cut of texts into tokens is the same too: the labels' tokens come behind the vocabulary.

Legend: N texts of a part, B texts of a batch, W views of texts, C labels, V outputs of a model.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from nas.errors import DataError, did_you_mean
from nas.records import Split
from nas.specs import tasks as specs
from nas.tasks.answers import asked, first_label, label_specials, marks
from nas.tasks.base import Batch, Labels, StepShape, Task, hashed
from nas.tasks.class_metrics import ClassMetrics, class_scores, frequent_label_scores
from nas.tasks.corpus import PARTS, tokenizer_for
from nas.tasks.data import CacheWriter, Dataset, cached, open_dataset, say
from nas.tasks.metrics import Metrics
from nas.tasks.randomness import Purpose, generator
from nas.tasks.texts import Epochs, cut_share, drawn_views, grouped, held_out, read_views, views
from nas.tasks.tokenizers import Tokenizer
from nas.tasks.windows import Positions

# A change of what is written is a change of this number.
CACHE_VERSION: Final = 2
# Texts are encoded in groups of so many.
GROUP: Final = 256


class Classification(Task):
    """Classification by a head over the labels, or by tokens that say them."""

    spec: ClassVar[specs.TaskSpec] = specs.Classification()
    tokenizer: Tokenizer
    labels: Labels

    def __init__(self, options: Mapping[str, Any]) -> None:
        for broken in self.spec.broken_rules(options):
            raise DataError(broken.text)
        options = self.spec.complete(options)
        self._multi_label = bool(options.get("multi_label", False))
        form = str(options.get("form", "head"))
        self._form = "causal" if form == "text_to_text" else form
        dataset = open_dataset(options, specs.Classification().fields(options))
        # Which labels there are is known when the texts are read: their tokens are added behind.
        plain = tokenizer_for(options.get("tokenizer"), dataset, ())
        key = json.dumps(["classification", CACHE_VERSION, dataset.digest, plain.to_json()])
        reader = cached(
            hashlib.sha256(key.encode()).hexdigest(),
            lambda writer: _write(writer, dataset, plain, multi_label=self._multi_label),
        )
        say(reader.facts["notes"])
        self._too_long, self._wanted = str(options["too_long"]), int(options["evaluation_examples"])
        self.labels = Labels(tuple(reader.facts["labels"]), self._multi_label, self._too_long)
        self._texts = {part: reader.ragged(part) for part in PARTS}
        self._targets = {part: reader.array(f"{part}_targets") for part in PARTS}
        count, is_said = len(self.labels.names), self._form != "head"
        self.tokenizer = plain.with_specials(label_specials(count)) if is_said else plain
        self._first = first_label(self._form, self.tokenizer)
        self.bytes_per_token = self.tokenizer.bytes_per_token(self._texts["train"].flat)
        self.shape = specs.TaskShape(
            vocabulary=self.tokenizer.vocabulary,
            head=self.spec.head_for(options),
            labels=None if is_said else count,
        )
        facts = {key: value for key, value in self.spec.data_options(options).items() if key not in specs.DATA_PLACES}
        facts |= {"tokenizer": self.tokenizer.to_json(), "labels": self.labels.names, "cache": CACHE_VERSION}
        self.data_version = hashed(facts, dataset.digest)
        length_N = self._texts["train"].lengths
        self._epochs = Epochs(length_N, lambda text_N, context: self._sizes(int(length_N[text_N].max()), context))

    @classmethod
    def source_stamp(cls, options: Mapping[str, Any]) -> tuple[object, ...]:
        """Names, sizes and times of the files."""
        return open_dataset(options, specs.Classification().fields(options)).stamp()

    def longest_sequence(self, max_context: int) -> int:
        """That of the longest text, or what the context holds of it.

        Raises:
            DataError: the context holds no text beside the place of the answer.
        """
        if max_context <= marks(self._form):
            raise DataError(f"a text and its label need a context of at least 2 tokens, not {max_context}: nearest 2")
        return sum(self._sizes(self._epochs.longest, max_context))

    def step_length(self, *, seed: int, step: int, max_context: int) -> int:
        """The most that a step may have: that of the longest text, or the context."""
        return max(self._sizes(self._epochs.longest, max_context))

    def step_shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of the step's class of texts (see `nas.tasks.texts`)."""
        return self._epochs.shape(seed=seed, step=step, tokens=tokens, max_context=max_context)

    def training_batch(self, *, seed: int, step: int, tokens: int, max_context: int) -> Batch:
        """Texts of like length; every text once in an epoch."""
        self.check(tokens=tokens, max_context=max_context)
        taken = self._epochs.step(seed=seed, step=step, tokens=tokens, max_context=max_context)
        random = generator(Purpose.TRAINING, seed=seed, step=step)
        lengths_B = self._texts["train"].lengths[taken.text_B]
        found = drawn_views(random, taken.text_B, lengths_B, max_context - marks(self._form), self._too_long)
        read = read_views(self._texts["train"], found, taken.source_length or taken.length - marks(self._form))
        return Batch(asked(read, self._form, self.tokenizer), torch.from_numpy(self._targets["train"][taken.text_B]))

    def evaluation_batches(self, split: Split, *, context: int, tokens_per_batch: int) -> Iterator[Batch]:
        """The held-out texts, every view of each."""
        text_N = self._held_out(split)
        found = views(text_N, self._texts[split].lengths[text_N], context - marks(self._form), self._too_long)
        for group, length in grouped(found, tokens_per_batch, more=0 if self._form == "head" else 1):
            inputs = asked(read_views(self._texts[split], group, length), self._form, self.tokenizer)
            targets = torch.from_numpy(self._targets[split][group.text_W])
            yield Batch(inputs, targets, torch.from_numpy(group.text_W))

    def known_scores(self, split: Split, *, context: int) -> dict[str, float]:
        """cut_share."""
        length_N = self._texts[split].lengths[self._held_out(split)]
        return {"cut_share": cut_share(length_N, context - marks(self._form), self._too_long)}

    def metrics(self) -> Metrics:
        """Accuracy, macro F1, calibration error and loss."""
        return ClassMetrics(len(self.labels.names), multi_label=self._multi_label, first=self._first)

    def baseline(self, split: Split) -> dict[str, float]:
        """What knowing how frequent the labels of the part are would score, without a look at a text.

        Of one label: always the most frequent one; its loss is the entropy of the labels. Of several:
        the most frequent set of labels (accuracy), all labels (macro F1), each one's frequency (loss).
        Such a guesser is calibrated.
        """
        if not self._multi_label:
            return frequent_label_scores(self._targets[split][self._held_out(split)], len(self.labels.names))
        targets = torch.from_numpy(self._targets[split][self._held_out(split)])
        sets = Counter(map(tuple, targets.tolist()))
        share_C = targets.double().mean(0)
        found = class_scores(torch.ones_like(targets, dtype=torch.float64), targets)
        found["accuracy"] = max(sets.values()) / len(targets)
        # Of either answer, so much: two entropies in one row of shares.
        both = torch.stack([share_C, 1 - share_C])
        found["classification_loss"] = float(-torch.special.xlogy(both, both).sum(0).mean())
        return {**found, "calibration_error": 0.0, "cut_share": 0.0}

    def loss(self, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """Mean cross-entropy among the labels in nats; of several labels, the binary one of each."""
        logits_NC = logits_NV[:, self._first : self._first + len(self.labels.names)]
        if self._multi_label:
            return binary_cross_entropy_with_logits(logits_NC.float(), targets_N.float())
        return super().loss(logits_NC, targets_N)

    def _sizes(self, longest: int, context: int) -> tuple[int, int]:
        """Length and source length to which texts are filled up, of which the longest has so many tokens."""
        if self._form == "seq2seq":
            return 1, min(longest, context)
        return min(longest + marks(self._form), context), 0

    def _held_out(self, split: Split) -> Positions:
        return held_out(len(self._texts[split]), self._wanted, split)


def _write(writer: CacheWriter, dataset: Dataset, tokenizer: Tokenizer, *, multi_label: bool) -> None:
    rows = {part: writer.ragged(part, tokenizer.id_type) for part in PARTS}
    seen: dict[str, list[tuple[int, ...]]] = {part: [] for part in PARTS}
    names: dict[str, int] = {}
    first: dict[str, tuple[str, Any]] = {}
    group: list[tuple[str, str]] = []
    mark = np.array([tokenizer.document], dtype=tokenizer.id_type)

    def flush() -> None:
        for (part, _), ids in zip(group, tokenizer.encode_many([text for _, text in group]), strict=True):
            rows[part].append(np.concatenate([mark, ids]))
        group.clear()

    trained: set[str] = set()
    for part, record in dataset.records():
        group.append((part, record["text"]))
        labels = record["labels"] if multi_label else [record["label"]]
        for label in labels:
            first.setdefault(label, (part, record["_where"]))
        trained.update(labels if part == "train" else ())
        seen[part].append(tuple(names.setdefault(label, len(names)) for label in labels))
        if len(group) == GROUP:
            flush()
    flush()
    ordered = _checked_labels(dataset.name, trained, first, multi_label=multi_label)
    place = {names[label]: number for number, label in enumerate(ordered)}
    for part in PARTS:
        if multi_label:
            targets = np.zeros((len(seen[part]), len(ordered)), dtype=np.int64)
            for row, found in enumerate(seen[part]):
                targets[row, [place[name] for name in found]] = 1
        else:
            targets = np.array([place[found[0]] for found in seen[part]], dtype=np.int64)
        writer.array(f"{part}_targets", targets)
    counts = Counter(name for part in PARTS for found in seen[part] for name in found)
    alike = _alike({label: counts[names[label]] for label in ordered}, first)
    notes = [*dataset.notes(), *(f"{dataset.name}: {note}" for note in alike)]
    writer.facts({"labels": ordered, "notes": notes})


def _alike(counts: Mapping[str, int], first: Mapping[str, tuple[str, Any]]) -> Iterator[str]:
    """What is to be said of labels that differ in blanks or case alone: perhaps they are meant to be one."""
    by_plain: dict[str, list[str]] = {}
    for label in counts:
        by_plain.setdefault(" ".join(label.split()).casefold(), []).append(label)
    for labels in by_plain.values():
        most, *others = sorted(labels, key=lambda label: -counts[label])
        for other in others:
            path, row = first[other][1]
            yield (
                f"{counts[other]:,} records have the label '{other}', the first in {path}, row {row}, which differs "
                f"from '{most}' in blanks or case alone: they count as two"
            )


def _checked_labels(
    name: str, trained: set[str], first: Mapping[str, tuple[str, Any]], *, multi_label: bool
) -> Sequence[str]:
    """The labels in their order."""
    ordered = sorted(trained)
    for label, (part, (path, row)) in first.items():
        if label not in trained:
            raise DataError(
                f"{path}, row {row}: the label '{label}' of the {part} part does not occur in the training part: "
                f"{did_you_mean(label, ordered)}"
            )
    if len(ordered) < (1 if multi_label else 2):
        wanted = "one label" if multi_label else "two labels"
        have = f"only '{ordered[0]}'" if ordered else "none"
        raise DataError(f"classification needs at least {wanted}: the texts of the training part of {name} have {have}")
    return ordered
