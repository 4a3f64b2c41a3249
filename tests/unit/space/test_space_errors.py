"""A space that breaks a rule: each error is one line with file, line, key, rule and nearest word."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.errors import SpaceError
from nas.space.space import Space

LINES = {
    "name": "name: test",
    "family": "family: decoder",
    "width": "width: {choice: [64, 96]}",
    "depth": "depth: {range: [2, 3]}",
    "max_context": "max_context: {choice: [128, 256]}",
    "layers": "layers:",
    "mixer": "  mixer: {choice: [full, sliding_window], per: layer}",
    "heads": "  heads: {choice: [2, 4]}",
    "window": "  window: {choice: [16, 32], when: {mixer: sliding_window}}",
    "mlp_ratio": "  mlp_ratio: 2",
    "training": "training:",
    "learning_rate": "  learning_rate: {log_range: [1e-3, 1e-2]}",
    "constraints": "constraints:",
    "constraint": "  - serve_bytes <= 4 MiB",
}


def write(path: Path, **changed: str) -> Path:
    """The space with some lines written otherwise ("" leaves one out)."""
    lines = {**LINES, **changed}
    path.write_text("\n".join(line for line in lines.values() if line))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(SpaceError) as caught:
        Space.load(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 300
    assert "pydantic" not in text
    assert "union" not in text
    assert "tag" not in text.replace("stage", "")
    return text.removeprefix(f"{path.parent}/")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "space.yaml"


def test_the_space_that_the_tests_break_is_valid(path: Path) -> None:
    assert Space.load(write(path)).size == 2 * 2 * 2 * 2 * (2**2 + 2**3)


@pytest.mark.parametrize(
    ("key", "line", "message"),
    [
        ("width", "widht: 64", "space.yaml:3: unknown key 'widht': did you mean 'width'?"),
        (
            "heads",
            "  headss: 2",
            "space.yaml:8: unknown key 'layers.headss' for mixer full or sliding_window: did you mean 'heads'?",
        ),
        ("width", "width: {choise: [64]}", "space.yaml:3: unknown key 'width.choise': did you mean 'choice'?"),
        ("heads", "  heads: {choise: [2]}", "space.yaml:8: unknown key 'layers.heads.choise': did you mean 'choice'?"),
        ("training", "trainng:", "space.yaml:11: unknown key 'trainng': did you mean 'training'?"),
        (
            "learning_rate",
            "  lerning_rate: 1e-3",
            "space.yaml:12: unknown key 'training.lerning_rate': did you mean 'learning_rate'?",
        ),
        (
            "learning_rate",
            "  learning_rate: {log_rang: [1e-3, 1e-2]}",
            "space.yaml:12: unknown key 'training.learning_rate.log_rang': did you mean 'log_range'?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_at_every_level(path: Path, key: str, line: str, message: str) -> None:
    assert refusal(write(path, **{key: line})) == message


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        (
            "depth",
            "depth: [2, 4]",
            "space.yaml:4: depth: a list is no value; what can be drawn is written {choice: [2, 4]}",
        ),
        ("depth", "depth:", "space.yaml:4: depth: the value is missing: write one, or {choice: […]}"),
        ("heads", "  heads: {choice: []}", "space.yaml:8: layers.heads.choice must not be empty"),
        ("heads", "  heads: {choice: 2}", "space.yaml:8: layers.heads.choice must be a list, not 2"),
        ("heads", "  heads: {choice: [2, [4]]}", "space.yaml:8: layers.heads.choice[1]: must be a number, a name"),
        ("heads", "  heads: {choice: [2, 2.0]}", "space.yaml:8: layers.heads: choice holds a value twice: [2, 2.0]"),
        (
            "heads",
            "  heads: {}",
            "space.yaml:8: layers.heads: give exactly one of choice, range, log_range; given: none",
        ),
        ("width", "width: {range: [64]}", "space.yaml:3: width.range must hold at least 2 values, not 1"),
        ("width", "width: {range: [1, 2, 3]}", "space.yaml:3: width.range must hold at most 2 values, not 3"),
        ("width", "width: {range: [a, 2]}", "space.yaml:3: width.range[0] must be a number, not 'a'"),
        ("width", "width: {range: [96, 64]}", "space.yaml:3: width: range: low must not exceed high: [96, 64]"),
        ("width", "width: {range: [64, .inf]}", "space.yaml:3: width.range[1] must be a finite number, not inf"),
        ("width", "width: {range: [64, 96], step: 0}", "space.yaml:3: width.step must be above 0, not 0"),
        ("width", "width: {choice: [64], step: 2}", "space.yaml:3: width: step goes with range alone"),
        ("width", "width: {choice: [64], range: [1, 2]}", "given: choice and range"),
        ("width", "width: {range: [1.5, 64]}", "space.yaml:3: width takes whole numbers; its range is 1.5 to 64"),
        ("learning_rate", "  learning_rate: {log_range: [0, 1]}", "log_range: low must be above 0, not 0"),
        (
            "mixer",
            "  mixer: {choice: [full], per: leyer}",
            "space.yaml:7: layers.mixer: per must be layer or model, not 'leyer'",
        ),
        (
            "mixer",
            "  mixer: {choice: [full], period: 0}",
            "space.yaml:7: layers.mixer.period must be at least 1, not 0",
        ),
        ("mixer", "  mixer: {choice: [full], period: 2, per: layer}", "layers.mixer: give per or period, not both"),
        ("mixer", "  mixer: {range: [1, 2]}", "space.yaml:7:"),
        ("name", "name: 3", "space.yaml:1: name must be text, not 3"),
        ("constraints", "constraints: serve_bytes <= 3", "space.yaml:"),
        ("constraint", "  - 3", "space.yaml:14: constraints[0] must be text, not 3"),
        ("constraint", "  - {serve_bytes: 3}", "space.yaml:14: constraints[0] must be text, not {'serve_bytes': 3}"),
        ("layers", "layers: 3\nx:", "space.yaml:7: unknown key 'x'"),
        ("mlp_ratio", "  1: 2", "space.yaml:6: a key must be text: quote '1'"),
    ],
)
def test_a_word_of_the_wrong_shape_says_what_it_must_be(path: Path, key: str, line: str, words: str) -> None:
    assert words in refusal(write(path, **{key: line}))


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        ("width", "width: sixty", "space.yaml:3: width must be an integer, not 'sixty'"),
        ("width", "width: true", "space.yaml:3: width must be an integer, not True"),
        ("width", "width: 0", "space.yaml:3: width must be at least 1, not 0"),
        ("width", "width: .nan", "space.yaml:3: width must be an integer, not nan"),
        ("depth", "depth: 0", "space.yaml:4: depth must be at least 1, not 0"),
        ("depth", "depth: 2.5", "space.yaml:4: depth must be an integer, not 2.5"),
        (
            "depth",
            "depth: {choice: [2], per: layer}",
            "space.yaml:4: depth: per, period and when are for the keys of layers",
        ),
        ("width", "width: {choice: [64, 96], when: {depth: 2}}", "space.yaml:3: width: per, period and when"),
        (
            "learning_rate",
            "  learning_rate: {choice: [1e-3], when: {mixer: full}}",
            "space.yaml:12: learning_rate: per, period",
        ),
        ("learning_rate", "  learning_rate: fast", "space.yaml:12: learning_rate must be a number, not 'fast'"),
        ("learning_rate", "  learning_rate: 0", "space.yaml:12: learning_rate must be at least 1e-08, not 0"),
        ("learning_rate", "  beta2: 1.5", "space.yaml:12: beta2 must be at most 0.999999, not 1.5"),
        ("window", "  window: 0", "space.yaml:9: window must be at least 1, not 0"),
        ("mlp_ratio", "  mlp_ratio: .inf", "space.yaml:10: mlp_ratio must be a finite number, not inf"),
        ("mlp_ratio", "  mlp_ratio: 0", "space.yaml:10: mlp_ratio 0 is valid in no draw"),
        ("mlp_ratio", "  mlp_ratio: 2\n  mlp_hidden: 3", "space.yaml:11: give mlp_ratio or mlp_hidden, not both"),
        ("mlp_ratio", "  mlp: swiglo", "space.yaml:10: unknown mlp 'swiglo': did you mean 'swiglu'?"),
        ("family", "family: decodr", "space.yaml:2: unknown family 'decodr': did you mean 'decoder'?"),
        (
            "mixer",
            "  mixer: {choice: [full, sliding]}",
            "space.yaml:7: unknown mixer 'sliding': did you mean 'sliding_window'?",
        ),
        ("mixer", "  mixer: [full]", "what can be drawn is written {choice: ['full']}"),
        ("mixer", "", "space.yaml:6: layers need 'mixer'"),
        ("depth", "", "space.yaml:5: 'depth' is missing: how many layers there are"),
        ("family", "", "space.yaml: 'family' is missing"),
        ("depth", "depth: 2\npositions: rop", "space.yaml:5: unknown positions 'rop': did you mean 'rope'?"),
        ("depth", "depth: 2\nvocabulary: 1", "space.yaml:5: vocabulary must be at least 2, not 1"),
        ("depth", "depth: 2\ntied_embeddings: 3", "space.yaml:5: tied_embeddings must be true or false, not 3"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_where_it_stands(path: Path, key: str, line: str, words: str) -> None:
    assert words in refusal(write(path, **{key: line}))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("when: {mixr: full}", "space.yaml:9: unknown name 'mixr' in 'when': did you mean 'mixer'?"),
        (
            "when: {mixer: slidng_window}",
            "impossible condition: mixer is never 'slidng_window': did you mean 'sliding_window'?",
        ),
        ("when: {mixer: full}", "space.yaml:9: impossible condition: window is a key of mixer sliding_window alone"),
        ("when: {window: 16}", "space.yaml:9: window cannot hang on itself"),
        ("when: {mixer: []}", "a condition names one value or a list of them, not []"),
        ("when: mixer", "space.yaml:9: layers.window.when must be a mapping, not 'mixer'"),
        (
            "when: {heads: 2}",
            "space.yaml:9: mixer 'sliding_window' always needs 'window': it may hang on mixer, not on heads",
        ),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(path: Path, line: str, words: str) -> None:
    assert words in refusal(write(path, window=f"  window: {{choice: [16, 32], {line}}}"))


def test_the_mixer_hangs_on_nothing(path: Path) -> None:
    text = refusal(write(path, mixer="  mixer: {choice: [full, sliding_window], when: {heads: 2}}"))
    assert text == "space.yaml:7: the mixer must always be drawn; it takes no 'when'"


def test_a_mixer_that_needs_a_key_says_which(path: Path) -> None:
    assert refusal(write(path, window="")).startswith(
        "space.yaml:7: mixer 'sliding_window' needs 'window' (tokens seen"
    )


def test_a_mixer_that_cannot_serve_the_family_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_mixers.py").write_text(
        "from nas.specs.mixers.softmax import FullAttention\n\n"
        "class Backwards(FullAttention):\n    families = frozenset({'encoder'})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = refusal(write(path, mixer="  mixer: {choice: [full, 'own_mixers:Backwards', sliding_window]}"))
    assert text == "space.yaml:7: mixer 'own_mixers:Backwards' cannot serve family 'decoder' (it serves encoder)"


@pytest.mark.parametrize("line", ["  heads: 7", "  heads: {choice: [2, 7]}", "  heads: {choice: [2, 7], per: layer}"])
def test_heads_that_divide_no_width_are_refused_with_the_nearest_that_do(path: Path, line: str) -> None:
    text = refusal(write(path, heads=line))
    assert text == (
        "space.yaml:8: heads 7 is valid in no draw: heads must divide width: 7 does not divide 96; nearest 8"
    )


def test_heads_that_divide_one_of_the_widths_are_accepted(path: Path) -> None:
    assert Space.load(write(path, heads="  heads: {choice: [2, 3]}"))


def test_kv_heads_that_divide_no_heads_are_refused(path: Path) -> None:
    text = refusal(write(path, mlp_ratio="  kv_heads: {choice: [1, 3]}"))
    assert text.startswith("space.yaml:10: kv_heads 3 is valid in no draw: kv_heads must divide heads")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("serve_byts <= 3", "unknown name 'serve_byts': did you mean 'serve_bytes'?"),
        ("serve_bytes <= 3 Mib", "unknown unit 'Mib' in '3 Mib': did you mean 'MiB'?"),
        ("serve_bytes@dtype=bf61 <= 3 MiB", "unknown dtype 'bf61': did you mean 'bf16'?"),
        ("count(mixr=full) <= 3", "unknown key 'mixr' in count(…): did you mean 'mixer'?"),
        ("count(mixer=ful) <= 3", "no layer has mixer 'ful': did you mean 'full'?"),
        ("count(heads=3) <= 3", "no layer has heads '3': valid: 2, 4"),
    ],
)
def test_a_constraint_that_no_draw_could_be_asked_is_refused(path: Path, rule: str, words: str) -> None:
    assert refusal(write(path, constraint=f"  - {rule}")) == f"space.yaml:14: {words}" or (
        f"space.yaml:14: constraint '{rule}': {words}" == refusal(path)
    )


@pytest.mark.parametrize("context", [128, 4096])
def test_a_constraint_at_any_context_is_accepted(path: Path, context: int) -> None:
    space = Space.load(write(path, constraint=f"  - serve_bytes@context={context} <= 8 MiB"))
    assert space.broken_constraints(space.sample(0)) == []


def test_an_odd_head_dim_is_refused_by_its_own_key(path: Path) -> None:
    text = refusal(write(path, mlp_ratio="  head_dim: {choice: [16, 15]}"))
    assert text == (
        "space.yaml:10: head_dim 15 is valid in no draw: rotary positions need an even head_dim, not 15; nearest 14"
    )


def test_a_count_of_what_a_default_may_be_is_accepted(path: Path) -> None:
    assert Space.load(write(path, heads="", constraint="  - count(heads=4) <= 3"))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ("layers: 3", "layers must be a mapping of keys, or a list of such mappings"),
        ("layers:", "layers must be a mapping of keys, or a list of such mappings"),
        ("layers: []", "layers: the list needs at least one layer"),
        ("layers:\n  - 3", "space.yaml:6: layers[0] must be a mapping, not 3"),
        (
            "layers:\n  - {mixer: full, heds: 2}",
            "space.yaml:6: unknown key 'layers.heds' for mixer full: did you mean 'heads'?",
        ),
        ("layers:\n  - {heads: 2}", "space.yaml:6: layers need 'mixer'"),
        ("layers:\n  - {mixer: full, repeat: 0}", "space.yaml:6: repeat must be at least 1, not 0"),
        (
            "layers:\n  - {mixer: full, repeat: {choice: [1, 2], per: layer}}",
            "space.yaml:6: repeat: per, period and when",
        ),
        (
            "layers:\n  - {mixer: full, repeat: {choise: [1]}}",
            "unknown key 'layers[0].repeat.choise': did you mean 'choice'?",
        ),
    ],
)
def test_a_list_of_layers_is_checked_item_by_item(path: Path, layers: str, words: str) -> None:
    head = "name: test\nfamily: decoder\nwidth: 64\nmax_context: 128\n"
    path.write_text(head + layers + "\n")
    assert words in refusal(path)


def test_a_depth_beside_a_list_of_layers_is_refused(path: Path) -> None:
    path.write_text("name: test\nfamily: decoder\nwidth: 64\nmax_context: 8\ndepth: 1\nlayers:\n  - {mixer: full}\n")
    assert refusal(path) == "space.yaml:5: depth is the sum of the repeats of a list of layers; leave it out"


def test_a_mapping_without_a_file_is_named_by_the_space(path: Path) -> None:
    with pytest.raises(SpaceError, match=r"space 'mine': unknown key 'widht': did you mean 'width'\?"):
        Space.from_mapping({"name": "mine", "widht": 3})


def test_a_constraint_asks_no_context_beyond_learned_positions(path: Path) -> None:
    changed = {"family": "family: decoder\npositions: {choice: [rope, learned]}"}
    assert refusal(write(path, **changed, constraint="  - serve_bytes@context=129 <= 4 MiB")) == (
        "space.yaml:15: 'serve_bytes@context=129': learned positions end at max_context, here at 128 tokens or later: "
        "a context must be at most 128, not 129"
    )
    assert Space.load(write(path, **changed, constraint="  - serve_bytes@context=128 <= 4 MiB"))
    assert Space.load(write(path, constraint="  - serve_bytes@context=129 <= 4 MiB"))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("0 MiB", "a size must be above 0 bytes and finite, not '0 MiB': the smallest is 1 B"),
        ("-4 MiB", "a size must be above 0 bytes and finite, not '-4 MiB'"),
        ("4 M", "did you mean 'MB' (1,000,000 bytes) or 'MiB' (1,048,576)?"),
    ],
)
def test_a_limit_is_a_size_in_a_unit_that_exists(path: Path, limit: str, words: str) -> None:
    assert words in refusal(write(path, constraint=f"  - serve_bytes <= {limit}"))
