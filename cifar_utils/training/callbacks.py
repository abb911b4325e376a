"""Callbacks of training: an epoch's seeds, its checkpoint and its progress."""

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras.src.random.seed_generator import global_seed_generator  # not public

from cifar_utils.errors import WAY_OUT, InputError, TrainingDiverged, check_same
from cifar_utils.events import display_line, is_watched, write_event
from cifar_utils.files import write_atomically, written_atomically
from cifar_utils.models.graph import layers_of
from cifar_utils.provenance import changes, join_stretches
from cifar_utils.training.batches import Batches
from cifar_utils.training.history import NEVER, StoppingRule, best_epoch


class SeedEpoch(keras.callbacks.Callback):
    """Seeds all randomness of an epoch (order, augmentation, dropout) by ``(seed, epoch)``.

    It also calls the layers' ``begin_epoch``. To resume, a run therefore needs only its weights,
    optimizer state and history.
    """

    def __init__(self, batches: Batches, seed: int):
        super().__init__()
        self.batches, self.seed = batches, seed

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.begin_epoch(epoch)
        states = [v for v in self.model.non_trainable_variables if v.name == "seed_generator_state"]
        states.append(global_seed_generator().state)  # of layers that draw without a seed
        seeds = np.random.SeedSequence([self.seed, epoch]).generate_state(len(states)) >> 1
        for state, seed in zip(states, seeds, strict=True):
            state.assign([int(seed), 0])
        if keras.backend.backend() == "torch":  # there, dropout draws from PyTorch's own generator
            import torch

            torch.manual_seed(int(seeds[-1]))
        # Some layers change in the course of training. The step is then traced again.
        layers = [layer for layer in layers_of(self.model) if hasattr(layer, "begin_epoch")]
        changed = [layer.begin_epoch(epoch) for layer in layers]
        if any(changed):
            self.model.make_train_function(force=True)


class Checkpoint(keras.callbacks.Callback):
    """Keeps weights, history and the environment of each epoch in a folder, to resume a run.

    The folder holds weights and optimizer state of the last epoch and the best one. ``state.json``
    is written when the weights it names are on the disk. So a kill or a power cut at any moment
    leaves the state of the last complete epoch.

    Attributes
    ----------
    settings
        Settings that may not change within a run.
    environment
        This process's: :func:`~cifar_utils.provenance.describe_environment`.
    epochs
        A row for each finished epoch.
    trained_by
        The environments of these epochs: :func:`~cifar_utils.provenance.join_stretches`.

    """

    def __init__(self, folder: Path, settings: dict, environment: dict):
        super().__init__()
        self.folder, self.settings, self.environment = Path(folder), settings, environment
        self.epochs: list[dict] = []
        self.trained_by: list[dict] = []

    def weights(self, epoch: int) -> Path:
        """The weights after an epoch (counted from 1)."""
        return self.folder / f"epoch-{epoch:04d}.weights.h5"

    def restore(self) -> str:
        """Load the last complete epoch into the model; return a line for the user, or nothing.

        Raises
        ------
        InputError
            Where the folder holds a run of other settings, or its files are damaged.

        """
        state = self.folder / "state.json"
        if not state.exists():
            return ""
        with self._read():
            kept = json.loads(state.read_text())
            settings, self.epochs = dict(kept["settings"]), list(kept["epochs"])
            self.trained_by = list(kept["trained_by"])
        check_same(self.folder, "a run", settings, self.settings)
        self.load(len(self.epochs))
        if differing := self.trained_by and changes(self.trained_by[-1], self.environment):
            return (
                f"after epoch {len(self.epochs)} the run goes on with {differing}: its result may "
                "differ from that of an unbroken run"
            )
        return ""

    def load(self, epoch: int) -> None:
        """Load the weights after an epoch into the model; raises as :meth:`restore`."""
        with self._read():
            self.model.load_weights(self.weights(epoch))

    @contextlib.contextmanager
    def _read(self):
        try:
            yield
        except (OSError, LookupError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{self.folder} is damaged ({reason}); {WAY_OUT.format(self.folder)}"
            ) from error

    def on_epoch_end(self, epoch, logs=None):
        done = epoch + 1
        own = {"first": done, "last": done, **self.environment}
        self.trained_by = join_stretches([*self.trained_by, own])
        state = {"settings": self.settings, "epochs": self.epochs, "trained_by": self.trained_by}
        try:
            with written_atomically(self.weights(done)) as file:
                self.model.save_weights(Path(file.name))
            write_atomically(self.folder / "state.json", json.dumps(state))
        except (OSError, RuntimeError) as error:  # RuntimeError: HDF5's incomplete write
            number = getattr(error, "errno", None) or errno.EIO
            raise OSError(
                number,
                f"epoch {done} can't be kept ({os.strerror(number)}); make room, and run it again",
                str(self.folder),
            ) from error
        kept = {self.weights(done), self.weights(best_epoch(self.epochs))}
        for old in set(self.folder.glob("*.weights.h5")) - kept:
            old.unlink()


class Progress(keras.callbacks.Callback):
    """Completes each epoch's row, shows progress, and stops by a rule or where the loss is NaN.

    A line under the notebook's cell shows the progress. Where a person watches, the figure that
    ``draw`` makes of the rows so far stands below it. Where ``output`` names a run's folder, events
    in that folder tell the progress to other programs.
    """

    def __init__(
        self,
        batches: Batches,
        epochs: int,
        rows: list[dict],
        output: Path | None,
        rule: StoppingRule = NEVER,
        trial: str = "",
        draw: Callable[[list[dict]], str] | None = None,
    ):
        super().__init__()
        self.draw = draw
        self.batches, self.total, self.rows, self.output = batches, epochs, rows, output
        self.rule, self.trial = rule, {"training": trial} if trial else {}
        self.told_at = 0.0
        self.curves, self.next_drawing = "", 0.0

    def on_train_begin(self, logs=None):
        self.started, self.first = time.monotonic(), len(self.rows)
        self.line = display_line("training starts")
        self.watched = is_watched()
        shrinking = [layer for layer in layers_of(self.model) if hasattr(layer, "share_of_pixels")]
        # Epochs of smaller images take less time.
        self.work = [
            min((layer.share_of_pixels(epoch) for layer in shrinking), default=1.0)
            for epoch in range(self.total)
        ]

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.epoch_started = epoch, time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == len(self.batches) - 1:  # after it, a schedule gives the next epoch's rate
            self.rate = self._learning_rate()

    def on_train_batch_end(self, batch, logs=None):
        # Reading the loss waits for the device, so it is read about once a second.
        if time.monotonic() - self.told_at >= 1:
            self._tell("batch", logs or {}, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        # The values are float32. Its 0.94 is 0.93999999, which misses a target of 0.94. Seven
        # digits restore it.
        shown = {name: float(f"{float(value):.7g}") for name, value in logs.items()}
        logs.update(shown)  # a plateau sees the same values when a run is resumed
        row = {"epoch": epoch + 1, **shown}
        row["learning_rate"] = self.rate
        row["seconds"] = time.monotonic() - self.epoch_started
        if self.watched and self.draw:
            self._draw([*self.rows, row])
        stops = self.rule.reason([*self.rows, row])
        self._tell("epoch", row, len(self.batches), epochs=epoch + 1 if stops else self.total)
        self.rows.append(row)
        if stops:
            self.model.stop_training = True

    def _tell(self, event: str, logs: dict, step: int, epochs: int | None = None):
        total = epochs or self.total
        self.told_at = time.monotonic()
        shown = {k: float(v) for k, v in logs.items() if k.endswith(("loss", "accuracy"))}
        for name, value in shown.items():
            if not math.isfinite(value):
                self.line("")
                raise TrainingDiverged(
                    f"the {name.replace('_', ' ')} became {value} in epoch {self.epoch + 1}, "
                    f"step {step}, at a learning rate of {self._learning_rate():.3g}: "
                    "lower learning_rate, or warm it up"
                )
        done = sum(self.work[self.first : self.epoch])
        done += self.work[self.epoch] * step / len(self.batches)
        to_do = sum(self.work[self.first : total]) - done
        left = (self.told_at - self.started) * to_do / max(done, 1e-9)
        record = {
            **self.trial, "epoch": self.epoch + 1, "epochs": self.total, "step": step, **shown
        }  # fmt: skip
        write_event(
            self.output, event, steps=len(self.batches), seconds_left=round(left, 1), **record
        )
        values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items())
        where = "".join(f"{name}, " for name in self.trial.values())
        most = "at most " if self.rule else ""
        where += f"epoch {self.epoch + 1} of {most}{self.total}"
        self.line(f"{where}: {values}; {most}{left:,.0f} s left", self.curves)

    def _draw(self, rows: list[dict]):
        """Draw the curves, unless that would take more than 2% of the time."""
        begun = time.monotonic()
        if begun >= self.next_drawing:
            self.curves = self.draw(rows)
            self.next_drawing = begun + 50 * (time.monotonic() - begun)

    def _learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_train_end(self, logs=None):
        self.line("")
