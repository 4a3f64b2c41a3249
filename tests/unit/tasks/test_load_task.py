import pytest

from nas.errors import DataError, InputError
from nas.records import TaskReference
from nas.tasks import load_task

TEXT = "A line that is like all the others of this text.\n" * 100


def text_task(path, **options) -> TaskReference:
    return TaskReference(name="language_modeling", options=(("corpus", str(path)), *options.items()))


def test_a_task_is_read_once_per_process(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    first = load_task(text_task(tmp_path / "a.txt"))
    assert load_task(text_task(tmp_path / "a.txt")) is first
    # A default that is given in so many words is the same task.
    assert load_task(text_task(tmp_path / "a.txt", evaluation_bytes=65_536)) is first


def test_a_changed_file_is_read_again(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    first = load_task(text_task(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text(TEXT + "more\n")
    assert load_task(text_task(tmp_path / "a.txt")).data_version != first.data_version


def test_data_that_changed_since_the_study_was_made_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    options = text_task(tmp_path / "a.txt").options
    version = load_task(TaskReference(name="language_modeling", options=options)).data_version
    made = TaskReference(name="language_modeling", options=options, data_version=version)
    assert load_task(made).data_version == version
    (tmp_path / "a.txt").write_text(TEXT + "more\n")
    with pytest.raises(DataError, match=f"as it was when the study was made: version {version} then"):
        load_task(made)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("recall", {"pears": 3}, "task Recall takes no 'pears': did you mean 'pairs'"),
        ("recall", {"pairs": "3"}, "pairs must be an integer, not '3'"),
        ("recall", {"pairs": True}, "pairs must be an integer, not True"),
        ("recall", {"vocabulary": 2}, "vocabulary must be at least 8, not 2"),
        ("recall", {"pairs": 40}, "length must be at least 4 x pairs = 160, not 128: nearest 160"),
        ("language_modeling", {}, "task LanguageModeling needs 'corpus'"),
        ("language_modeling", {"corpus": ""}, "corpus must not be empty"),
        (
            "language_modeling",
            {"corpus": "sotu", "evaluation_bytes": 1},
            "evaluation_bytes must be at least 256, not 1",
        ),
        (
            "language_modeling",
            {"corpus": "sotu", "objective": "maskd"},
            "unknown objective 'maskd': did you mean 'masked'",
        ),
        (
            "language_modeling",
            {"corpus": "sotu", "objective": "masked", "mask_rate": 0.6},
            "mask_rate must be at most 0.5, not 0.6",
        ),
        (
            "language_modeling",
            {"corpus": "sotu", "objective": "masked", "mean_span": 3},
            "objective 'masked' takes no 'mean_span': it is for infilling, span_corruption",
        ),
        (
            "language_modeling",
            {"corpus": "sotu", "mask_rate": 0.2},
            "objective 'causal' takes no 'mask_rate': it is for masked, infilling, span_corruption",
        ),
    ],
)
def test_options_that_break_a_rule_are_refused(name, options, message):
    with pytest.raises(DataError, match=message):
        load_task(TaskReference(name=name, options=tuple(options.items())))


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(InputError, match="unknown task 'recal': did you mean 'recall'"):
        load_task(TaskReference(name="recal"))
