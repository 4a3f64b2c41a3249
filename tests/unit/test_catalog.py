"""Names and what they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas import catalog
from nas.errors import InputError
from nas.specs import family_spec, mixer_spec, mlp_spec, task_spec
from nas.specs.base import FamilySpec, MixerSpec, MLPSpec
from nas.specs.tasks import TaskSpec

SPECIFIED = {
    "mixer": (mixer_spec, MixerSpec),
    "mlp": (mlp_spec, MLPSpec),
    "family": (family_spec, FamilySpec),
    "task": (task_spec, TaskSpec),
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of a user's own on the path."""
    (tmp_path / "own_blocks.py").write_text(
        "from nas.specs.mixers.softmax import FullAttention\n\nclass Mine(FullAttention):\n    pass\n\nNUMBER = 3\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "needs.py").write_text("import need\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SPECIFIED for name in catalog.TABLES[kind]])
def test_every_listed_specification_is_one_of_its_kind_and_names_its_implementation(kind: str, name: str) -> None:
    find, base = SPECIFIED[kind]
    spec = find(name)
    assert isinstance(spec, base)
    assert find(name) is spec, "one instance is shared"
    assert catalog.load_target(spec.implementation, what=kind)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("figure", "sampler") for name in catalog.TABLES[kind]]
)
def test_every_listed_figure_and_sampler_can_be_called(kind: str, name: str) -> None:
    assert callable(catalog.load(kind, name))


@pytest.mark.usefixtures("own")
def test_a_class_of_the_users_own_works_where_a_name_does() -> None:
    spec = mixer_spec("own_blocks:Mine")
    assert type(spec).__name__ == "Mine"
    assert spec.keys == mixer_spec("full").keys


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ful", "unknown mixer 'ful': did you mean 'full'? (or your own as 'module:Class')"),
        ("", "unknown mixer ''"),
        (":Mine", "unknown mixer ':Mine'"),
        ("own_blocks:", "unknown mixer 'own_blocks:'"),
        (".own_blocks:Mine", "unknown mixer '.own_blocks:Mine'"),
        ("own_block:Mine", "there is no module 'own_block' to import"),
        ("own_blocks.deeper:Mine", "there is no module 'own_blocks.deeper' to import"),
        ("own_blocks:Min", "module 'own_blocks' has no 'Min', did you mean 'Mine'?"),
        ("own_blocks:NUMBER", "must name a class derived from nas.specs.base.MixerSpec"),
        ("nas.specs.mlps:SwiGLU", "must name a class derived from nas.specs.base.MixerSpec"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        mixer_spec(name)
    assert words in str(caught.value)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("module", ["needs_more", "needs"])
def test_a_module_that_misses_an_import_of_its_own_says_which(module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named '(a_package_that_is_not_there|need)'"):
        mixer_spec(f"{module}:Mine")
