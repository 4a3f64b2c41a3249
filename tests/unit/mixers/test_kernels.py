from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from references.case import Case
from references.softmax import CASES

from nas import catalog
from nas.mixers import kernels
from nas.mixers.attention import Terms, full_attention, windowed_attention
from nas.mixers.base import Layout, MixerConfig
from nas.mixers.positions import RelativeBias, alibi_slopes
from nas.mixers.softmax import FullAttention, SlidingWindow
from nas.specs.base import Surroundings

CPU = torch.device("cpu")

# Not compiled, which is slow and keeps all scores, but computes the same.
eager = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@eager
@pytest.mark.parametrize("biases", ["none", "alibi", "learned"])
@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("prefix", [0, 30, 70])
def test_flex_attention_computes_what_the_blocks_do(biases: str, window: int | None, prefix: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 70, heads, 16) for heads in (4, 2, 2))
    terms = Terms(
        slopes_H=alibi_slopes(4, CPU) if biases == "alibi" else None,
        table_HR=torch.randn(4, 139) if biases == "learned" else None,
        zero=69,
        logits_H=torch.randn(4),
        sinks=2 if window else 0,
    )
    heads_first = [part.transpose(1, 2) for part in (q, k, v)]
    if window is None:
        expected = torch.cat(full_attention(*heads_first, terms, prefix=prefix), 2)
    else:
        parts = windowed_attention(
            *(part.transpose(0, 1).flatten(1, 2) for part in (q, k, v)), window, terms, prefix=prefix
        )
        expected = torch.cat(parts).unflatten(1, (2, 4)).permute(1, 2, 0, 3)
    found = kernels.flex(*heads_first, terms, window=window, prefix=prefix)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)


@eager
def test_flex_attention_takes_a_prefix_for_each_sequence() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 40, 16) for heads in (4, 2, 2))
    prefix_B = torch.tensor([0, 17, 40])
    found = kernels.flex(q, k, v, Terms(), window=None, prefix=prefix_B)
    for row, prefix in enumerate(prefix_B.tolist()):
        own = slice(row, row + 1)
        expected = torch.cat(full_attention(q[own], k[own], v[own], Terms(), prefix=prefix), 2)
        torch.testing.assert_close(found[own], expected, rtol=0.0, atol=1e-5)


def test_block_masks_are_made_once_for_all_layers() -> None:
    prefix_B = torch.tensor([3, 5])
    first = kernels._block_mask_of_prefixes(prefix_B, 128, 9, 0)
    assert kernels._block_mask_of_prefixes(prefix_B, 128, 9, 0) is first
    assert kernels._block_mask_of_prefixes(prefix_B, 128, 10, 0) is not first
    prefix_B += 1
    assert kernels._block_mask_of_prefixes(prefix_B, 128, 9, 0) is not first
    assert kernels._block_mask(False, 128, 9, 0, CPU) is kernels._block_mask(False, 128, 9, 0, CPU)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_mixer_of_the_catalog_is_described(device: str) -> None:
    for name in catalog.MIXERS:
        assert kernels.describe(name, device) != kernels.describe("user:Own", device)


def test_the_plain_forms_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    kernels._compiles.cache_clear()
    monkeypatch.delenv("NAS_KERNELS", raising=False)
    assert kernels.describe("sliding_window", "cuda") == "flex_attention (compiled)"
    assert kernels.describe("delta", "cuda") == "flash-linear-attention"
    assert kernels.describe("sliding_window", "cpu") == "blocked sdpa"
    monkeypatch.setenv("NAS_KERNELS", "plain")
    assert kernels.describe("sliding_window", "cuda") == "blocked sdpa"
    assert kernels.describe("delta", "cuda") == "chunked torch"
    kernels._compiles.cache_clear()


def test_describing_loads_no_torch() -> None:
    script = (
        "import sys; from nas.mixers import kernels; kernels.describe('full', 'cpu'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
@pytest.mark.parametrize("layout", ["causal", "whole", "uneven"])
def test_a_gpu_computes_what_the_cpu_does(
    case: Case, layout: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setenv("NAS_KERNELS", "plain")
    else:
        monkeypatch.delenv("NAS_KERNELS", raising=False)
    torch.manual_seed(0)
    options = {**case.options, "head_dim": 16}
    looks_ahead = layout != "causal"
    around = Surroundings(width=32, max_context=512, positions=case.positions, looks_ahead=looks_ahead)
    relative = RelativeBias(options["heads"], looks_ahead=looks_ahead)
    made = FullAttention if case.mixer == "full" else SlidingWindow
    mixer = made(MixerConfig(options=options, around=around, relative=relative))
    on_gpu = copy.deepcopy(mixer).to("cuda")
    for shared in on_gpu.relative:
        assert shared is not None
        shared.to("cuda")
    x = torch.randn(2, 300, 32)
    lengths = torch.tensor([300, 211])
    prefix = {"causal": 0, "whole": 300, "uneven": torch.tensor([250, 17])}[layout]
    moved = prefix if isinstance(prefix, int) else prefix.cuda()
    y = mixer(x, Layout(prefix=prefix, lengths_B=lengths if layout == "uneven" else None))
    on_cuda = on_gpu(x.cuda(), Layout(prefix=moved, lengths_B=lengths.cuda() if layout == "uneven" else None))
    real = (torch.arange(300) < (lengths if layout == "uneven" else torch.tensor([300, 300]))[:, None])[..., None]
    torch.testing.assert_close(on_cuda.cpu() * real, y * real, rtol=0.0, atol=2e-3 * float(y.abs().max()))
    (y * real).square().sum().backward()
    (on_cuda * real.cuda()).square().sum().backward()
    for name, parameter in on_gpu.named_parameters():
        expected = mixer.get_parameter(name).grad
        assert expected is not None
        assert parameter.grad is not None
        atol = 5e-3 * float(expected.abs().max())
        torch.testing.assert_close(parameter.grad.cpu(), expected, rtol=0.0, atol=atol)
