"""keras-tuner's oracles and tuner, each mended where a search would not go on as it began.

What keras-tuner 1.4.8 does by itself, and what is done about it here:

- It writes its state in several files, one after the other, in place; a kill between two of them
  loses or doubles a trial. Here it is one file, whole at any moment (:class:`InOneFile`).
- A trial that is cut starts from its beginning (its issue 439). Here trials are trained by
  :func:`~cifar_utils.training.fit`, which goes on from the last whole epoch.
- A trial that Hyperband trains further starts with a fresh optimizer state, as only weights are
  loaded. Here it goes on from the other's checkpoint, which holds both, and the schedule is that of
  all epochs from the start: its history is that of a run that was never interrupted.
- The random state of its Bayesian optimization is not saved. There is no public way to it; here it
  is set by the trial's number (:class:`Bayesian`).
- A seed of 0 counts as none, and seeds four apart draw the same values in a space of four. Here the
  seed is scrambled first (:func:`make_oracle`).
- Three trials that fail in a row end a search, and leave its lock closed, so that other workers
  hang. Here a trial whose loss diverges ends with an accuracy of 0, and any other error ends all.
- A worker told to wait asks again at once. Here it waits a second.

What can't be mended from here: its chief learns nothing of a worker that died, so whoever started
the worker must start it again by the same name; numbers travel in 32 bits; and a search by several
workers is not repeatable, as what is tried next depends on which trial ends first.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from cifar_utils.backend import keras  # before keras-tuner imports it, less quietly
from cifar_utils.data.dataset import Dataset
from cifar_utils.files import write_atomically
from cifar_utils.parameters import InputError
from cifar_utils.training import TrainingDiverged
from cifar_utils.tuning.study import Study, Trial

import keras_tuner as kt  # isort: skip
from keras_tuner.engine import trial as kt_trial  # isort: skip

ORACLE, RESULT = "oracle.json", "result.json"
OBJECTIVE = "val_accuracy"
IDLE_SECONDS = 1


class InOneFile:
    """Keeps an oracle, its trials included, in one file, and goes on from there."""

    def __init__(self, folder: Path, **options):
        super().__init__(**options)
        self.verbose = 0
        self.file = Path(folder) / ORACLE
        if self.file.exists():
            self.reload()

    def save(self) -> None:
        trials = [trial.get_state() for trial in self.trials.values()]
        write_atomically(self.file, json.dumps({"trials": trials, "oracle": self.get_state()}))

    def reload(self) -> None:
        """Go on: trials that were running come first. Raises InputError if the file is damaged."""
        try:
            kept = json.loads(self.file.read_text())
            trials = [kt_trial.Trial.from_state(state) for state in kept["trials"]]
            running = [trial.trial_id for trial in trials if trial.status == "RUNNING"]
            self.trials = {trial.trial_id: trial for trial in trials}
            # The queue's last is the first to be tried.
            queue = {"ongoing_trials": {}, "retry_queue": sorted(running, reverse=True)}
            self.set_state(kept["oracle"] | queue)
        except (OSError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.file} is damaged ({error}); delete {self.file.parent} to start from the "
                "beginning, or choose another folder"
            ) from error


class RandomSearch(InOneFile, kt.oracles.RandomSearchOracle):
    """Values drawn at random."""


class Hyperband(InOneFile, kt.oracles.HyperbandOracle):
    """Hyperband (Li et al., arXiv:1603.06560), repeated until all trials are made."""


class Bayesian(InOneFile, kt.oracles.BayesianOptimizationOracle):
    """Bayesian optimization by a Gaussian process and its upper confidence bound."""

    def populate_space(self, trial_id):
        seeds = np.random.SeedSequence([self.seed, len(self.trials)])
        self._random_state = np.random.RandomState(seeds.generate_state(4))
        with threadpool_limits(1):  # matrices of a few trials: threads wait longer than they work
            return super().populate_space(trial_id)


def make_oracle(study: Study, folder: Path) -> kt.Oracle:
    """The oracle of a study, as far as the one in the folder has got."""
    space = kt.HyperParameters()
    for row in study.ranges.values():
        scale = {"sampling": "log" if row.log else "linear"}
        if row.step:
            space.Int(row.name, row.low, row.high, step=row.step, **scale)
        else:
            space.Float(row.name, row.low, row.high, **scale)
    options = {
        "objective": kt.Objective(OBJECTIVE, "max"),
        "hyperparameters": space,
        "seed": int(np.random.SeedSequence(study.seed).generate_state(1)[0] >> 1) or 1,
    }
    if study.tuner == "hyperband":
        oracle = Hyperband(folder, max_epochs=study.epochs, hyperband_iterations=None, **options)
        oracle.max_trials = study.trials
        return oracle
    options["max_trials"] = study.trials
    if study.tuner == "random":
        return RandomSearch(folder, **options)
    # By itself it would draw three for each dimension before it begins to choose.
    return Bayesian(folder, num_initial_points=len(study.ranges) + 1, **options)


class Trials(kt.Tuner):
    """Trains a study's trials by :func:`~cifar_utils.training.fit`, each in a folder of its own."""

    def __init__(self, study: Study, data: Dataset, folder: Path):
        self.study, self.data, self.idle = study, data, False
        oracle = make_oracle(study, folder)
        super().__init__(oracle, directory=str(folder.parent), project_name=folder.name)

    def save(self) -> None:
        """Nothing: the oracle saves itself at each change, and there is nothing else to keep."""

    def pre_create_trial(self) -> None:
        if self.idle:
            time.sleep(IDLE_SECONDS)
        self.idle = True

    def on_trial_begin(self, trial) -> None:
        self.idle = False
        print("trial", trial.trial_id, flush=True)  # into the worker's log

    def run_trial(self, trial) -> dict[str, float]:
        try:
            result = self._result(trial)
        except Exception as error:  # keras-tuner would go on to the next trial
            raise kt.errors.FatalError(str(error)) from error
        return {OBJECTIVE: result.val_accuracy or 0.0}

    def _result(self, trial) -> Trial:
        folder = Path(self.get_trial_dir(trial.trial_id))
        file = folder / RESULT
        if file.exists():  # cut between its end and the oracle's learning of it
            return Trial(**json.loads(file.read_text()))
        drawn = trial.hyperparameters.values
        values = {name: row.value(drawn[name]) for name, row in self.study.ranges.items()}
        before, first = drawn.get("tuner/trial_id"), drawn.get("tuner/initial_epoch", 0)
        if before:
            _go_on(Path(self.get_trial_dir(before)), folder)
        keras.utils.clear_session(free_memory=False)  # freeing it takes a second
        score = {"val_accuracy": None, "val_loss": None, "epochs": first, "seconds": 0.0}
        try:
            until = drawn.get("tuner/epochs")
            _, history = self.study.train(values, self.data, folder, until)
        except TrainingDiverged:
            pass
        else:
            score = {key: history.best[key] for key in ("val_accuracy", "val_loss")}
            score["epochs"] = len(history.epochs)
            score["seconds"] = sum(row["seconds"] for row in history.epochs[first:])
        result = Trial(name=trial.trial_id, continues=before, values=values, **score)
        write_atomically(file, json.dumps(result.to_dict()))
        return result


def _go_on(before: Path, folder: Path) -> None:
    """Make a trial's checkpoint, with the optimizer's state, another trial's beginning."""
    if (folder / "checkpoint").exists():
        return
    copy = folder / ".checkpoint"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(before / "checkpoint", copy)
    copy.rename(folder / "checkpoint")
