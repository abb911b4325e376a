"""A run read back from its folder: record, scores, model and page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_utils.errors import InputError
from cifar_utils.runs.record import RunRecord, read_record

if TYPE_CHECKING:
    import keras

    from cifar_utils.evaluation import Predicted, Scores


@dataclass(frozen=True, eq=False, repr=False)
class LoadedRun:
    """A run that is done; what is not in the record is read when it is first asked for.

    Attributes
    ----------
    folder
        Where it lies.
    record
        What it claims.

    """

    folder: Path
    record: RunRecord

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def page(self) -> Path:
        """Its exported page, ``report.html``; runs of plain papermill or JupyterLab have none."""
        return self.folder / "report.html"

    @cached_property
    def scores(self) -> Scores:
        """What it said of the test images, exactly; raises InputError without predictions."""
        from cifar_utils.evaluation import read_scores

        path = self.folder / "predictions.npz"
        if not path.exists():
            raise InputError(f"run {self.folder} has no predictions.npz; {self._way_out}")
        return read_scores(path)

    @cached_property
    def predicted(self) -> Predicted:
        """The class that it gave each test image; published runs keep this of their predictions."""
        from cifar_utils.evaluation import read_predicted

        path = self.folder / "predicted.npz"
        return read_predicted(path) if path.exists() else self.scores.predicted

    @cached_property
    def model(self) -> keras.Model:
        """The model that was tested, from uint8 images ``(N, H, W, 3)`` to logits ``(N, K)``.

        Not compiled: for :func:`~cifar_utils.evaluation.evaluate`, for ``model.predict``, or to go
        on with by :func:`~cifar_utils.training.fit`.

        Raises
        ------
        InputError
            Where the run has none, or it is broken.

        """
        path = self.folder / "model.keras"
        if not path.exists():
            raise InputError(
                f"run {self.folder} has no model.keras (published runs keep none); {self._way_out}"
            )
        import cifar_utils.models  # noqa: F401  (its layers are known by name from here on)
        from cifar_utils.backend import keras

        try:
            return keras.models.load_model(path)
        except Exception as error:  # Keras raises almost anything at what is no model
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"model {path} is broken ({reason}); {self._way_out}") from error

    @property
    def _way_out(self) -> str:
        again = f"run {self.record.notebook} again with its parameters"
        if (self.folder / "checkpoint").exists():
            return f"{again} and this output: it goes on from its checkpoint"
        return again

    def __repr__(self) -> str:
        files = {
            "page": "report.html", "predicted classes": "predicted.npz",
            "predictions": "predictions.npz", "model": "model.keras",
        }  # fmt: skip
        there = ["record", *(kind for kind, file in files.items() if (self.folder / file).exists())]
        missing = [f"no {kind}" for kind in files if kind not in there]
        return f"{self.record!r}; in {self.folder}: {', '.join(there + missing)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.record._repr_html_()}"


def load_run(path: Path | str) -> LoadedRun:
    """Read a run back from its folder.

    >>> run = load_run("reports/published/resnet20-cifar10-s0")
    >>> run.record.scores["test"]["top1"], run.scores.confusion, run.model.predict(images)

    Raises
    ------
    InputError
        Where the folder holds no run, or one that has not come to its scores.

    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"run {folder} is not there; give a run's folder")
    if not (folder / "record.json").exists():
        if (folder / "run.json").exists():
            raise InputError(
                f"run {folder} has no record: it failed or is not finished; the command that began "
                "it goes on with it"
            )
        below = sorted(file.parent.name for file in folder.glob("*/record.json"))
        more = ", ..." if len(below) > 3 else ""
        near = f"one of those in it: {', '.join(below[:3])}{more}" if below else "a run's folder"
        raise InputError(f"folder {folder} is no run's; give {near}")
    return LoadedRun(folder, read_record(folder))
