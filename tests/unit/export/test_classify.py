"""A classifier leaves with its labels, and tells them in the form that it was trained in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nas.errors import InputError
from nas.export.bundle import Bundle, load_bundle, write_bundle
from nas.models.base import Model
from nas.models.build import build
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.answers import label_specials
from nas.tasks.base import Labels
from nas.tasks.inputs import Inputs
from nas.tasks.tokenizers import ByteTokenizer

LAYERS = [{"mixer": "full", "heads": 2}, {"mixer": "sliding_window", "heads": 2, "window": 8}]
NAMES = ("ham", "spam", "ä b")
FORMS = [
    ("decoder", "sequence_classification"),
    ("encoder", "sequence_classification"),
    ("decoder", "causal_lm"),
    ("prefix_lm", "infilling_lm"),
    ("encoder_decoder", "seq2seq_lm"),
]


def made(folder: Path, family: str, head: str, labels: Labels) -> Bundle:
    is_said = head != "sequence_classification"
    tokenizer = ByteTokenizer(label_specials(len(NAMES)) if is_said else ())
    stacks: dict[str, Any] = {"layers": LAYERS}
    if family == "encoder_decoder":
        stacks = {"encoder": {"layers": LAYERS}, "decoder": {"layers": LAYERS}}
    network = Architecture.from_mapping({"family": family, "width": 32, "max_context": 16, **stacks})
    network = network.bind(TaskShape(tokenizer.vocabulary, head, None if is_said else len(NAMES)))
    write_bundle(
        folder / "out",
        architecture=network,
        weights=build(network, seed=0).state_dict(),
        tokenizer=tokenizer,
        metrics={},
        card="",
        labels=labels,
    )
    return load_bundle(folder / "out")


def logits_of(model: Model, head: str, text: list[int]) -> torch.Tensor:
    """Logits of the labels of one text, with `<start>` 257 and the labels from 258 on."""
    if head == "sequence_classification":
        return model(torch.tensor([text]))[0]
    if head == "seq2seq_lm":
        return model(Inputs(torch.tensor([[257]]), source_BS=torch.tensor([text])))[0, -1, 258:261]
    inputs = Inputs(torch.tensor([[*text, 257]]))
    if head == "infilling_lm":
        places = [[place, 0] for place in range(len(text))] + [[len(text) - 1, 1]]
        inputs = Inputs(inputs.tokens_BL, None, torch.tensor([len(text)]), torch.tensor([places]))
    return model(inputs)[0, -1, 258:261]


@pytest.mark.parametrize(("family", "head"), FORMS)
@pytest.mark.parametrize("several", [False, True])
def test_the_shares_are_those_of_the_labels_alone(tmp_path: Path, family: str, head: str, several: bool) -> None:
    bundle = made(tmp_path, family, head, Labels(NAMES, several))
    assert bundle.labels == Labels(NAMES, several) and isinstance(bundle.model, Model)
    with torch.no_grad():
        logits_C = logits_of(bundle.model, head, [256, *b"a text"])
    expected = logits_C.sigmoid() if several else logits_C.softmax(0)
    found = bundle.classify("a text")
    assert found == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-6)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize(("family", "head"), FORMS)
def test_of_a_long_text_both_ends_are_read_and_the_answer_keeps_its_place(
    tmp_path: Path, family: str, head: str
) -> None:
    bundle = made(tmp_path, family, head, Labels(NAMES, too_long="head_tail"))
    assert isinstance(bundle.model, Model)
    text = bytes(range(97, 123)) * 2
    room = 15 if head in ("causal_lm", "infilling_lm") else 16
    kept = [256, *text[: room - room // 2 - 1], *text[-(room // 2) :]]
    with torch.no_grad():
        expected = logits_of(bundle.model, head, kept).softmax(0)
    assert bundle.classify(text.decode()) == pytest.approx(dict(zip(NAMES, expected.tolist(), strict=True)), abs=1e-6)


@pytest.mark.parametrize(("family", "head"), FORMS)
def test_a_classifier_continues_no_text(tmp_path: Path, family: str, head: str) -> None:
    bundle = made(tmp_path, family, head, Labels(NAMES))
    with pytest.raises(InputError, match=r"says labels|does not generate"):
        bundle.generate_text("a")
    with pytest.raises(InputError, match=r"says labels|does not generate"):
        bundle.bits_per_byte("a")
    with pytest.raises(InputError, match=r"says labels|does not generate"):
        bundle.write("a")
