"""A search's nouns: the :class:`Study` that all of its trials share, and the :class:`Trial`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_utils.data import load_dataset
from cifar_utils.files import write_atomically
from cifar_utils.models import ARCHITECTURES, build_model
from cifar_utils.parameters import Call, InputError, known_name, parse_call
from cifar_utils.training import History, fit
from cifar_utils.tuning.space import Range, parse_space

if TYPE_CHECKING:
    import keras

    from cifar_utils.data.dataset import Dataset

TUNERS = ("random", "hyperband", "bayesian")
TRAINED = ("learning_rate", "weight_decay")  # what is fit's; the rest is the architecture's
FILE = "study.json"
BAD_INPUT = 3  # a worker's exit status at an InputError, whose line comes last on standard error


@dataclass(frozen=True, kw_only=True, repr=False)
class Study:
    """What is searched, and how a trial is trained; plain values, so that any process reads them.

    Attributes
    ----------
    images
        The arguments of :func:`~cifar_utils.data.load_dataset`. Trials are compared by accuracy on
        its validation images; its test images are not looked at.
    space
        What is tuned: :func:`~cifar_utils.tuning.space.parse_space`. It overrides what
        ``architecture``, ``learning_rate`` and ``weight_decay`` say.
    tuner
        Which of keras-tuner's oracles chooses a trial's values: ``"random"`` draws them;
        ``"hyperband"`` trains many for few epochs and a third of them, the best, for three times as
        many, up to ``epochs``; ``"bayesian"`` goes by a Gaussian process over the trials so far.
    trials
        How many there are at most; with Hyperband, values that are trained further are a trial
        more. (A space of few values is exhausted sooner.)
    seed
        Of what is drawn, and of each trial's weights and batches: trials differ by their values
        alone.

    """

    images: dict[str, Any]
    space: str
    architecture: str
    tuner: str = "random"
    trials: int = 10
    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    schedule: str = "constant"
    weight_decay: float = 0.0
    augmentation: str | None = None
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        known_name("", self.tuner, TUNERS, label="tuner")
        if self.trials < 1:
            raise InputError(f"trials is {self.trials!r}; it must be >= 1")
        self.network({name: row.value(row.low) for name, row in self.ranges.items()})

    def __repr__(self) -> str:
        how = {"random": "drawn at random", "hyperband": "by Hyperband"}
        return (
            f"{self.architecture} in {self.trials} trials of up to {self.epochs} epochs, values "
            f"{how.get(self.tuner, 'by Bayesian optimization')}: "
            + "; ".join(map(repr, self.ranges.values()))
        )

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"

    @cached_property
    def ranges(self) -> dict[str, Range]:
        """The space, by name."""
        return parse_space(self.space)

    def network(self, values: dict[str, float]) -> str:
        """The architecture with these values as its options: ``"gn_resnet(width=24)"``."""
        call = parse_call("architecture", self.architecture, ARCHITECTURES, given=2)
        own = {name: value for name, value in values.items() if name not in TRAINED}
        text = repr(Call(call.name, call.function, call.options | own))
        return repr(parse_call("architecture", text, ARCHITECTURES, given=2))

    def load(self) -> Dataset:
        """The images; raises InputError where none are held out for validation."""
        data = load_dataset(**self.images)
        if not len(data.validation.labels):
            raise InputError("a search chooses by validation images; hold some out")
        return data

    def train(
        self,
        values: dict[str, float],
        data: Dataset,
        output: Path | str,
        until: int | None = None,
    ) -> tuple[keras.Model, History]:
        """The model of these values and its history, trained in a folder as :func:`fit` does.

        One that is trained there already is read back.
        """
        model = build_model(
            self.network(values),
            data,
            augmentation=self.augmentation,
            precision=self.precision,
            seed=self.seed,
        )
        own = {name: values.get(name, getattr(self, name)) for name in TRAINED}
        history = fit(
            model,
            data.train,
            data.validation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            schedule=self.schedule,
            seed=self.seed,
            until=until,
            output=output,
            **own,
        )
        return model, history

    def check(self, folder: Path) -> None:
        """Raise InputError where a folder holds another search; else note this one there."""
        way_out = f"delete {folder} to start from the beginning, or choose another folder"
        file, settings = folder / FILE, asdict(self)
        if file.exists():
            try:
                found = dict(json.loads(file.read_text()))
            except (OSError, ValueError, TypeError) as error:
                raise InputError(f"{file} is damaged ({error}); {way_out}") from error
            for name, value in settings.items():
                if found.get(name) != value:
                    raise InputError(
                        f"{folder} holds a search with {name} {found.get(name)!r}, not {value!r}; "
                        f"{way_out}"
                    )
            return
        write_atomically(file, json.dumps(settings, indent=1))


def read_study(folder: Path) -> Study:
    """The study that :meth:`Study.check` has noted in a folder."""
    return Study(**json.loads((folder / FILE).read_text()))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial that has ended; a record's ``trials`` are these, as dicts.

    Attributes
    ----------
    name
        Its number, from 0, as text: ``"07"``.
    continues
        The trial whose training it goes on with (Hyperband), or None.
    values
        What it was trained with, by name.
    val_accuracy, val_loss
        Of its best epoch; None where its training diverged.
    epochs
        Passes over the training images, those of the trials it continues included.
    seconds
        Of its own epochs.

    """

    name: str
    continues: str | None
    values: dict[str, float]
    val_accuracy: float | None
    val_loss: float | None
    epochs: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What a record keeps of it."""
        return asdict(self)

    @property
    def rank(self) -> tuple[float, float]:
        """The better of two has the greater one."""
        if self.val_accuracy is None or self.val_loss is None:
            return (-1.0, 0.0)
        return (self.val_accuracy, -self.val_loss)
