"""Names and what they stand for: one visible table for each kind.

In: a name from a space, a study or the command line. Out: the object "module:Class" that it
names. A user's own "module:Class" works wherever a name of these tables does, so that nothing
has to be registered and importing nas has no side effects.

A mixer, an MLP, a family or a task is listed by its *specification*, which is free of torch and
names in turn the torch module that implements it: checking a space never imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from nas.errors import InputError, did_you_mean

MIXERS: Final[Mapping[str, str]] = {
    "full": "nas.specs.mixers.softmax:FullAttention",
    "sliding_window": "nas.specs.mixers.softmax:SlidingWindow",
    "latent": "nas.specs.mixers.latent:LatentAttention",
    "linear": "nas.specs.mixers.linear:LinearAttention",
    "retention": "nas.specs.mixers.linear:Retention",
    "gated_linear": "nas.specs.mixers.linear:GatedLinearAttention",
    "delta": "nas.specs.mixers.delta:DeltaNet",
    "gated_delta": "nas.specs.mixers.delta:GatedDeltaNet",
    "mamba2": "nas.specs.mixers.state_space:Mamba2",
    "lstm": "nas.specs.mixers.recurrent:LSTM",
    "gru": "nas.specs.mixers.recurrent:GRU",
    "rnn": "nas.specs.mixers.recurrent:RNN",
    "gated_conv": "nas.specs.mixers.convolution:GatedConvolution",
    "none": "nas.specs.mixers.convolution:NoMixer",
}

MLPS: Final[Mapping[str, str]] = {
    "swiglu": "nas.specs.mlps:SwiGLU",
    "gelu": "nas.specs.mlps:GELU",
    "geglu": "nas.specs.mlps:GEGLU",
    "none": "nas.specs.mlps:NoMLP",
}

FAMILIES: Final[Mapping[str, str]] = {
    "decoder": "nas.specs.families:Decoder",
    "encoder": "nas.specs.families:Encoder",
    "prefix_lm": "nas.specs.families:PrefixLM",
    "encoder_decoder": "nas.specs.families:EncoderDecoder",
}

TASKS: Final[Mapping[str, str]] = {
    "language_modeling": "nas.specs.tasks:LanguageModeling",
    "classification": "nas.specs.tasks:Classification",
    "question_answering": "nas.specs.tasks:QuestionAnswering",
    "translation": "nas.specs.tasks:Translation",
    "recall": "nas.specs.tasks:Recall",
    "ruler": "nas.specs.tasks:Ruler",
    "mad": "nas.specs.tasks:Mad",
    "listops": "nas.specs.tasks:ListOps",
}

# Exact functions of an architecture: (architecture, **settings of an estimate) -> number.
FIGURES: Final[Mapping[str, str]] = {
    "param_bytes": "nas.cost.figures:param_bytes",
    "state_bytes": "nas.cost.figures:state_bytes",
    "serve_bytes": "nas.cost.figures:serve_bytes",
    "prefill_peak_bytes": "nas.cost.figures:prefill_peak_bytes",
    "train_peak_bytes": "nas.cost.figures:train_peak_bytes",
    "flops_per_token": "nas.cost.figures:flops_per_token",
    "prefill_flops_per_token": "nas.cost.figures:prefill_flops_per_token",
    "decode_flops_per_token": "nas.cost.figures:decode_flops_per_token",
    "parameters": "nas.cost.figures:parameters",
}

SAMPLERS: Final[Mapping[str, str]] = {
    "frontier": "nas.search.frontier.adapter:Frontier",
    "nsga2": "nas.search.samplers:NSGA2",
    "tpe": "nas.search.samplers:TPE",
    "gp": "nas.search.samplers:GP",
    "random": "nas.search.samplers:Random",
}

EXPORT_FORMATS: Final[Mapping[str, str]] = {
    "bundle": "nas.export.bundle:write_bundle",
}

TABLES: Final[Mapping[str, Mapping[str, str]]] = {
    "mixer": MIXERS,
    "mlp": MLPS,
    "family": FAMILIES,
    "task": TASKS,
    "figure": FIGURES,
    "sampler": SAMPLERS,
    "export format": EXPORT_FORMATS,
}


def load(kind: str, name: str) -> Any:
    """The object that `name` stands for.

    Args:
        kind: a key of `TABLES`.
        name: a name of that table, or the user's own "module:Class".

    Raises:
        InputError: the name is in no table and names no importable object.
    """
    table = TABLES[kind]
    return load_target(table.get(name, name), what=kind, valid=table)


def load_target(target: str, *, what: str, valid: Mapping[str, str] | None = None) -> Any:
    """The object at "module:Attribute", with an error that says what was looked for."""
    module_name, colon, attribute = target.partition(":")
    if not (colon and attribute and all(module_name.split("."))):
        hint = did_you_mean(target, valid or {})
        raise InputError(f"unknown {what} '{target}': {hint} (or your own as 'module:Class')")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module of the user's that is there but misses one of its own imports is not "unknown".
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(f"{what} '{target}': there is no module '{module_name}' to import") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        hint = did_you_mean(attribute, [name for name in vars(module) if not name.startswith("_")])
        raise InputError(f"{what} '{target}': module '{module_name}' has no '{attribute}', {hint}") from None
