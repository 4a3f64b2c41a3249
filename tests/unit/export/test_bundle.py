import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nas.cost.dtypes import BYTES_PER_ELEMENT
from nas.cost.estimate import estimate
from nas.errors import CheckpointError, InputError
from nas.export.bundle import DTYPES, Bundle, load_bundle, write_bundle
from nas.models.build import build
from nas.space.architecture import Architecture
from nas.specs.tasks import TaskShape
from nas.tasks.tokenizers import ByteTokenizer

BYTE_SHAPE = TaskShape(vocabulary=257, head="causal_lm")
TEXT = "Four score and seven years ago — naïve, 日本 🎈.\n" * 3
FILES = {
    "model.safetensors",
    "architecture.json",
    "tokenizer.json",
    "metrics.json",
    "README.md",
    "checksums.json",
}
FULL = {"mixer": "full", "heads": 4, "mlp_ratio": 2}
GROUPED = {"mixer": "full", "heads": 4, "kv_heads": 2, "mlp_ratio": 2}
WINDOW = {"mixer": "sliding_window", "heads": 4, "kv_heads": 1, "window": 8, "mlp_ratio": 2}

ARCHITECTURES = {
    "full": {"layers": [FULL]},
    "untied": {"layers": [FULL], "tied_embeddings": False},
    "grouped heads": {"layers": [GROUPED, GROUPED]},
    "windows": {"layers": [WINDOW, GROUPED, WINDOW]},
    "short convolutions": {"layers": [{**WINDOW, "short_conv": 4}, {**FULL, "short_conv": 3}]},
    "no positions, no mlp": {"layers": [{"mixer": "full", "heads": 2, "mlp": "none"}], "positions": "none"},
    "wide heads": {"layers": [{**GROUPED, "head_dim": 16}], "max_context": 17},
}


def architecture(**changes) -> Architecture:
    mapping = {"family": "decoder", "width": 16, "max_context": 32, "layers": [WINDOW, GROUPED], **changes}
    return Architecture.from_mapping(mapping).bind(BYTE_SHAPE)


def weights_of(network: Architecture, seed: int = 1) -> dict[str, torch.Tensor]:
    return build(network, seed=seed).state_dict()


def write(folder, network: Architecture | None = None, **changes) -> Path:
    network = architecture() if network is None else network
    parts = {
        "architecture": network,
        "weights": weights_of(network),
        "tokenizer": ByteTokenizer(),
        "metrics": {"bits_per_byte": 2.5},
        "card": "# A card\n",
        **changes,
    }
    return write_bundle(folder, **parts)


def two_lines(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert len(message.splitlines()) <= 2
    return message


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Changes a file and its checksum."""
    (folder / name).write_bytes(data)
    checksums = json.loads((folder / "checksums.json").read_text())
    checksums[name] = hashlib.sha256(data).hexdigest()
    (folder / "checksums.json").write_text(json.dumps(checksums))


def test_a_bundle_holds_its_six_files_and_their_checksums(tmp_path):
    folder = write(tmp_path / "deep" / "below" / "out")
    assert {path.name for path in folder.iterdir()} == FILES
    checksums = json.loads((folder / "checksums.json").read_text())
    assert checksums == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES - {"checksums.json"}
    }
    assert (folder / "README.md").read_text() == "# A card\n"
    assert list(folder.parent.iterdir()) == [folder]


def test_what_is_loaded_is_what_was_written(tmp_path):
    network = architecture()
    bundle = load_bundle(str(write(tmp_path / "out", network)))
    assert bundle.architecture == network
    assert bundle.metrics == {"bits_per_byte": 2.5}
    assert isinstance(bundle.tokenizer, ByteTokenizer)
    assert not bundle.model.training
    assert all(torch.equal(tensor, bundle.model.state_dict()[name]) for name, tensor in weights_of(network).items())


def test_a_fresh_process_gives_the_same_logits_and_bits_per_byte_to_the_bit(tmp_path):
    network = architecture(layers=[{**WINDOW, "short_conv": 3}, GROUPED])
    folder = write(tmp_path / "out", network)
    model = build(network, seed=1).eval()
    tokens = torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(0))
    bundle = Bundle(model=model, architecture=network, tokenizer=ByteTokenizer(), metrics={})
    program = f"""
import sys, torch
torch.set_num_threads(1)
from nas.export.bundle import load_bundle
from safetensors.torch import save_file
bundle = load_bundle({str(folder)!r})
tokens = torch.randint(257, (2, 32), generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    logits = bundle.model(tokens)
bits = torch.tensor(bundle.bits_per_byte({TEXT!r}), dtype=torch.float64)
save_file(dict(logits=logits, bits=bits), {str(tmp_path / "found.safetensors")!r})
print([name for name in ("lightning", "optuna", "sqlalchemy", "pandas") if name in sys.modules])
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = safetensors.torch.load_file(tmp_path / "found.safetensors")
    with torch.no_grad():
        assert torch.equal(found["logits"], model(tokens))
    assert found["bits"].item() == bundle.bits_per_byte(TEXT)
    assert done.stdout.strip() == "[]", "loading a bundle needs no part of the search"


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_predicted_serve_bytes_are_those_of_the_live_tensors(tmp_path, changes, dtype):
    network = architecture(**changes)
    model = load_bundle(write(tmp_path / "out", network), dtype=dtype).model
    weights = {id(weight): weight.numel() * weight.element_size() for weight in model.parameters()}
    state = model.new_state(batch=1, context=network.max_context, cache_dtype=DTYPES[dtype])
    predicted = estimate(network, dtype=dtype)
    assert sum(weights.values()) == predicted.param_bytes
    assert state.bytes == predicted.state_bytes
    assert sum(weights.values()) + state.bytes == predicted.serve_bytes


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_weights_file_holds_every_parameter_once_in_float32(tmp_path, changes):
    network = architecture(**changes)
    stored = safetensors.torch.load_file(write(tmp_path / "out", network) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}
    assert sum(tensor.numel() for tensor in stored.values()) * 4 == estimate(network, dtype="fp32").param_bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_dtype_generates_and_scores(tmp_path, changes, dtype):
    folder = write(tmp_path / "out", architecture(**changes))
    bundle = load_bundle(folder, dtype=dtype)
    assert {weight.dtype for weight in bundle.model.parameters()} == {DTYPES[dtype]}
    assert bundle.bits_per_byte(TEXT) == pytest.approx(load_bundle(folder).bits_per_byte(TEXT), abs=0.05)
    assert list(bundle.generate_text("é", max_new_tokens=20, temperature=0))


def test_dtypes_are_those_of_the_memory_formulas():
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == BYTES_PER_ELEMENT


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    folder = write(tmp_path / "out")
    before = torch.get_rng_state()
    load_bundle(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_a_network_without_text_needs_no_tokenizer_and_says_so(tmp_path):
    network = Architecture.from_mapping({**architecture().to_mapping(), "vocabulary": 64})
    folder = write(tmp_path / "out", network, tokenizer=None)
    assert not (folder / "tokenizer.json").exists()
    bundle = load_bundle(folder)
    assert bundle.tokenizer is None
    assert bundle.model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 64)
    with pytest.raises(InputError, match="no language model"):
        bundle.generate_text("a")
    with pytest.raises(InputError, match="no language model"):
        bundle.bits_per_byte("a")


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    assert load_bundle(write(tmp_path / "out")).metrics == {"bits_per_byte": 2.5}


def test_a_folder_that_holds_something_is_left_untouched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    (tmp_path / "out-2").mkdir()
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"nearest free name is '.*out-3'") as error:
        write(tmp_path / "out")
    two_lines(error)
    assert tree(tmp_path) == before


def test_a_file_in_the_way_is_left_untouched(tmp_path):
    (tmp_path / "out").write_text("years of work")
    with pytest.raises(InputError, match="out-2"):
        write(tmp_path / "out")
    assert tree(tmp_path) == {"out": b"years of work"}


def test_a_parent_that_is_a_file_is_an_error_of_the_user(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "out")


@pytest.mark.parametrize("failing", ["mid-write", "rename"])
def test_a_bundle_is_written_whole_or_not_at_all(tmp_path, monkeypatch, failing):
    real = Path.replace

    def full_disk(path: Path, target: Path) -> Path:
        if Path(target).name == "metrics.json":
            raise OSError(28, "No space left on device")
        return real(path, target)

    def no_rename(path: Path, target: Path) -> Path:
        raise OSError(13, "Permission denied")

    if failing == "mid-write":
        monkeypatch.setattr(Path, "replace", full_disk)
    else:
        monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_are_no_numbers_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write(tmp_path / "out", metrics={"bits_per_byte": math.nan})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("norm.weight"), "'norm.weight' is missing"),
        (lambda weights: weights.update({"nrm.weight": torch.ones(16)}), "no 'nrm.weight', did you mean 'norm.weight'"),
        (lambda weights: weights.update({"norm.weight": torch.ones(8)}), r"'norm.weight' is \(8,\), not \(16,\)"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path, change, message):
    weights = weights_of(architecture())
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        write(tmp_path / "out", weights=weights)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_another_vocabulary_is_refused(tmp_path):
    network = replace(architecture(), vocabulary=300)
    with pytest.raises(CheckpointError, match="257 is not 300"):
        write(tmp_path / "out", network)


def test_a_missing_folder_names_the_bundle_beside_it(tmp_path):
    with pytest.raises(CheckpointError, match="nas export STUDY") as error:
        load_bundle(tmp_path / "model")
    two_lines(error)
    write(tmp_path / "model")
    with pytest.raises(CheckpointError, match="did you mean 'model'"):
        load_bundle(tmp_path / "modle")


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_a_missing_file_is_named(tmp_path, name):
    folder = write(tmp_path / "out")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {name}: .* nas export") as error:
        load_bundle(folder)
    two_lines(error)


@pytest.mark.parametrize("damage", ["flip a bit", "cut short", "empty"])
@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_a_damaged_file_is_refused(tmp_path, name, damage):
    folder = write(tmp_path / "out")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    kept = {"flip a bit": bytes(data), "cut short": bytes(data[: len(data) // 2]), "empty": b""}[damage]
    (folder / name).write_bytes(kept)
    with pytest.raises(CheckpointError, match="is damaged") as error:
        load_bundle(folder)
    two_lines(error)


def test_a_damaged_name_among_the_checksums_loses_no_tokenizer(tmp_path):
    folder = write(tmp_path / "out")
    names = (folder / "checksums.json").read_text()
    (folder / "checksums.json").write_text(names.replace("tokenizer", "tokenizes"))
    with pytest.raises(CheckpointError, match=r"checksums\.json is damaged"):
        load_bundle(folder)


def test_the_card_may_be_edited(tmp_path):
    folder = write(tmp_path / "out")
    (folder / "README.md").write_text("# My own words\n")
    assert load_bundle(folder).metrics == {"bits_per_byte": 2.5}


@pytest.mark.parametrize("with_checksum", [True, False])
def test_a_newer_format_asks_for_a_newer_nas(tmp_path, with_checksum):
    folder = write(tmp_path / "out")
    newer = (folder / "architecture.json").read_text().replace('"format_version": 1', '"format_version": 2').encode()
    if with_checksum:
        rewrite(folder, "architecture.json", newer)
    else:
        (folder / "architecture.json").write_bytes(newer)
    with pytest.raises(CheckpointError, match=r"format 2 .* up to 1: pip install --upgrade context-nas") as error:
        load_bundle(folder)
    two_lines(error)


def test_an_unknown_mixer_is_an_error_of_the_bundle(tmp_path):
    folder = write(tmp_path / "out")
    changed = (folder / "architecture.json").read_text().replace('"full"', '"ful"').encode()
    rewrite(folder, "architecture.json", changed)
    with pytest.raises(CheckpointError, match="did you mean 'full'"):
        load_bundle(folder)


def test_an_unknown_dtype_or_device_names_a_valid_one(tmp_path):
    folder = write(tmp_path / "out")
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        load_bundle(folder, dtype="bf161")
    with pytest.raises(InputError, match="'cpu' can"):
        load_bundle(folder, device="gpu")
