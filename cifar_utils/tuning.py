"""Tuning: :func:`tune` trains a network with values that keras-tuner chooses."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cifar_utils.backend import keras  # before keras-tuner imports it, less quietly
from cifar_utils.choices import (
    Call,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    parse_call,
    parse_calls,
)
from cifar_utils.data.dataset import Dataset
from cifar_utils.errors import (
    WAY_OUT,
    InputError,
    TrainingDiverged,
    check_count,
    check_same,
    known_name,
    need_validation,
)
from cifar_utils.events import display_line, show_note, write_event
from cifar_utils.files import made_folder, write_atomically
from cifar_utils.models import build_model
from cifar_utils.text import duration, listed, percent, slug
from cifar_utils.training import History, fit
from cifar_utils.training.history import best_epoch
from cifar_utils.training.trials import check_settings

import keras_tuner as kt  # isort: skip

# keras-tuner's variables for processes that share a search.
SHARING = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")

TRAINED = ("learning_rate", "weight_decay")  # options of fit; all others are the network's
OBJECTIVE, STUDY, DONE = "val_accuracy", "study.json", "trials.json"


@dataclass(frozen=True, repr=False)
class Range:
    """The values that a parameter may take.

    Parameters
    ----------
    low
        The smallest value.
    high
        The largest value.
    log
        Whether values are drawn evenly on a logarithmic scale.
    step
        Distance of two whole numbers; 0 if values need not be whole.

    """

    name: str
    low: float
    high: float
    log: bool = False
    step: int = 0

    def __repr__(self) -> str:
        scale = ", on a logarithmic scale" if self.log else ""
        steps = f", in steps of {self.step}" if self.step > 1 else ""
        return f"{self.name} from {self.low:g} to {self.high:g}{scale}{steps}"

    def value(self, drawn: float) -> float:
        """The drawn number to three digits, because keras-tuner's chief sends only 32 bits."""
        if self.step:
            return round(drawn)
        return min(max(float(f"{drawn:.3g}"), self.low), self.high)


def learning_rate(low: PositiveFloat, high: Annotated[float, "above {low}"]) -> Range:
    """The peak of the learning rate."""
    return Range("learning_rate", low, high, log=True)


def weight_decay(low: PositiveFloat, high: Annotated[float, "above {low}"]) -> Range:
    """The weight decay, decoupled from the gradient."""
    return Range("weight_decay", low, high, log=True)


def dropout(low: NonNegativeFloat, high: Annotated[float, "above {low}, below 1"]) -> Range:
    """The architecture's option ``dropout``, a rate."""
    return Range("dropout", low, high)


def width(low: PositiveInt, high: Annotated[int, "above {low}"], step: PositiveInt = 1) -> Range:
    """The architecture's option ``width``, a whole number.

    It is a number of channels in ``gn_resnet`` and ``report_a``, and a factor in other networks.

    Parameters
    ----------
    step
        Distance of two values.

    """
    return Range("width", low, high, step=step)


def parse_space(text: str) -> dict[str, Range]:
    """Read ranges, by name, from a text such as ``"learning_rate(0.01, 1), dropout(0, 0.5)"``.

    Raises InputError where the text does not parse, a name is unknown or given twice, or a range is
    empty.
    """
    return {call.name: call() for call in parse_calls("space", text)}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one trial of a search; a record's ``trials`` are these, as dicts.

    Attributes
    ----------
    name
        Its number, from 1, as text.
    continues
        The trial whose training it continues (Hyperband), or None.
    values
        The tuned values, by name.
    val_accuracy, val_loss
        Accuracy (a fraction) and loss of the best epoch; None where the loss diverged.
    epochs
        Passes over the training images, including those of the trials that it continues.
    seconds
        Time of its own epochs.

    """

    name: str
    continues: str | None
    values: dict[str, float]
    val_accuracy: float | None
    val_loss: float | None
    epochs: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The trial as a record keeps it."""
        return asdict(self)

    @property
    def rank(self) -> tuple[int, float, float]:
        """Greater for the better of two trials: epochs count, then accuracy, then loss.

        Trials of fewer epochs can't be compared with whole ones. One that diverged is the worst.
        """
        if self.val_accuracy is None:
            return 0, 0.0, 0.0
        return self.epochs, self.val_accuracy, -self.val_loss


def _words(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


@dataclass(frozen=True, eq=False, repr=False)
class Search:
    """The result of a search.

    Attributes
    ----------
    trials
        All trials, in the order in which they began. What was drawn twice stands once.
    model, history
        Of the best trial: the model has the weights of its best epoch.

    """

    trials: list[Outcome]
    model: keras.Model
    history: History

    @property
    def best(self) -> Outcome:
        """The trial of the highest validation accuracy among those of the most epochs.

        With equal accuracy, it is the one of the lowest loss.
        """
        return max(self.trials, key=lambda trial: trial.rank)

    def table(self, count: int = 10) -> pd.DataFrame:
        """The best trials, the best first, as a page shows them."""
        continued = any(trial.continues for trial in self.trials)
        ranked = sorted(self.trials, key=lambda trial: trial.rank, reverse=True)
        rows = {
            trial.name: {
                "validation accuracy": "diverged"
                if trial.val_accuracy is None
                else percent(trial.val_accuracy),
                **{name: f"{value:g}" for name, value in trial.values.items()},
                "epochs": trial.epochs,
                "time": duration(trial.seconds),
                **({"continues": trial.continues or ""} if continued else {}),
            }
            for trial in ranked[:count]
        }
        cut = f", the best {count} of {len(ranked)}" if len(ranked) > count else ""
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"trial{cut}")


class _Bayesian(kt.oracles.BayesianOptimizationOracle):
    def populate_space(self, trial_id):
        # The matrices are small: threads would mostly wait. Warnings are of fits that are flat.
        with threadpool_limits(1), warnings.catch_warnings(action="ignore"):
            return super().populate_space(trial_id)


TUNERS = {
    "random": kt.oracles.RandomSearchOracle,
    "hyperband": kt.oracles.HyperbandOracle,
    "bayesian": _Bayesian,
}


def tune(
    data: Dataset,
    space: str,
    *,
    architecture: str,
    tuner: str = "random",
    trials: int = 10,
    epochs: int = 10,
    seed: int = 0,
    output: Path | str | None = None,
    **settings,
) -> Search:
    """Train a network with different values; find the best by validation accuracy.

    The same search gives the same trials, also after a kill.

    Several processes or machines can share a search, by keras-tuner's own chief and workers. Run
    the same program in each, with the same ``output`` on a shared disk, and these variables:
    ``KERASTUNER_ORACLE_IP`` and ``KERASTUNER_ORACLE_PORT``, the address of the chief;
    ``KERASTUNER_TUNER_ID``, ``chief`` in one process and a different name in each of the others.
    The chief hands out trials, the others train them, and each returns the whole search. The order
    in which trials end then decides the next values, so such a search can't be repeated exactly.
    Start a killed process again with the same variables.

    Parameters
    ----------
    space
        What is tuned: see :func:`parse_space`. It overrides ``architecture`` and ``settings``.
    tuner
        How the next values are chosen. ``"random"`` draws them. ``"hyperband"`` (Li et al.,
        arXiv:1603.06560) trains many for few epochs, then the best third of them for three times as
        many, up to ``epochs``. If ``trials`` or the values of ``space`` are too few for its first
        round (nine at nine epochs), it continues none. ``"bayesian"`` fits a Gaussian process to
        the trials so far.
    trials
        The most trials; a small space is exhausted sooner. With Hyperband, a continued training
        counts as another trial.
    seed
        Seeds the drawn values and all trainings. Trials differ by their values alone.
    output
        A run's folder, for the search and the best trial's checkpoints; ``None`` keeps nothing.
    **settings
        ``augmentation`` and ``precision`` as for :func:`~cifar_utils.models.build_model`, the
        others as for :func:`~cifar_utils.training.fit`, without ``target_accuracy`` and
        ``patience``.

    Raises
    ------
    InputError
        Where an argument is out of range, ``output`` holds another search, or an architecture
        can't be built with a trial's values.
    TrainingDiverged
        Where the loss of all trials diverged.

    """
    ranges = parse_space(space)
    known_name("tuner is", tuner, TUNERS)
    trials = check_count("trials", trials)
    epochs = check_count("epochs", epochs)
    seed = check_count("seed", seed, "at least 0")
    check_settings(settings, "augmentation", "precision")
    need_validation("a search", len(data.validation.labels))
    for name in ("target_accuracy", "patience"):
        if (given := settings.get(name)) is not None:
            reason = "trials are compared after the same number of epochs; leave it out"
            raise InputError(f"{name} is {given}; {reason}")
    if _shared() and output is None:
        raise InputError("output is None; processes that share a search need a common folder")
    if _shared() and (missing := [name for name in SHARING if name not in os.environ]):
        raise InputError(f"{missing[0]} is not set; a shared search takes {listed(SHARING)}")
    _network(architecture, {name: row.value(row.low) for name, row in ranges.items()})
    plot = settings.pop("plot", None)
    study = {
        "images": data.fingerprint, "space": space, "architecture": architecture, "tuner": tuner,
        "trials": trials, "epochs": epochs, "seed": seed, **settings,
    }  # fmt: skip
    built = {key: settings.pop(key) for key in ("augmentation", "precision") if key in settings}
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(output or scratch)
        folder = made_folder(output / "tuning")
        _check(folder, study)

        def train(values: dict[str, float], until: int) -> tuple[keras.Model, History]:
            keras.utils.clear_session()  # frees the graphs of earlier trials
            own = {name: values[name] for name in TRAINED if name in values}
            model = build_model(_network(architecture, values), data, seed=seed, **built)
            return model, fit(
                model, data.train, data.validation, **settings | own, epochs=epochs, until=until,
                seed=seed, output=output, trial=_words(values), plot=plot,
            )  # fmt: skip

        if not (folder / DONE).exists():
            oracle = _oracle(tuner, ranges, trials, epochs, seed)
            _Tuner(oracle, ranges, train, study, output, scratch).search_all()
        found = [Outcome(**row) for row in _read(folder / DONE)]
        best = max(found, key=lambda trial: trial.rank)
        if best.val_accuracy is None:
            raise TrainingDiverged(
                f"all {len(found)} trials diverged: lower learning_rate in space"
            )
        return Search(found, *train(best.values, best.epochs))


def _network(architecture: str, values: dict[str, float]) -> str:
    """The architecture with these values as its options: ``"gn_resnet(width=24)"``."""
    call = parse_call("architecture", architecture)
    own = {name: value for name, value in values.items() if name not in TRAINED}
    text = repr(Call(call.name, call.registry, call.options | own))
    return repr(parse_call("architecture", text))


def _check(folder: Path, study: dict[str, Any]) -> None:
    """Raise InputError where a folder holds another search."""
    if (file := folder / STUDY).exists():
        check_same(folder, "a search", _read(file), study, folder.with_name("checkpoint"))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is damaged ({error}); {WAY_OUT.format(file.parent)}") from error


def _shared() -> bool:
    return any(name in os.environ for name in SHARING)


def _oracle(tuner: str, ranges: dict[str, Range], trials: int, epochs: int, seed: int) -> kt.Oracle:
    space = kt.HyperParameters()
    for row in ranges.values():
        add = space.Int if row.step else space.Float
        scale = "log" if row.log else "linear"
        add(row.name, row.low, row.high, step=row.step or None, sampling=scale)
    own = {
        "hyperband": {"max_epochs": epochs, "hyperband_iterations": None},
        # The default draws three for each dimension before the first choice.
        "bayesian": {"num_initial_points": len(ranges) + 1},
    }
    oracle = TUNERS[tuner](
        objective=kt.Objective(OBJECTIVE, "max"),
        hyperparameters=space,
        # keras-tuner takes a seed of 0 for none, and seeds n apart share values in a space of n.
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0] >> 1) or 1,
        **own.get(tuner, {}),
    )
    oracle.max_trials, oracle.verbose = trials, 0
    return oracle


class _Tuner(kt.Tuner):
    """Trains an oracle's trials, and keeps the outcome of each in a file.

    keras-tuner overwrites its files in place, so a kill between two of them loses a trial. Its
    project folder is therefore temporary. A resumed search asks the oracle again from the start.
    The oracle gives the same trials for the same seed and outcomes. A trial whose outcome is in a
    file is not trained again.
    """

    def __init__(self, oracle, ranges, train, study, output, scratch):
        self.ranges, self.train, self.study = ranges, train, study
        self.output, self.folder = output, output / "tuning"
        if _shared():
            chief = os.environ["KERASTUNER_ORACLE_IP"]
            told = f"the chief of this search, at {chief}, hands out trials, and workers train them"
            show_note(output, told)
        self.best, self.line = 0.0, display_line("the search starts")
        super().__init__(oracle, directory=scratch, project_name="keras-tuner")

    def pre_create_trial(self) -> None:
        if _shared():
            time.sleep(1)  # else a waiting worker would ask without a pause

    def run_trial(self, trial) -> dict[str, float]:
        try:
            accuracy = self.outcome(trial).val_accuracy or 0.0
        except Exception as error:  # after other errors, keras-tuner tries the next trial
            raise kt.errors.FatalError(str(error)) from error
        self.best = max(self.best, accuracy)
        return {OBJECTIVE: accuracy}

    def outcome(self, drawn) -> Outcome:
        """The outcome of keras-tuner's trial, which is trained unless a file has it."""
        own, number = drawn.hyperparameters.values, int(drawn.trial_id) + 1
        values = {name: row.value(own[name]) for name, row in self.ranges.items()}
        until, before = own.get("tuner/epochs", self.study["epochs"]), own.get("tuner/trial_id")
        file = self.folder / f"{slug(_words(values))}-{until}.json"
        if not file.exists():
            facts = {"trial": number, "trials": self.oracle.max_trials, "epoch": 0, "epochs": until}
            told = f"trial {number} of {self.oracle.max_trials}"
            if self.best:
                facts["best"] = self.best
                told += f", best so far {percent(self.best)}"
            write_event(self.output, "trial", **facts)
            self.line(told)
            try:
                # Values name a training, so one that Hyperband continues finds its checkpoint.
                rows = self.train(values, until)[1].epochs[:until]
                score = rows[best_epoch(rows) - 1]
            except TrainingDiverged as error:
                rows, score = error.history.epochs, {}
            scores = {key: score.get(key) for key in ("val_accuracy", "val_loss")}
            first = own.get("tuner/initial_epoch", 0)
            seconds = sum(row["seconds"] for row in rows[first:])
            scores |= {"epochs": len(rows), "seconds": seconds}
            _check(self.folder, self.study)  # another process may have begun another search
            if not (self.folder / STUDY).exists():  # settings with a mistake don't come so far
                study = json.dumps(self.study, indent=1, default=lambda number: number.item())
                write_atomically(self.folder / STUDY, study)
            write_atomically(file, json.dumps(scores))
        continues = str(int(before) + 1) if before else None
        return Outcome(name=str(number), continues=continues, values=values, **_read(file))

    def search_all(self) -> None:
        """Search; remove the checkpoints of all trials but the best, and list the trials."""
        try:
            self.search()
        except kt.errors.FatalError as error:
            raise (cause := error.__cause__) from cause.__cause__
        finally:
            self.line("")
        if _shared() and "chief" not in os.environ["KERASTUNER_TUNER_ID"]:
            while not (self.folder / DONE).exists():  # the chief waits for the other workers too
                time.sleep(1)
            return
        kept: dict[tuple[str, int, bool], Outcome] = {}
        names = {}
        for trial in map(self.outcome, self.oracle.trials.values()):
            # A tuner may draw the values of a known training again.
            drawn = _words(trial.values), trial.epochs, trial.val_accuracy is None
            first = kept.setdefault(drawn, trial)
            names[trial.name] = first.name
        trials = [replace(trial, continues=names.get(trial.continues)) for trial in kept.values()]
        best = max(trials, key=lambda trial: trial.rank)
        for name in {_words(trial.values) for trial in trials} - {_words(best.values)}:
            shutil.rmtree(self.output / "checkpoint" / slug(name), ignore_errors=True)
        write_atomically(self.folder / DONE, json.dumps([trial.to_dict() for trial in trials]))
