"""Several trainings in one run, for the notebooks that compare them."""

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd

from cifar_utils.backend import keras
from cifar_utils.choices import parse_call
from cifar_utils.data.dataset import Dataset
from cifar_utils.errors import (
    InputError,
    TrainingDiverged,
    check_count,
    known_name,
    need_validation,
)
from cifar_utils.models import ModelSummary, build_model, summarize
from cifar_utils.text import (
    ABSENT,
    as_given,
    compact,
    duration,
    slug,
    spread,
)
from cifar_utils.training.fit import fit
from cifar_utils.training.history import History

BUILT = ("architecture", "augmentation", "normalization")  # parameters of build_model
SETTINGS = [
    one.name
    for one in signature(fit).parameters.values()
    if one.kind == one.KEYWORD_ONLY and one.name not in ("seed", "until", "output", "trial")
]


@dataclass(frozen=True, eq=False, repr=False)
class Trial:
    """One of several trainings.

    Attributes
    ----------
    name
        In words: ``"with residuals"``. Trials that differ in the seed alone share it.
    seed
        Of the initial weights and of all that is random in the training.
    values
        The parameters that differ from the other trials'.
    summary
        The model's size and cost.
    history
        Its complete epochs; none if training diverged in the first.
    diverged
        Why it ended early, or empty.
    model
        The model with its best epoch's weights or, if training diverged, the weights it began with.

    """

    name: str
    seed: int
    values: dict[str, Any]
    summary: ModelSummary
    history: History
    diverged: str
    model: keras.Model

    @property
    def accuracy(self) -> float:
        """Validation accuracy of the best epoch, a fraction; NaN without an epoch."""
        return self.history.best["val_accuracy"] if self.history.epochs else math.nan

    @property
    def seconds(self) -> float:
        """Time of all of its epochs."""
        return self.history.seconds

    def to_dict(self) -> dict[str, Any]:
        """The trial as a record keeps it."""
        # When a loss is found to have diverged depends on the clock, but not its epoch.
        lost = self.diverged and f"the loss diverged in epoch {len(self.history.epochs) + 1}"
        return {
            "name": self.name,
            "seed": self.seed,
            "values": self.values,
            "parameters": self.summary.parameters,
            "flops": self.summary.flops,
            "val_accuracy": self.accuracy,
            "epochs": len(self.history.epochs),
            "seconds": self.seconds,
            "best_epoch": self.history.best_epoch,
            "history": self.history.epochs,
            "trained_by": self.history.trained_by,
            "diverged": bool(self.diverged),
            "stopped": lost or self.history.stopped,
        }

    def __repr__(self) -> str:
        return f"{self.name}: {self.diverged or repr(self.history)}"


def run_trials(
    dataset: Dataset,
    cases: Mapping[str, Mapping[str, Any]],
    *,
    precision: str = "auto",
    seed: int = 0,
    seeds: int = 1,
    output: Path | str | None = None,
    **settings,
) -> list[Trial]:
    """Train one model after the other, on the same images.

    Trials of one seed have the images in the same order. All cases are trained with one seed, then
    all with the next. A training whose loss is no longer a number ends early; the others go on.

    Parameters
    ----------
    cases
        By name, each trial's differences from ``settings``: ``{"with residuals":
        {"architecture": "cifarnet"}, ...}``.
    precision
        The same for all trials.
    seed, seeds
        The first seed, and how many: ``seed=3, seeds=2`` trains each case with 3 and with 4.
    output
        A run's folder, for each trial's checkpoints; ``None`` keeps nothing.
    **settings
        ``architecture``, ``augmentation`` and ``normalization`` as for
        :func:`~cifar_utils.models.build_model`, the others as for
        :func:`~cifar_utils.training.fit`.

    Raises
    ------
    InputError
        Where these functions raise it, two names are alike, networks share layers, or there are no
        validation images.

    """
    need_validation("a comparison of trials", len(dataset.validation.labels))
    check_count("seeds", seeds)
    folders = [slug(name) for name in cases]
    for name, folder in zip(cases, folders, strict=True):
        if folders.count(folder) > 1:
            raise InputError(f"trial {name!r} has the name of another one; names must differ")
    # All models are built first, so a wrong name in the last case is found before any training.
    prepared, used = [], set()
    for own_seed, (name, case) in itertools.product(range(seed, seed + seeds), cases.items()):
        values = settings | dict(case)
        own = {key: values.pop(key) for key in BUILT if key in values}
        model = build_model(dataset=dataset, precision=precision, seed=own_seed, **own)
        check_settings(values)
        if not used.isdisjoint(weights := {id(weight) for weight in model.weights}):
            raise InputError(
                f"trial {name!r} shares layers with another one, which would train them, too; make "
                "all layers within the network's function"
            )
        used |= weights
        prepared.append((name, own_seed, model, values))
    trials = []
    for name, own_seed, model, values in prepared:
        diverged, told = "", f"{name}, seed {own_seed}" if seeds > 1 else name
        try:
            history = fit(
                model, dataset.train, dataset.validation,
                **values, seed=own_seed, output=output, trial=told,
            )  # fmt: skip
        except TrainingDiverged as error:
            history, diverged = error.history, str(error)
        model.compile()  # frees the optimizer's state: with Adam, twice the size of the weights
        own = dict(cases[name])
        if callable(own.get("architecture")):
            own["architecture"] = model.architecture
        trials.append(Trial(name, own_seed, own, summarize(model), history, diverged, model))
    return trials


def check_settings(values: Mapping[str, Any], *more: str) -> None:
    """Raise an InputError where one of ``values`` is no setting of :func:`fit`, nor in ``more``.

    ``seed``, ``until``, ``output`` and ``trial`` are no settings: a comparison gives them itself.
    """
    for setting in values:
        known_name("unknown setting", setting, [*SETTINGS, *more])
    for kind in {"optimizer", "schedule"} & set(values):
        parse_call(kind, values[kind])


def by_name(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials that differ in the seed alone stand together."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.name, []).append(trial)
    return groups


def best_trial(trials: Iterable[Trial]) -> Trial:
    """The trial of the highest validation accuracy among those that did not diverge.

    With several seeds, it is the first one of those whose accuracy is highest on average, among
    those of which the fewest diverged.

    Raises
    ------
    TrainingDiverged
        Where all diverged.

    """
    groups = by_name(trials).values()
    if all(trial.diverged for group in groups for trial in group):
        raise TrainingDiverged("every trial diverged: lower learning_rate, or warm it up")
    return _whole(max(groups, key=_rank))[0]


def _whole(trials: list[Trial]) -> list[Trial]:
    """Those that did not diverge or, if all did, those that have an epoch."""
    whole = [trial for trial in trials if not trial.diverged]
    return whole or [trial for trial in trials if trial.history.epochs]


def _rank(trials: list[Trial]) -> tuple[int, float]:
    """Greater for the better of two groups: first the number that diverged counts."""
    accuracies = [trial.accuracy for trial in _whole(trials)]
    return -sum(bool(trial.diverged) for trial in trials), mean(accuracies or [0.0])


def compare_trials(trials: Iterable[Trial], target: float | None = None) -> pd.DataFrame:
    """A page's table of trials, a row each, in words; ``target`` is a validation accuracy.

    Trials that differ in the seed alone share a row: mean and standard deviation of accuracies, the
    steps of each, and the mean time. Values that only repeat the trials' names, and costs that all
    trials share, have no column.
    """
    rows = {}
    for name, group in by_name(trials).items():
        first = group[0]
        row = {key: str(value) for key, value in first.values.items()}
        row |= {
            "parameters": compact(first.summary.parameters),
            "FLOPs": first.summary.flops and compact(first.summary.flops),
            "best validation": _best(group),
            "at the end": _last(group),
            "in training": _ends(group, "accuracy"),
        }
        if target is not None:
            steps = [trial.history.steps_to(target) for trial in group]
            told = [ABSENT if count is None else f"{count:,}" for count in steps]
            row[f"steps to {as_given(target)}"] = "; ".join(told)
        rows[name] = row | {"time": duration(mean(trial.seconds for trial in group))}
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(ABSENT)
    common = [key for key in ("parameters", "FLOPs") if table[key].nunique() == 1 < len(table)]
    return table.drop(
        columns=[*common, *(key for key in table if (table[key] == table.index).all())]
    )


def _best(trials: list[Trial]) -> str:
    told = spread([trial.accuracy for trial in _whole(trials)], 1)
    best = trials[0].history.best_epoch if len(trials) == 1 else 0
    return f"{told} (epoch {best})" if best else told


def _last(trials: list[Trial]) -> str:
    diverged = [trial for trial in trials if trial.diverged]
    if diverged and len(trials) > 1:
        return f"{len(diverged)} of {len(trials)} diverged"
    if diverged:
        return f"diverged in epoch {len(diverged[0].history.epochs) + 1}"
    return _ends(trials, "val_accuracy")


def _ends(trials: list[Trial], key: str) -> str:
    """An accuracy in the last epoch."""
    return spread([trial.history.epochs[-1][key] for trial in _whole(trials)], 1)
