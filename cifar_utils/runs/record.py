"""The record of a run, as JSON: parameters, data, model, environment, history and scores."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from cifar_utils.errors import InputError, short
from cifar_utils.events import show_note
from cifar_utils.files import (
    FACTS,
    MODEL,
    RECORD,
    made_folder,
    write_atomically,
    written_atomically,
)
from cifar_utils.provenance import changes, describe_environment, join_stretches
from cifar_utils.text import duration, percent

if TYPE_CHECKING:
    import keras

    from cifar_utils.data.dataset import Dataset
    from cifar_utils.evaluation import Scores
    from cifar_utils.events import Phases
    from cifar_utils.training import History, Trial
    from cifar_utils.tuning import Outcome

SCHEMA = 1
# Facts that every record has, with their types; others are free.
NEEDED = {
    "dataset": {"name": str, "train": int, "validation": int, "test": int},
    "model": {"architecture": str, "parameters": int},
    "seconds": {"train": Real, "total": Real},
    "scores.test": {"n": int, "top1": Real, "top1_interval": list, "top5": Real,
                    "top5_interval": list, "per_class": dict},
}  # fmt: skip
# Commands that execute a notebook.
EXECUTING = {"papermill", "nbconvert", "execute", "run"}
UNKNOWN = "unknown"  # stands for facts on training that a record does not have


def _plain(value: Any) -> Any:
    """A value as strict JSON has it: NumPy unpacked, None for NaN and infinity."""

    def unpack(value: Any) -> Any:
        if not hasattr(value, "tolist"):
            raise TypeError(f"a record holds numbers, text, lists and dicts, not {value!r}")
        return value.tolist()

    return json.loads(json.dumps(value, default=unpack), parse_constant=lambda _: None)


def _told(by: Mapping[str, Any]) -> dict[str, str]:
    """An environment as rows of a table."""
    if by.get("processor") == UNKNOWN:
        return {"trained by": "unknown: the checkpoints of this run did not keep it"}
    cores, precision = by.get("cores"), str(by.get("precision"))
    if precision == "mixed_bfloat16":
        precision += "; model.keras computes in float32, so a few predictions differ"
    onednn = f" (oneDNN {by['onednn']})" if by.get("onednn") else ""
    return {
        "processor": f"{by.get('processor')}, {cores} core{'s' * (cores != 1)}",
        "accelerators": ", ".join(by.get("accelerators") or []),
        "precision": precision,
        "software": f"Keras {by.get('keras')} on {by.get('backend')} {by.get('backend_version')}"
        f"{onednn}, Python {by.get('python')}, {by.get('platform')}",
        "commit": by.get("git") or "",
    }


def _check(facts: Mapping[str, Any], kinds: Mapping[str, type], whose: str = "") -> None:
    if not isinstance(facts, Mapping):
        raise TypeError(f"its {whose.removesuffix('.')} has {short(facts)}, not of type dict")
    for name, kind in kinds.items():
        if not isinstance(value := facts.get(name), kind):
            raise TypeError(f"its {whose}{name} is {short(value)}, not of type {kind.__name__}")


def _check_all(facts: Mapping[Any, Any], kind: type, whose: str) -> None:
    _check(facts, dict.fromkeys(facts, kind), whose)


def _check_epochs(rows: Sequence[Any], *needed: str) -> None:
    for row in rows:
        _check(row, dict.fromkeys(needed, Real), "history.")
        known = {name: value for name, value in row.items() if value is not None}
        _check_all(known, Real, "history.")


@dataclass(frozen=True, kw_only=True, repr=False)
class RunRecord:
    """One run's record: accuracies as fractions, seconds by phase.

    Its constructor unpacks NumPy scalars and replaces NaN and infinity by None, so a record equals
    the one that is written and read again. Without the facts in ``NEEDED`` it raises a TypeError.

    Attributes
    ----------
    run
        The run's name: ``"cifarnet-cifar10-s0"``.
    history
        By epoch: ``epoch`` (from 1), ``loss``, ``accuracy``, ``learning_rate``, ``seconds`` and,
        with a validation split, ``val_loss`` and ``val_accuracy``.
    scores
        By split: ``{"test": Scores.to_dict()}``.
    best_epoch
        The epoch whose weights were scored.
    trials
        The trials of a run that trained several models, from :class:`cifar_utils.training.Trial` or
        :class:`cifar_utils.tuning.Outcome`. Model, history and scores are the tested one's. The
        phase ``train`` has its seconds, ``search`` those of all others.
    stopped
        Why training ended early; empty where it had all of its epochs.
    environment
        The environment of the last epochs: :func:`~cifar_utils.provenance.describe_environment`.
    trained_by
        The environment of each stretch of epochs, as :func:`~cifar_utils.provenance.join_stretches`
        gives them. Old runs, whose checkpoints did not keep it, have ``"unknown"``.
    evaluated_by
        The environment that computed the scores and this record.
    code
        The code that took part in training: :func:`~cifar_utils.provenance.code_in_use`.

    """

    schema: int = SCHEMA
    run: str
    notebook: str
    parameters: dict[str, Any]
    dataset: dict[str, Any]
    model: dict[str, Any]
    environment: dict[str, Any]
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    best_epoch: int
    scores: dict[str, dict[str, Any]]
    stopped: str = ""
    trials: list[dict[str, Any]] = field(default_factory=list)
    trained_by: list[dict[str, Any]] = field(default_factory=list)
    evaluated_by: dict[str, Any] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int | None:
        """The run's seed; None where its notebook has no such parameter."""
        return self.parameters.get("seed")

    @property
    def top5(self) -> float | None:
        """The top-5 accuracy on the test images; None with five classes or fewer, where it is 1."""
        test = self.scores["test"]
        return test["top5"] if len(test["per_class"]) > 5 else None

    @property
    def views(self) -> tuple[int, float]:
        """The views of a test image, and the share of the test images that had more than one.

        See :func:`~cifar_utils.evaluation.evaluate_views`.
        """
        share = self.parameters.get("unsure")
        if isinstance(share, Real) and share:
            return 6, share
        count = self.parameters.get("views")  # of runs before `unsure`
        count = count if isinstance(count, int) and count > 1 else 1
        return count, float(count > 1)

    @property
    def views_in_words(self) -> str:
        """The views, as in ``"6 views of 25%"`` of the test images; empty for one view of each."""
        count, share = self.views
        return f"{count} views of {100 * share:.3g}%" if count > 1 else ""

    @property
    def test_flops(self) -> float | None:
        """The operations for a test image, all of its views included; the mean of the images."""
        count, share = self.views
        flops = self.model.get("flops")
        return flops and flops * (1 + (count - 1) * share)

    def __post_init__(self) -> None:
        kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(RunRecord).items()}
        for name in kinds:
            object.__setattr__(self, name, _plain(getattr(self, name)))
        _check(vars(self), kinds)
        if self.schema != SCHEMA:
            raise ValueError(f"its schema is {self.schema}, not {SCHEMA}")
        _check(self.scores, {"test": dict}, "scores.")
        test = self.scores["test"]
        parts = vars(self) | {"scores.test": test}
        for part, kinds in NEEDED.items():
            _check(parts[part], kinds, f"{part}.")
        _check({"most_frequent": 0, **test}, {"most_frequent": Real}, "scores.test.")
        for name in ("top1_interval", "top5_interval"):
            _check(dict(enumerate(test[name])), {0: Real, 1: Real}, f"scores.test.{name}.")
        _check_all(dict(enumerate(test.get("top_k") or ())), Real, "scores.test.top_k.")
        _check({"flops": self.model.get("flops") or 0}, {"flops": Real}, "model.")
        _check_epochs(self.history)
        for row in self.trained_by:
            _check(row, {"first": int, "last": int}, "trained_by.")
        for by in (self.environment, *self.trained_by, self.evaluated_by):
            told = "backend", "git", "precision", "processor"
            words = {name: by.get(name) or "" for name in told}
            words |= dict(enumerate(by.get("accelerators") or ()))
            _check_all(words, str, "environment.")
        object.__setattr__(self, "trained_by", join_stretches(self.trained_by))
        for trial in self.trials:
            _check(trial, {"name": str, "epochs": int}, "trials.")
            if not isinstance(trial.get("val_accuracy", ""), Real | None):  # None: it diverged
                raise TypeError(f"trial {trial['name']} has no val_accuracy")
            if trial["name"].isdigit():  # of a search
                _check(trial, {"values": dict}, f"trial {trial['name']}'s ")
            _check_epochs(trial.get("history", ()), "accuracy", "val_accuracy")

    def _facts(self) -> dict[str, str]:
        data, seconds = self.dataset, self.seconds
        parts = (f"{name} {duration(s)}" for name, s in seconds.items() if name != "total")
        facts = {
            "data": f"{data['name']} ({data.get('source', UNKNOWN)}): {data['train']:,} training, "
            f"{data['validation']:,} validation and {data['test']:,} test images",
            "fingerprint": data.get("fingerprint", ""),
            "note on the data": data.get("note", ""),
            "pretrained weights": " of SHA-256 ".join(
                self.model[key] for key in ("weights", "weights_sha256") if key in self.model
            ),
        }
        stretches = self.trained_by or [self.environment]
        for row in stretches:
            epochs = f", epochs {row['first']} to {row['last']}" if len(stretches) > 1 else ""
            facts |= {f"{name}{epochs}": fact for name, fact in _told(row).items()}
        if self.evaluated_by and changes(stretches[-1], self.evaluated_by):
            facts |= {f"{name}, test": fact for name, fact in _told(self.evaluated_by).items()}
        return facts | {
            "training stopped": self.stopped,
            "trials": f"{len(self.trials):,}" if self.trials else "",
            "time": f"{duration(seconds['total'])} ({', '.join(parts)})",
        }

    def __repr__(self) -> str:
        model, data = self.model["architecture"], self.dataset["name"]
        epochs = f"{len(self.history)} epoch{'s' * (len(self.history) != 1)}"
        score = f"test top-1 {percent(self.scores['test']['top1'])}"
        return f"{self.run}: {model} on {data} ({self.notebook}), {epochs}, {score}"

    def _repr_html_(self) -> str:
        import pandas as pd  # takes half a second; the command line does not need it

        rows = {name: fact for name, fact in self._facts().items() if fact}
        with pd.option_context("display.max_colwidth", None):
            return pd.DataFrame(rows.items()).to_html(header=False, index=False)

    def write(self, folder: Path | str) -> Path:
        """Write ``record.json`` into a folder atomically, and return its path.

        Raises
        ------
        OSError
            Where the folder can't be written or the disk is full.

        """
        path = Path(folder) / RECORD
        write_atomically(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")
        return path


def read_record(path: Path | str) -> RunRecord:
    """Read a ``record.json``, or the one in a run's folder.

    Raises
    ------
    InputError
        Where the file is missing, broken or of another schema.

    """
    path = Path(path)
    path = path / RECORD if path.is_dir() else path
    try:
        return RunRecord(**json.loads(path.read_text("utf-8")))
    except OSError as error:
        reason = error.strerror
        raise InputError(f"record {path} can't be read ({reason}); give a run's folder") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"record {path} is broken ({error}); run its notebook again") from error


def record_run(
    parameters: Mapping[str, Any],
    dataset: Dataset,
    model: keras.Model,
    history: History,
    scores: Scores,
    phases: Phases,
    trials: Sequence[Trial | Outcome] = (),
) -> RunRecord:
    """Make the record of a run that has its scores; write it if the run has a folder.

    The seconds of training are those of all epochs, also before a resumption. With ``trials`` they
    are those of the scored model; the other trials are counted separately. The folder gets the
    scores (:meth:`~cifar_utils.evaluation.Scores.write`), the model (:func:`write_model`) and, at
    the end, the record, which marks the run as done. :func:`~cifar_utils.runs.folder.load_run`
    reads them.
    """
    from cifar_utils.models import summarize

    facts = summarize(model)
    seconds = {**phases.seconds, "train": history.seconds}
    if trials:
        seconds["search"] = max(0.0, sum(trial.seconds for trial in trials) - history.seconds)
    notebook, now = notebook_name(phases.output), describe_environment(model.dtype_policy.name)
    trained_by = history.trained_by
    by = {key: trained_by[-1][key] for key in now} if trained_by else now
    record = RunRecord(
        run=Path(phases.output or notebook).name,
        notebook=notebook,
        parameters=_recorded(parameters, dataset.name, facts.name),
        dataset=describe_dataset(dataset),
        model={
            "architecture": facts.name,
            "parameters": facts.parameters,
            "trainable_parameters": facts.trainable_parameters,
            "flops": facts.flops,
            **getattr(model, "pretrained", {}),
            **({"source": model.source} if getattr(model, "own", False) else {}),
        },
        environment=by,
        trained_by=trained_by,
        evaluated_by=now,
        code=history.code,
        seconds={**seconds, "total": sum(seconds.values())},
        history=history.epochs,
        best_epoch=history.best_epoch,
        stopped=history.stopped,
        scores={"test": scores.to_dict()},
        trials=[trial.to_dict() for trial in trials],
    )
    if phases.output:
        made_folder(Path(phases.output))
        scores.write(phases.output)
        write_model(model, phases.output)
        record.write(phases.output)
    return record


def _recorded(parameters: Mapping[str, Any], dataset: str, network: str) -> dict[str, Any]:
    """A run's parameters for its record: names instead of paths and functions."""
    kept = {
        name: Path(value).name if isinstance(value, str) and os.path.exists(value) else value  # noqa: PTH110  (it takes any text)
        for name, value in parameters.items()
        if name != "output"
    }
    if "dataset" in kept:  # else the path of a folder of pictures
        kept["dataset"] = dataset
    if callable(kept.get("architecture")):
        kept["architecture"] = network
    return kept


def notebook_name(folder: Path | str | None = None) -> str:
    """The name of the running notebook, without its ending; ``"notebook"`` where it is unknown.

    It is taken from ``run.json`` in the run's folder, else from the command that executes notebooks
    (``papermill NAME.ipynb``), which may run below JupyterLab, else from JupyterLab.
    """
    import psutil

    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(Path(folder, FACTS).read_text("utf-8"))["notebook"])
    command, session = [], os.environ.get("JPY_SESSION_NAME", "")
    with suppress(psutil.Error, AttributeError):  # a container's first process has no parent
        command = psutil.Process().parent().cmdline()
    executed = {Path(word).stem.removeprefix("jupyter-") for word in command} & EXECUTING
    named = [*command, session] if executed else [session, *command]
    return next((Path(name).stem for name in named if name.endswith(".ipynb")), "notebook")


def write_model(model: keras.Model, folder: Path | str) -> Path | None:
    """Write ``model.keras`` into a folder atomically, and return its path.

    ``keras.models.load_model(path)`` loads it in any process, without this package. The model takes
    uint8 images, computes float32 logits in float32, has no augmentation and is not compiled
    (:func:`~cifar_utils.models.to_plain`). Keras refuses images without a batch axis. It takes
    floats as 0 to 255, so images from 0 to 1 are black to it. It takes one channel for all three.
    An export to ONNX needs a call before. The file has four bytes a parameter: 1 MB for ResNet-20,
    105 MB for ResNet50V2, including its frozen base, and 350 MB for the fan.

    A note below the cell and an event tell of layers that Keras can load only with their own code.
    If a layer has no ``get_config``, nothing is written, and the result is ``None``.

    Raises
    ------
    OSError
        Where the folder can't be written or the disk is full.

    """
    from cifar_utils.models.graph import NO_CONFIG
    from cifar_utils.models.plain import foreign_layers, to_plain

    plain = to_plain(model)
    try:
        foreign = foreign_layers(plain)
    except NO_CONFIG as error:
        reason = " ".join(str(error).split()).partition(", and ")[0]
        show_note(
            folder,
            f"no {MODEL} is written: {reason}; give the layer a get_config that Keras can write",
        )
        return None
    if foreign:
        layers = ", ".join(foreign)
        show_note(folder, f"{MODEL} can be loaded only with the code of its layers {layers}")
    path = Path(folder) / MODEL
    with written_atomically(path) as file:
        plain.save(file.name)
    return path


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """A record's ``dataset``: its facts, and the number of images by split."""
    names = ("name", "source", "fingerprint", "note", "test_pictures")
    facts = {name: getattr(dataset, name) for name in names}
    splits = ("train", "validation", "test")
    return facts | {split: len(getattr(dataset, split).labels) for split in splits}
