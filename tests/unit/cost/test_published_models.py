"""Published models in docs/models/: their weights and states, to the last element and byte."""

from __future__ import annotations

import pytest
from _memory_models import MODELS, Row, architecture_of, rows, table
from _memory_published import PUBLISHED

from nas.cost.estimate import estimate

ROWS = rows()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama_3_1_8b", 8_030_261_248),
        ("mistral_7b_v0_1", 7_241_732_096),
        ("tinyllama_1_1b", 1_100_048_384),
        ("mamba2_1_3b", 1_343_757_312),
        ("nemotron_h_8b", 8_100_852_736),
    ],
)
def test_where_nothing_is_left_out_the_weights_are_the_published_ones(name: str, parameters: int) -> None:
    assert estimate(architecture_of(name)).parameters == parameters


@pytest.mark.parametrize(
    ("name", "missing", "published"),
    [
        ("gpt2", 102_144, 124_439_808),
        ("qwen2_5_1_5b", 57_344, 1_543_714_304),
        ("gemma_3_1b", 73_216, 999_885_952),
        ("lfm2_1_2b", 768, 1_170_340_608),
        ("qwen3_5_2b", 3_072, 1_881_825_088),
        ("deepseek_v2_lite", 14_848_151_552, 15_706_484_224),
    ],
)
def test_what_is_left_out_is_all_that_is_missing(name: str, missing: int, published: int) -> None:
    assert estimate(architecture_of(name)).parameters + missing == published


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("llama_3_1_8b", 128 * 1024),
        ("tinyllama_1_1b", 22 * 1024),
        ("gpt2", 36 * 1024),
        ("qwen2_5_1_5b", 28 * 1024),
        ("deepseek_v2_lite", 31_104),
        ("nemotron_h_8b", 16 * 1024),
        ("qwen3_5_2b", 12 * 1024),
        ("lfm2_1_2b", 12 * 1024),
        ("mamba2_1_3b", 0),
    ],
)
def test_each_token_adds_to_the_cache_what_the_model_is_known_for(name: str, bytes_per_token: int) -> None:
    short, long = (estimate(architecture_of(name), context=context).state_bytes for context in (600, 1_000))
    assert long - short == 400 * bytes_per_token


def test_a_window_reduces_mistrals_cache_eightfold_at_32k() -> None:
    cost = estimate(architecture_of("mistral_7b_v0_1"), context=32_768)
    assert cost.state_bytes * 8 == 32_768 * 128 * 1024
    assert estimate(architecture_of("mistral_7b_v0_1"), context=131_072).state_bytes == cost.state_bytes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model} {row.figure} {row.at}")
def test_ours_and_what_is_left_out_make_the_reference(row: Row) -> None:
    assert row.ours + row.left_out.amount == row.reference
    assert row.is_explained
    assert bool(row.left_out.amount) == bool(row.left_out.what)


def test_each_described_model_has_a_reference_and_every_row_a_line() -> None:
    assert {path.stem for path in MODELS.glob("*.yaml")} == {model.name for model in PUBLISHED}
    lines = table().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert len({line.count(" | ") for line in lines if "|---" not in line}) == 1
