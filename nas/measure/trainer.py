"""The lightning.Trainer of a job: the study's arguments and our own, and quiet unless asked.

In: the `trainer:` words of a study. Out: a Trainer that stops after the job's steps.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning as pl
import torch

from nas import catalog
from nas.errors import InputError, StudyError

LOGGERS = {
    "csv": "lightning.pytorch.loggers:CSVLogger",
    "tensorboard": "lightning.pytorch.loggers:TensorBoardLogger",
}

# Accelerators that are CUDA where there is one.
_CUDA = ("auto", "cuda", "gpu")
_DTYPES = {"16": "fp16", "bf16": "bf16", "32": "fp32", "64": "fp64"}

_QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 1.0,
    "devices": 1,
}


def make_trainer(settings: Mapping[str, Any], *, steps: int, gradient_clip: float, folder: str) -> pl.Trainer:
    """A Trainer for one job.

    Args:
        settings: the study's `trainer:`, handed to lightning.Trainer.
        steps: to train for; 0 to score alone.
        gradient_clip: largest norm of the gradient, 0 for none.
        folder: for what loggers write.

    Raises:
        StudyError: lightning refuses a setting.
    """
    given = dict(settings)
    # The model's own, see `nas.measure.module.Training`.
    given.pop("activation_checkpointing", None)
    if given.get("devices") == "auto":
        # All the devices of the machine, to Lightning; a candidate trains on one.
        given["devices"] = 1
    given["precision"] = resolve_precision(str(given.get("precision", "auto")))
    try:
        if "logger" in given:
            given["logger"] = _logger(given["logger"], folder)
        if "callbacks" in given:
            given["callbacks"] = [_instance(words, "callback") for words in given["callbacks"]]
        arguments = {**_QUIET, **given, "max_steps": steps, "gradient_clip_val": gradient_clip or None}
        return pl.Trainer(**arguments)
    except InputError:
        raise
    except Exception as error:
        # Lightning and whatever a setting names raise what they like; here it is always the setting's fault.
        raise StudyError(f"trainer: {(str(error) or repr(error)).splitlines()[0]}") from error


def resolve_precision(precision: str) -> str:
    """The precision that "auto" stands for: bf16-mixed on a GPU that has it, else 32-true.

    On a CPU bf16 was measured from 0.96 to 1.67 times as fast as fp32, depending on the shape;
    it is never taken unasked there.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def precision_in_words(precision: str) -> str:
    """The dtype that a precision of Lightning computes in throughout, else the precision itself ("bf16-mixed")."""
    resolved = resolve_precision(precision)
    return _DTYPES.get(resolved.removesuffix("-true"), resolved)


def device_of(settings: Mapping[str, Any]) -> torch.device:
    """The device that a Trainer of these settings takes; whatever is no CUDA device counts as a CPU."""
    if str(settings.get("accelerator", "auto")) not in _CUDA or not torch.cuda.is_available():
        return torch.device("cpu")
    devices = settings.get("devices", 1)
    return torch.device("cuda", int(devices[0]) if isinstance(devices, list) else 0)


def device_in_words(settings: Mapping[str, Any] | None = None) -> str:
    """The device that a Trainer of these settings takes; by default that of none."""
    device = device_of(settings or {})
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's advice off the screen: it is about settings that a job chose on purpose."""
    names = ("lightning.pytorch", "lightning.fabric")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The batches are made in this process on purpose, and the loop ends by steps.
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=r".*lightning\.pytorch.*")
            warnings.filterwarnings("ignore", message=r".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=r".*`isinstance\(treespec, LeafSpec\)`.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _logger(words: Any, folder: str) -> Any:
    if isinstance(words, bool):
        return words
    if isinstance(words, str):
        words = {"class": words}
    options = {"save_dir": folder, **{key: value for key, value in words.items() if key != "class"}}
    return _instance({"class": LOGGERS.get(str(words.get("class")), words.get("class")), **options}, "logger")


def _instance(words: Any, what: str) -> Any:
    if isinstance(words, str):
        words = {"class": words}
    options = dict(words)
    target = str(options.pop("class", ""))
    return catalog.load_target(target, what=what, valid=LOGGERS if what == "logger" else {})(**options)
