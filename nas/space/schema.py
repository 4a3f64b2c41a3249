"""The words of a space file, as a pydantic schema.

In: plain values of YAML. Out: a `SpaceFile` of `Draw`s whose words and shapes are right; whether
they make sense together is for check.py. Errors of pydantic become one line that names file,
line, key, rule and the nearest valid name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from nas.errors import InputError, did_you_mean
from nas.space.domains import Choice, Draw, Range, Scope
from nas.space.yaml_lines import Lines, Place

Scalar = bool | int | float | str


class Words(BaseModel):
    """Base of everything that is read from a file: unknown keys are errors, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _scalar(value: object) -> object:
    if isinstance(value, Scalar):
        return value
    if isinstance(value, list):
        raise ValueError(f"a list is no value; what can be drawn is written {{choice: {_short(value)}}}")
    raise ValueError(
        "the value is missing: write one, or {choice: […]}, {range: [low, high]}, {log_range: [low, high]}"
    )


def _item(value: object) -> object:
    if isinstance(value, Scalar):
        return value
    raise ValueError(f"must be a number, a name, true or false, not {_short(value)}")


def _condition(value: object) -> object:
    if value == [] or not all(isinstance(item, Scalar) for item in (value if isinstance(value, list) else [value])):
        raise ValueError(f"a condition names one value or a list of them, not {_short(value)}")
    return value


class DrawWords(Words):
    """`{choice: […]}`, `{range: [low, high]}` or `{log_range: [low, high]}` with its modifiers."""

    choice: list[Annotated[Any, AfterValidator(_item)]] | None = Field(None, min_length=1)
    range: list[int | float] | None = Field(None, min_length=2, max_length=2)
    log_range: list[int | float] | None = Field(None, min_length=2, max_length=2)
    step: int | float | None = Field(None, gt=0)
    when: dict[str, Annotated[Any, AfterValidator(_condition)]] = {}
    per: str | None = None
    period: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> DrawWords:
        given = [name for name in ("choice", "range", "log_range") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of choice, range, log_range; given: {' and '.join(given) or 'none'}")
        bounds = self.range or self.log_range
        if bounds and bounds[0] > bounds[1]:
            raise ValueError(f"{given[0]}: low must not exceed high: {bounds}")
        if self.log_range and self.log_range[0] <= 0:
            raise ValueError(f"log_range: low must be above 0, not {self.log_range[0]}")
        if self.step is not None and not self.range:
            raise ValueError("step goes with range alone")
        # Of equal values, such as 2 and 2.0, a sampler would know one alone.
        if self.choice and len(set(self.choice)) < len(self.choice):
            raise ValueError(f"choice holds a value twice: {self.choice}")
        if self.per not in (None, "layer", "model"):
            raise ValueError(f"per must be layer or model, not '{self.per}'")
        if self.per and self.period:
            raise ValueError("give per or period, not both")
        return self

    def to_draw(self) -> Draw:
        """The draw that the words describe."""
        when = tuple(
            (name, tuple(value) if isinstance(value, list) else (value,)) for name, value in sorted(self.when.items())
        )
        scope: Scope = self.period or ("layer" if self.per == "layer" else "model")
        if self.choice is not None:
            return Draw(Choice(tuple(self.choice)), when, scope)
        low, high = self.range or self.log_range or [0, 0]
        return Draw(Range(low, high, self.step, log=self.log_range is not None), when, scope)


def _word_kind(value: object) -> str:
    return "draw" if isinstance(value, Mapping | DrawWords) else "scalar"


def _training_kind(value: object) -> str:
    # Which rules there are, and what they lack, is for whoever reads them.
    is_rule = isinstance(value, Mapping) and not {"name", "base_width"}.isdisjoint(value)
    return "rule" if is_rule else _word_kind(value)


def _layers_kind(value: object) -> str | None:
    return "mapping" if isinstance(value, Mapping) else "list" if isinstance(value, list) else None


# Told apart by what was written, so that an error speaks of that alone and not of every member.
Word = Annotated[
    Annotated[Any, AfterValidator(_scalar), Tag("scalar")] | Annotated[DrawWords, Tag("draw")],
    Discriminator(_word_kind),
]
TrainingWord = Annotated[
    Annotated[Any, AfterValidator(_scalar), Tag("scalar")]
    | Annotated[DrawWords, Tag("draw")]
    | Annotated[dict[str, Any], Tag("rule")],
    Discriminator(_training_kind),
]
LAYERS_RULE = "must be a mapping of keys, or a list of such mappings (how many layers: depth)"
LayerWords = dict[str, Word]
LayersWords = Annotated[
    Annotated[LayerWords, Tag("mapping")] | Annotated[list[LayerWords], Tag("list")],
    Discriminator(
        _layers_kind,
        custom_error_type="layers_kind",
        custom_error_message=LAYERS_RULE,
    ),
]


class StackWords(Words):
    """One stack of an encoder–decoder."""

    depth: Word = None
    layers: LayersWords


class SpaceFile(Words):
    """A whole space file."""

    name: str
    family: str
    width: Word
    max_context: Word
    depth: Word = None
    layers: LayersWords | None = None
    encoder: StackWords | None = None
    decoder: StackWords | None = None
    positions: Word = "rope"
    rope_theta: Word = 10_000.0
    rope_scaling: Word = "none"
    rope_factor: Word = 1.0
    norm: Word = "rms"
    embedding_norm: Word = False
    tied_embeddings: Word = True
    vocabulary: Word = None
    training: dict[str, TrainingWord] = {}
    constraints: list[str] = []


def as_draw(words: Scalar | DrawWords) -> Draw:
    """The draw of a value in a file: a scalar is a choice of one."""
    return words.to_draw() if isinstance(words, DrawWords) else Draw(Choice((words,)))


def validate(model: type[Words], values: Mapping[str, Any], lines: Lines, error: type[InputError]) -> Any:
    """The instance of a schema, or the first thing that is wrong with the file in one line.

    Raises:
        InputError: of the class `error`.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as invalid:
        raise error(_explain(invalid, model, values, lines)) from None


_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}

_RULES: Mapping[str, str] = {
    "too_short": "must hold at least {min_length} values, not {actual_length}",
    "too_long": "must hold at most {max_length} values, not {actual_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} letters",
    "greater_than_equal": "must be at least {ge}, not {input}",
    "greater_than": "must be above {gt}, not {input}",
    "less_than_equal": "must be at most {le}, not {input}",
}


def _explain(invalid: ValidationError, model: type[Words], values: Mapping[str, Any], lines: Lines) -> str:
    def order(problem: ErrorDetails) -> tuple[bool, int, int]:
        # An unknown key is often what another error comes from; else the deepest place says most.
        place = _written(problem["loc"], values)
        return problem["type"] != "extra_forbidden", -len(place), -len(problem["loc"])

    problems = sorted(invalid.errors(include_url=False), key=order)
    problem = problems[0]
    place = _written(problem["loc"], values)
    where, key = lines.at(place), _dotted(place)
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key '{key}': {did_you_mean(place[-1], _fields_at(model, place[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: '{_dotted((*place, problem['loc'][-1]))}' is missing"
    if problem["type"] == "invalid_key" or problem["loc"][-1] == "[key]":
        return f"{where}: a key must be text: quote '{place[-1]}'"
    # A union reports an error for each of its members, all of the same place.
    alike = [other for other in problems if _written(other["loc"], values) == place]
    return f"{where}: {key}{':' if problem['type'] == 'value_error' else ''} {_rule(problem, alike)}"


def _rule(problem: ErrorDetails, alike: list[ErrorDetails]) -> str:
    expected = list(dict.fromkeys(_EXPECTED[other["type"]] for other in alike if other["type"] in _EXPECTED))
    if problem["type"] in _EXPECTED:
        if {"a number", "a finite number"} & set(expected) and "a whole number" in expected:
            expected.remove("a whole number")
        return f"must be {' or '.join(expected)}, not {_short(problem['input'])}"
    if problem["type"] in _RULES:
        if problem["type"] == "too_short" and not problem["input"]:
            return "must not be empty"
        return _RULES[problem["type"]].format(**{"input": _short(problem["input"]), **problem.get("ctx", {})})
    return problem["msg"].removeprefix("Value error, ")


def _dotted(place: Place) -> str:
    """ "layers[0].heads" of a path of keys."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _written(location: tuple[str | int, ...], values: Any) -> Place:
    """The part of a pydantic location that stands in the file (unions add names of their own)."""
    place: list[str | int] = []
    for part in location:
        inside_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if inside_list or (isinstance(values, Mapping) and part in values):
            place.append(part)
            values = values[part]
    return tuple(place)


def _fields_at(model: type[Words], place: Place) -> Mapping[str, Any]:
    """The keys of the deepest mapping of the schema on the way to a place."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model.model_fields


def _models_in(annotation: Any) -> Iterator[type[Words]]:
    if isinstance(annotation, type) and issubclass(annotation, Words):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
