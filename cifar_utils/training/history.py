"""What training leaves behind, epoch by epoch."""

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class History:
    """The course of one training run.

    Attributes
    ----------
    epochs
        A row an epoch: ``epoch`` (from 1), ``loss`` and ``accuracy`` (means over the epoch,
        augmentation and dropout on), ``val_loss`` and ``val_accuracy`` (after it; not without
        validation images), ``learning_rate`` (at its end), ``seconds``.
    best_epoch
        The epoch of the highest validation accuracy, of equals the one of the lowest validation
        loss; without validation images the last. Its weights are the model's.

    """

    epochs: list[dict[str, Any]]
    best_epoch: int

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best epoch."""
        return self.epochs[self.best_epoch - 1]

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included."""
        return sum(row["seconds"] for row in self.epochs)

    def __repr__(self) -> str:
        best = self.best
        kind, prefix = ("best validation", "val_") if "val_accuracy" in best else ("training", "")
        return (
            f"{len(self.epochs)} epochs in {self.seconds:,.0f} s; {kind} accuracy "
            f"{best[f'{prefix}accuracy']:.2%} (loss {best[f'{prefix}loss']:.4f}) "
            f"after epoch {self.best_epoch}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table, indexed by epoch."""
        return pd.DataFrame(self.epochs).set_index("epoch")


def best_epoch(epochs: list[dict[str, Any]]) -> int:
    """The number of the best row: see :class:`History`."""
    if "val_accuracy" not in epochs[-1]:
        return epochs[-1]["epoch"]
    return max(epochs, key=lambda row: (row["val_accuracy"], -row["val_loss"]))["epoch"]
