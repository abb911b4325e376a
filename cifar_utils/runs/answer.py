"""The answer of a run: a few sentences computed from its record."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from cifar_utils.evaluation import wilson_interval
from cifar_utils.runs.record import RunRecord
from cifar_utils.runs.reported import reported_results, reporter
from cifar_utils.text import interval, listed, percent

TARGET = 0.94  # report A's target accuracy; it does not give the k of its top-k


def answer(record: RunRecord) -> str:
    """A run's answer to its notebook's question, in plain text.

    For one training, it gives the network's accuracy and the best one that others report on test
    images. For several, it names the best on the validation images, and the others from which these
    images can tell it. For a test accuracy near chance, it says only that.
    """
    test = record.scores["test"]
    if near_chance(record):
        return (
            f"This run is too small to tell. It classifies {percent(test['top1'])} of "
            f"{test['n']:,} test images correctly; guessing comes to {percent(_chance(test))}. "
            "More images or more epochs may help."
        )
    trials = [trial for trial in record.trials if trial["val_accuracy"] is not None]
    alike = [trial for trial in trials if trial["epochs"] == trials[0]["epochs"]]
    return _compared(record, alike) if len(alike) > 1 else _trained(record)


def near_chance(record: RunRecord) -> bool:
    """Whether the test accuracy's 95% interval goes below 1.5 times the accuracy of guessing."""
    test = record.scores["test"]
    return test["top1_interval"][0] < 1.5 * _chance(test)


def _chance(test: dict[str, Any]) -> float:
    return 1 / max(1, len(test["per_class"]))


def _trained(record: RunRecord) -> str:
    test, data = record.scores["test"], record.dataset
    network, epochs = record.model["architecture"], len(record.history)
    sentences = [
        f"{network} classifies {percent(test['top1'])} of {test['n']:,} test images of "
        f"{data['name']} correctly (95% interval {interval(test['top1_interval'])}), after "
        f"{epochs} epoch{'s' * (epochs != 1)} of {data['train']:,} images, one seed."
    ]
    reported = reported_results(network, data["name"])
    best = _best(reported)
    if best is not None:
        sentences.append(
            f"The best figure reported of this network is {percent(best['top1'], 2)}, by "
            f"{reporter(best)}; its settings may differ."
        )
    if record.parameters.get("fine_tune_layers") and data["validation"]:
        sentences.append(_fine_tuned(record))
    reached = [k for k, share in enumerate(test.get("top_k", []), 1) if share >= TARGET]
    if best is None and len(reported) and reached and reached[0] > 1:
        sentences.append(f"Counted by top-k, {percent(TARGET, 0)} is reached at k = {reached[0]}.")
    return " ".join(sentences)


def _fine_tuned(record: RunRecord) -> str:
    """The gain from training the base's last layers after the head's own epochs."""
    first, images = record.parameters["epochs"], record.dataset["validation"]
    alone, together = (
        max(row["val_accuracy"] for row in rows)
        for rows in (record.history[:first], record.history[first:])
    )
    gain, _, told = _gain(together, alone, images)
    return (
        f"The head alone came to {percent(alone)} of {images:,} validation images. "
        f"With the base's last layers trained too it was {percent(together)}, "
        f"{gain:+.1f} points (95% interval {told})."
    )


def _best(reported: pd.DataFrame) -> dict[str, Any] | None:
    rows = reported[reported["top1"].notna() & (reported["split"] == "test")]
    return rows.sort_values("top1").iloc[-1].to_dict() if len(rows) else None


def _compared(record: RunRecord, trials: list[dict[str, Any]]) -> str:
    images = record.dataset["validation"]
    best, *others = sorted(trials, key=lambda trial: -trial["val_accuracy"])
    if len(others) > 3:  # the second, and the one that the others are set against
        others = [others[0], *(trial for trial in trials[:1] if trial not in (best, others[0]))]
    sentences = [
        f"Of {len(trials)} trainings of {best['epochs']} epochs each, one seed, the best on "
        f"{images:,} validation images is {_called(best)} with {percent(best['val_accuracy'])}."
    ]
    gains = [
        (_called(other), _gain(best["val_accuracy"], other["val_accuracy"], images))
        for other in others
    ]
    better = [f"{name} by {gain:.1f} ({told})" for name, (gain, low, told) in gains if low > 0]
    alike = [f"{name} ({told})" for name, (_, low, told) in gains if low <= 0]
    if better:
        points = "points of accuracy (95% interval in parentheses)"
        sentences.append(f"It is better, in {points}, than {listed(better)}.")
    if alike:
        sentences.append(f"These images can't tell it from {listed(alike)}.")
    trained = [
        f"{_called(trial)} {percent(trial['history'][-1]['accuracy'])}"
        for trial in (best, *others)
        if trial.get("history")  # a search keeps none
    ]
    if trained:
        sentences.append(f"Accuracy on training images in the last epoch: {listed(trained)}.")
    return " ".join(sentences)


def _called(trial: dict[str, Any]) -> str:
    """A trial's name in quotation marks or, for a numbered trial of a search, with its values."""
    if not trial["name"].isdigit():
        return f"“{trial['name']}”"
    values = [f"{key.replace('_', ' ')} {value:g}" for key, value in trial["values"].items()]
    return f"trial {trial['name']} ({', '.join(values)})"


def _gain(best: float, other: float, images: int) -> tuple[float, float, str]:
    """The best trial's gain in points, the low end of its interval, and the interval in words.

    The interval is of Newcombe's method for two shares (Statistics in Medicine 17, 873-890, 1998).
    It does not use that the images are the same ones, so it is too wide rather than too narrow.
    """
    (best_low, best_high), (other_low, other_high) = (
        wilson_interval(round(share * images), images) for share in (best, other)
    )
    gain = best - other
    low = gain - math.hypot(best - best_low, other_high - other)
    high = gain + math.hypot(best_high - best, other - other_low)
    return 100 * gain, 100 * low, f"{100 * low:+.1f} to {100 * high:+.1f}"
