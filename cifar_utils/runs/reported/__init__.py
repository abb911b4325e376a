"""Figures of others: one table (``results.yaml``), and the curves that report D printed.

The series reproduces five reports, A to E. Other known results have their authors' names and their
``source``. The figures are copied, not measured here. An accuracy is under ``accuracy`` if a report
does not call it top-1 or top-k. A split is ``unclear`` if a report does not name the images that it
scored.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from cifar_utils.choices import first_name
from cifar_utils.text import ABSENT, as_given, duration, interval, percent

if TYPE_CHECKING:
    from cifar_utils.runs.record import RunRecord

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.yaml"


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(RESULTS.read_text("utf-8"))


def introduction(report: str) -> str:
    """A sentence about a report, for readers who do not know it; ``report`` is its letter."""
    return f"Report {report} {_table()['reports'][report]}"


def _experiments(architecture: str, dataset: str) -> list[dict[str, Any]]:
    """The table's entries of an architecture, whatever its options."""
    name, rows = first_name(architecture), _table()["results"]
    return [row for row in rows if (row["architecture"], row["dataset"]) == (name, dataset)]


def reporter(row: dict[str, Any]) -> str:
    """The origin of a row of the table: ``"report E"``, or an author."""
    return f"report {row['report']}" if len(row["report"]) == 1 else row["report"]


def reported_results(architecture: str, dataset: str) -> list[dict[str, Any]]:
    """The figures reported of an architecture: a row for each experiment and split.

    They are of the name, whatever the options. Accuracies are fractions, and losses are in nats. A
    row has no key for a missing figure.
    """
    return [
        {**experiment, "split": split, **figures}
        for experiment in _experiments(architecture, dataset)
        for split, figures in experiment["figures"].items()
    ]


def best_reported(record: RunRecord, metric: str = "top1") -> tuple[float | None, str]:
    """The best accuracy reported of a run's network, if possible on test images, and its origin.

    The origin is in words: the reporter, the epochs if known, and a split that is not the test's.
    ``metric`` is ``"top1"`` or ``"top5"``.
    A network is known by its name. If its number of parameters is reported, it must be within a
    tenth of the run's. Accuracy on training images does not count. It is ``(None, "")`` where
    nothing is left, and for a run with ``train_limit``, because others train on all images.
    """
    size = record.model["parameters"]
    rows = [
        row
        for row in reported_results(record.model["architecture"], record.dataset["name"])
        if metric in row
        and row["split"] != "train"
        and "train_images" not in row
        and abs(row.get("parameters", size) - size) <= 0.1 * size
    ]
    if not rows or record.parameters.get("train_limit"):
        return None, ""
    best = max(rows, key=lambda row: (row["split"] == "test", row[metric]))
    splits = {"test": "", "unclear": ", split unclear"}
    epochs = f", {best['epochs']:g} epochs" if "epochs" in best else ""
    return best[metric], reporter(best) + epochs + splits.get(best["split"], f", {best['split']}")


def reported_per_class(architecture: str, dataset: str) -> dict[str, float] | None:
    """The reported test accuracy of each class, a fraction, or None."""
    found = [row["per_class"] for row in _experiments(architecture, dataset) if "per_class" in row]
    return dict(found[0]) if found else None


def reported_curve(architecture: str, dataset: str) -> pd.DataFrame | None:
    """The learning curve that a report printed, or None.

    Columns: ``epoch``, ``loss``, ``accuracy`` or ``top_5_accuracy`` (all of training), ``seconds``.
    ``attrs["source"]`` names the report.
    """
    for row in _experiments(architecture, dataset):
        if "curve" in row:
            curve = pd.read_csv(FOLDER / row["curve"])
            curve.attrs["source"] = reporter(row)
            return curve
    return None


def compare_with_reported(record: RunRecord) -> pd.DataFrame:
    """A page's table: a row for each experiment reported on the same task, then the run's own.

    Cells are words (``"86.70% (86.0 to 87.3)"``); a missing figure is a dash. Figures are of the
    test split or, if a report has none, of another one. Figures of the networks that the run
    compares, and of others of the same size or purpose, follow. If nothing was reported of the
    architecture on the dataset, the first row says so, and figures of other networks on the
    dataset's test images follow.
    """
    name, dataset = first_name(record.model["architecture"]), record.dataset["name"]
    here = [row for row in _table()["results"] if row["dataset"] == dataset]
    trials = [str(trial["values"].get("architecture")) for trial in record.trials]
    names = [name, *_table()["beside"].get(name, []), *map(first_name, trials)]
    found = [row for row in here if row["architecture"] in names]
    rows = {}
    if not found:
        rows[f"none reported for {name} on {dataset}"] = _cells({})
        found = [row for row in here if "test" in row["figures"]]
    for experiment in found:
        splits = experiment["figures"]
        split = next(s for s in ("test", "validation", "unclear", "train") if s in splits)
        label = f"{reporter(experiment)}: {experiment['experiment']}"
        if experiment["architecture"] != name:
            label += f", {experiment['architecture']}"
        label += {"test": "", "unclear": " (split unclear)"}.get(split, f" ({split})")
        rows[label] = _cells({**experiment, **splits[split]})
    facts = {"parameters": record.model["parameters"], "seconds": record.seconds["train"]}
    facts |= {"epochs": len(record.history), "top5": record.top5}
    rows["this run"] = _cells(record.scores["test"] | facts)
    table = pd.DataFrame.from_dict(rows, orient="index")
    optional = ["accuracy, top-k unclear", "steps"]
    return table.drop(columns=[c for c in optional if (table[c] == ABSENT).all()])


def _cells(figures: dict[str, Any]) -> dict[str, str]:
    """One row's figures, in words, by the table's column."""

    def words(key: str, form: Any) -> str:
        return ABSENT if figures.get(key) is None else form(figures[key])

    def share(key: str) -> str:
        bounds = figures.get(f"{key}_interval")
        if bounds:  # measured
            return words(key, lambda value: f"{percent(value, 2)} ({interval(bounds)})")
        return words(key, as_given)

    return {
        "top-1": share("top1"),
        "top-5": share("top5"),
        "accuracy, top-k unclear": share("accuracy"),
        "loss (nats)": words("loss", "{:.4f}".format),
        "parameters": words("parameters", "{:,}".format),
        "epochs": words("epochs", "{:,.6g}".format),
        "steps": words("steps", "{:,}".format),
        "training time": words("seconds", duration),
    }
