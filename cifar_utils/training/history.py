"""The history of a training, by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cifar_utils.errors import check_bounds, check_count
from cifar_utils.provenance import join_stretches
from cifar_utils.text import percent


@dataclass(frozen=True)
class StoppingRule:
    """Decides by validation accuracy whether training ends before its last epoch.

    The rule depends only on the finished epochs, so a stopped run stays stopped when it is resumed.

    Attributes
    ----------
    target_accuracy
        The accuracy at which training ends, a fraction; ``None`` for no target.
    patience
        Epochs to wait for a better accuracy; ``None`` for no limit.

    """

    target_accuracy: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if (target := self.target_accuracy) is not None:
            target = check_bounds("target_accuracy", target, "above 0, at most 1")
            object.__setattr__(self, "target_accuracy", target)
        if (patience := self.patience) is not None:
            object.__setattr__(self, "patience", check_count("patience", patience))

    def __bool__(self) -> bool:
        return self != StoppingRule()

    def epoch_at_target(self, epochs: list[dict[str, Any]]) -> int | None:
        """The first epoch that reaches the target; ``None`` if none does."""
        if self.target_accuracy is None:
            return None
        reached = (
            row["epoch"] for row in epochs if row.get("val_accuracy", -1) >= self.target_accuracy
        )
        return next(reached, None)

    def reason(self, epochs: list[dict[str, Any]]) -> str:
        """Why training ends with these epochs; empty where it goes on."""
        epoch = self.epoch_at_target(epochs)
        if epoch is not None:
            return f"validation accuracy reached {percent(self.target_accuracy)} in epoch {epoch}"
        if self.patience and epochs:
            best = max(epochs, key=lambda row: row["val_accuracy"])["epoch"]
            if epochs[-1]["epoch"] - best >= self.patience:
                waited = f"{self.patience} epoch{'s' * (self.patience > 1)}"
                return f"validation accuracy was no better than in epoch {best} for {waited}"
        return ""


NEVER = StoppingRule()


@dataclass(frozen=True)
class History:
    """The course of one training run.

    Attributes
    ----------
    epochs
        A row for each epoch: ``epoch`` (from 1); ``loss``, ``accuracy`` and, with more than five
        classes, ``top5`` (means over the epoch, with augmentation and dropout on); the same with
        ``val_`` (after the epoch, if there are validation images); ``learning_rate`` (of its last
        step); ``seconds``. Losses contain penalties of the network's own weights, if it has any.
    best_epoch
        The epoch of the highest validation accuracy, then of the lowest validation loss. Without
        validation images, the last. The model has the weights of this epoch.
    steps
        Batches in an epoch.
    rule
        The rule that may have ended training before its last epoch.
    planned
        The number of epochs without that rule; 0 if unknown.
    trained_by
        The environment of each stretch of epochs: :func:`~cifar_utils.provenance.join_stretches`.
    code
        The code that took part: :func:`~cifar_utils.provenance.code_in_use`.
    joined
        Epochs before the second training, where two were joined; otherwise 0.

    """

    epochs: list[dict[str, Any]]
    best_epoch: int
    steps: int = 0
    rule: StoppingRule = NEVER
    planned: int = 0
    trained_by: list[dict[str, Any]] = field(default_factory=list)
    code: dict[str, str] = field(default_factory=dict)
    joined: int = 0

    @property
    def stopped(self) -> str:
        """Why training ended early; empty where it did not."""
        return self.rule.reason(self.epochs) if len(self.epochs) != self.planned else ""

    def steps_to(self, target: float | None) -> int | None:
        """Steps to a validation accuracy (report A's measure), or ``None`` if it was never reached.

        Accuracy is measured after each epoch, so the result may be too high by an epoch's steps. It
        is ``None`` for two trainings that were joined: their epochs may differ in steps.
        """
        epoch = StoppingRule(target).epoch_at_target(self.epochs)
        return None if epoch is None or self.joined else epoch * self.steps

    @property
    def best(self) -> dict[str, Any]:
        """The row of the best epoch."""
        return self.epochs[self.best_epoch - 1]

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included."""
        return sum(row["seconds"] for row in self.epochs)

    def followed_by(self, second: History) -> History:
        """Join two histories. ``second``'s epochs follow; the best epoch is the best of all."""
        first = len(self.epochs)
        later = [{**row, "epoch": first + row["epoch"]} for row in second.epochs]
        rows = [*self.epochs, *later]
        stretches = [
            {**row, "first": first + row["first"], "last": first + row["last"]}
            for row in second.trained_by
        ]
        return History(
            rows,
            best_epoch(rows),
            trained_by=join_stretches([*self.trained_by, *stretches]),
            code=self.code | second.code,
            joined=first,
        )

    def __repr__(self) -> str:
        best = self.best
        kind, prefix = ("best validation", "val_") if "val_accuracy" in best else ("training", "")
        why = f"; stopped: {self.stopped}" if self.stopped else ""
        why += "" if prefix else "; no images were held out, so the last epoch's weights are kept"
        if steps := self.steps_to(self.rule.target_accuracy):
            target = f"; validation accuracy {percent(self.rule.target_accuracy)} after"
            why += f"{',' if self.stopped else target} {steps:,} steps"
        epochs = f"{len(self.epochs)} epoch{'s' * (len(self.epochs) > 1)}"
        return (
            f"{epochs} in {self.seconds:,.0f} s; {kind} accuracy "
            f"{best[f'{prefix}accuracy']:.2%} (loss {best[f'{prefix}loss']:.4f}) "
            f"after epoch {self.best_epoch}{why}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def best_epoch(epochs: list[dict[str, Any]]) -> int:
    """The number of the best row: see :class:`History`."""
    if "val_accuracy" not in epochs[-1]:
        return epochs[-1]["epoch"]
    return max(epochs, key=lambda row: (row["val_accuracy"], -row["val_loss"]))["epoch"]
