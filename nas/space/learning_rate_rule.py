"""How the peak learning rate follows the width: the word `learning_rate_rule` of a space's `training`.

In: the words of `training`. Out: draws. A rule becomes a hyperparameter of every candidate, its base width, so that
it is part of the candidate's key and stands wherever hyperparameters do: a study cannot mix trainings with and
without it. What the rule does to a model is `nas.measure.optimizer`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from nas.errors import SpaceError, did_you_mean
from nas.space.domains import Draw
from nas.space.schema import Words, as_draw, validate
from nas.space.yaml_lines import Lines

RULE = "learning_rate_rule"
RULES = ("width",)
# The hyperparameter that a rule becomes: no word of a file, for it has no meaning without a rule.
BASE_WIDTH = "learning_rate_base_width"
FORM = f"{RULE}: {{name: width, base_width: 64}}"


class RuleWords(Words):
    """`{name: width, base_width: 64}`."""

    name: str
    base_width: int = Field(ge=1)


def training_draws(words: Mapping[str, Any], lines: Lines) -> dict[str, Draw]:
    """The draws of the training hyperparameters, a rule among them as its base width.

    Raises:
        SpaceError: the rule is unknown, is no mapping, or stands under another key.
    """
    found = {}
    for name, word in words.items():
        where = lines.at(("training", name))
        if name == BASE_WIDTH:
            raise SpaceError(f"{where}: unknown key 'training.{name}': it is written {FORM}")
        if isinstance(word, Mapping) != (name == RULE):
            wrong = "no mapping" if name == RULE else "no value that can be drawn"
            raise SpaceError(f"{where}: training.{name} is {wrong}: a rule is written {FORM}")
        if isinstance(word, Mapping):
            rule: RuleWords = validate(RuleWords, word, lines.below("training").below(RULE), SpaceError)
            if rule.name not in RULES:
                raise SpaceError(f"{where}: unknown {RULE} '{rule.name}': {did_you_mean(rule.name, RULES)}")
            found[BASE_WIDTH] = as_draw(rule.base_width)
        else:
            found[name] = as_draw(word)
    return found
