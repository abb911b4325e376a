"""A search: its processes, what they are doing, and what comes of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cifar_utils.events import display_line, read_events, write_event
from cifar_utils.files import write_atomically
from cifar_utils.parameters import InputError
from cifar_utils.training import TrainingDiverged
from cifar_utils.tuning.study import BAD_INPUT, Study, Trial
from cifar_utils.words import duration, percent

if TYPE_CHECKING:
    import keras

    from cifar_utils.data.dataset import Dataset
    from cifar_utils.training import History

FOLDER, RESULT, DONE = "tuning", "result.json", "trials.json"
POLL_SECONDS = 0.2
LEAVING_SECONDS = 5  # between the end of the chief's server and that of its process
RESTARTS = 3  # of workers that were killed, in all
CHIEF = "chief"


@dataclass(frozen=True, eq=False, repr=False)
class Search:
    """A search that is done.

    Attributes
    ----------
    trials
        All of its trials, in the order in which they began.
    model, history
        Of the best trial: the model with the weights of its best epoch.

    """

    study: Study
    trials: list[Trial]
    model: keras.Model
    history: History

    @property
    def best(self) -> Trial:
        """The trial of the highest validation accuracy, of equals the one of the lowest loss."""
        return best_trial(self.trials)

    @property
    def seconds(self) -> float:
        """What training all trials took, one after the other."""
        return sum(trial.seconds for trial in self.trials)

    def table(self, count: int = 10) -> pd.DataFrame:
        """A page's table of the best trials, the best first."""
        ranked = sorted(self.trials, key=lambda trial: trial.rank, reverse=True)
        rows = {
            trial.name: {
                "validation accuracy": _accuracy(trial),
                **{name: f"{value:g}" for name, value in trial.values.items()},
                "epochs": trial.epochs,
                "time": duration(trial.seconds),
                **({"goes on from": trial.continues or ""} if self._continued else {}),
            }
            for trial in ranked[:count]
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")

    @property
    def _continued(self) -> bool:
        return any(trial.continues for trial in self.trials)

    def __repr__(self) -> str:
        best, trials = self.best, f"{len(self.trials)} trial{'s' * (len(self.trials) != 1)}"
        values = ", ".join(f"{name} {value:g}" for name, value in best.values.items())
        return (
            f"{trials} in {duration(self.seconds)} of training; the best is {best.name}, with "
            f"{_accuracy(best)} of the validation images right: {values}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"


def _accuracy(trial: Trial) -> str:
    return "diverged" if trial.val_accuracy is None else percent(trial.val_accuracy)


def best_trial(trials: list[Trial]) -> Trial:
    """The first of those that rank highest."""
    return max(trials, key=lambda trial: trial.rank)


def tune(
    study: Study, data: Dataset, *, workers: int = 1, output: Path | str | None = None
) -> Search:
    """Search a study's space by its trials; choose by accuracy on validation images.

    Trials are trained in processes of their own: one that searches by itself, or keras-tuner's
    chief and so many workers, each with its share of the cores (GPUs are not shared out). A worker
    that is killed is started again and goes on from its trial's last whole epoch. With one worker,
    the same study comes to the same trials.

    Parameters
    ----------
    data
        What ``study.load()`` gives.
    workers
        Trials at a time.
    output
        A run's folder, to keep the search in, below ``tuning``: a search found there goes on to the
        very result it would have had. Of its checkpoints, only the best trial's stay. ``None``
        keeps nothing.

    Raises
    ------
    InputError
        Where an argument is out of range, ``output`` holds another search, or a trial met bad
        input: an architecture that can't be built with its values.
    TrainingDiverged
        Where no trial came to an accuracy.
    RuntimeError
        Where a process failed or was killed again and again.
    KeyboardInterrupt
        At Ctrl-C; no process is left behind, and the same call goes on.

    """
    if workers < 1:
        raise InputError(f"workers is {workers!r}; it must be >= 1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(output or scratch).absolute() / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output {output} can't be written ({error.strerror})") from error
        study.check(folder)
        done = folder / DONE
        if not done.exists():
            _search(study, folder, workers, output)
            trials = list(_results(folder).values())
            _keep(best_trial(trials), trials, folder)
            write_atomically(done, json.dumps([trial.to_dict() for trial in trials]))
        trials = [Trial(**row) for row in json.loads(done.read_text())]
        best = best_trial(trials)
        if best.val_accuracy is None:
            raise TrainingDiverged(
                f"the loss of all {len(trials)} trials became no number: lower learning_rate in "
                f"space, {study.space!r}"
            )
        model, history = study.train(
            best.values, data, folder / f"trial_{best.name}", until=best.epochs
        )
    return Search(study, trials, model, history)


def _results(folder: Path) -> dict[str, Trial]:
    files = sorted(folder.glob(f"trial_*/{RESULT}"))
    found = (Trial(**json.loads(file.read_text())) for file in files)
    return {trial.name: trial for trial in found}


def _keep(best: Trial, trials: list[Trial], folder: Path) -> None:
    """Remove the checkpoints of all trials but the best."""
    for trial in trials:
        if trial is not best:
            shutil.rmtree(folder / f"trial_{trial.name}" / "checkpoint", ignore_errors=True)


def _search(study: Study, folder: Path, workers: int, output: Path | str | None) -> None:
    """Start the processes, tell what they are doing, and see them through."""
    progress = _Progress(study, folder, output)
    running: dict[str, subprocess.Popen] = {}
    restarts = 0
    port = _reserved_port()
    try:
        environments = _environments(workers, port.getsockname()[1])
        for name, (environment, cores) in environments.items():
            running[name] = _start(folder, name, environment, cores)
        while running.keys() - {CHIEF}:
            time.sleep(POLL_SECONDS)
            progress.look()
            for name, process in list(running.items()):
                status = process.poll()
                if status == 0:
                    if name == CHIEF:  # who has not asked it yet would wait for an hour
                        return
                    del running[name]
                elif status is not None and status < 0 and name != CHIEF and restarts < RESTARTS:
                    restarts += 1
                    running[name] = _start(folder, name, *environments[name])
                elif status is not None:
                    if name != CHIEF and CHIEF in running and _is_over(running[CHIEF]):
                        return
                    _fail(folder, name, status)
    finally:
        port.close()
        for process in running.values():
            process.kill()
            process.wait()
        progress.end()


def _is_over(chief: subprocess.Popen) -> bool:
    """Whether a worker failed only because its last question found the chief about to leave."""
    try:
        return chief.wait(LEAVING_SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False


def _reserved_port() -> socket.socket:
    """Holds a free port that no program gets by chance; gRPC's server, which shares ports, may."""
    held = socket.socket()
    if hasattr(socket, "SO_REUSEPORT"):
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


def _environments(workers: int, port: int) -> dict[str, tuple[dict[str, str], str]]:
    """By name of a process: its environment, and its cores (all, if empty)."""
    import cifar_utils

    paths = [str(Path(cifar_utils.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    common = {key: value for key, value in os.environ.items() if not key.startswith("KERASTUNER_")}
    common["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if workers == 1:
        return {"worker0": (common, "")}
    common |= {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    common["no_grpc_proxy"] = "127.0.0.1"
    # Each would take all of a GPU's memory.
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    common = shared | common
    named = {CHIEF: (common | {"KERASTUNER_TUNER_ID": CHIEF}, "")}
    for number in range(workers):
        name = f"worker{number}"
        named[name] = (common | {"KERASTUNER_TUNER_ID": name}, _share(number, workers))
    return named


def _share(number: int, workers: int) -> str:
    """A worker's cores, as its command line takes them; empty where a system has no such thing."""
    if not hasattr(os, "sched_getaffinity"):
        return ""
    cores = sorted(os.sched_getaffinity(0))
    return ",".join(map(str, cores[number::workers] or [cores[number % len(cores)]]))


def _start(folder: Path, name: str, environment: dict[str, str], cores: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "cifar_utils.tuning.worker", str(folder), cores]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log
        )


def _fail(folder: Path, name: str, status: int) -> None:
    log = folder / f"{name}.log"
    said = log.read_text("utf-8", "replace").strip().splitlines()
    if status == BAD_INPUT and said:
        raise InputError(said[-1])
    if status < 0:
        what, why = "was killed", f"signal {-status}, as when memory runs out"
    else:
        what, why = "failed", said[-1] if said else f"status {status}"
    raise RuntimeError(f"the search's process {name} {what} ({why}); its last words are in {log}")


class _Progress:
    """Tells how far a search is: a line under the notebook's cell, and the run's events."""

    def __init__(self, study: Study, folder: Path, output: Path | str | None):
        self.total, self.folder, self.output = study.trials, folder, output
        self.line, self.shown = display_line("the search starts"), ""
        self.done = _results(folder)
        self.seen: dict[str, dict[str, Any]] = {}
        files = folder.glob("trial_*/events.jsonl")
        self.positions = {file: file.stat().st_size for file in files}

    def look(self) -> None:
        """Read what trials have written since, and tell of it."""
        for file in sorted(self.folder.glob("trial_*/events.jsonl")):
            events, self.positions[file] = read_events(file, self.positions.get(file, 0))
            for event in events:
                self._tell(file.parent.name.removeprefix("trial_"), event)
        self.done = _results(self.folder)
        words = ", ".join([f"{len(self.done)} of {self.total} trials done", *self._best("best {}")])
        for name in sorted(self.seen.keys() - self.done.keys()):
            epoch, epochs = (self.seen[name][key] for key in ("epoch", "epochs"))
            words += f"; trial {name}: epoch {epoch} of {epochs}"
        if words != self.shown:
            self.line(words)
            self.shown = words

    def _best(self, words: str) -> list[str]:
        accuracies = [t.val_accuracy for t in self.done.values() if t.val_accuracy is not None]
        return [words.format(percent(max(accuracies)))] if accuracies else []

    def _tell(self, name: str, event: dict[str, Any]) -> None:
        self.seen[name] = event
        ranked = [trial.val_accuracy or 0.0 for trial in self.done.values()]
        best = {"best": max(ranked)} if ranked else {}
        facts = {"trial": int(name) + 1, "trials": self.total, **best}
        known = {k: v for k, v in event.items() if k not in ("time", "event", "seconds_left")}
        write_event(self.output, event["event"], **facts, **known)

    def end(self) -> None:
        """Take the line away."""
        self.line("")
