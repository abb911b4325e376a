"""The answer of a run: a few sentences computed from its record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from cifar_utils.choices import first_name
from cifar_utils.evaluation import TARGET
from cifar_utils.intervals import tukey_half_width, tukey_level, wilson_interval
from cifar_utils.runs.record import RunRecord
from cifar_utils.runs.reported import best_reported, reported_results
from cifar_utils.text import (
    Told,
    as_given,
    first_three,
    from_to,
    interval,
    listed,
    percent,
)

EQUAL = 1e-7  # points; less is rounding
AGAIN = "for longer"  # notebook 04's name of the training that follows its trials


def answer(record: RunRecord) -> Told:
    """A run's answer to its notebook's question, in plain text; the first paragraph stands alone.

    For one training, it gives the network's accuracy and the best one that others report on test
    images, or the best top-5 accuracy where they report no other. For several, it names the best on
    the validation images, its gain over the others (of four or more, the first one, the worst, and
    those that may be as good), and what lost what it had learned. A second paragraph has the rest:
    accuracy on training images, what the intervals allow for, and test accuracy. Where all
    are near chance, it says only that. Trainings of several seeds are compared by their means, if
    none of them diverged. Trials for fewer epochs are not compared, unless they ended early.
    """
    test = record.scores["test"]
    if near_chance(record):
        return Told(
            "This run is too small to tell, or its training failed. It classifies "
            f"{percent(test['top1'])} of {test['n']:,} test images correctly; guessing one class "
            f"for all comes to {percent(_chance(test))}. "
            "More images, more epochs or a lower learning rate may help."
        )
    trials = [trial for trial in _raced(record) if not diverged(trial)]
    whole = max((trial["epochs"] for trial in trials if not trial.get("stopped")), default=None)
    groups = by_name(
        [trial for trial in trials if trial.get("stopped") or trial["epochs"] == whole]
    )
    seeds = {seed_of(trial, record) for trial in _raced(record)}
    alike = [group for group in groups if {seed_of(trial, record) for trial in group} == seeds]
    return Told(_compared(record, alike) if len(alike) > 1 else _trained(record))


def _raced(record: RunRecord) -> list[dict[str, Any]]:
    """The trials that may be compared, without the training that followed them."""
    return [trial for trial in record.trials if trial["name"] != AGAIN]


def seed_of(trial: dict[str, Any], record: RunRecord) -> int | None:
    """A trial's seed; those of a search and of older records have the run's."""
    return trial.get("seed", record.seed)


def near_chance(record: RunRecord) -> bool:
    """Whether no network of a run can be told from guessing.

    It is the tested one by its test accuracy's 95% interval, and other trials by their validation
    accuracies'.
    """
    if not _unsure(record):
        return False
    images, chance = record.dataset["validation"], _chance(record.scores["test"])
    return all(
        _near_guessing(wilson_interval(round(trial["val_accuracy"] * images), images)[0], chance)
        for trial in record.trials
        if not diverged(trial)
    )


def _unsure(record: RunRecord) -> bool:
    test = record.scores["test"]
    return _near_guessing(test["top1_interval"][0], _chance(test))


def _chance(test: dict[str, Any]) -> float:
    """The accuracy of naming the most frequent class for all images; older records lack it."""
    return test.get("most_frequent", 1 / max(1, len(test["per_class"])))


def _near_guessing(accuracy: float, chance: float) -> bool:
    """Whether words may say of an accuracy no more than that it is near that of guessing.

    It then is less than half of that above it, and less than 10 percentage points; where guessing
    is nearly always right, less than half of what is missing.
    """
    return accuracy < chance + min(chance / 2, 0.1, (1 - chance) / 2)


def _lost(epochs: Sequence[Mapping[str, float]], images: int, chance: float) -> bool:
    """Whether words may say that a network lost what it had learned.

    In one epoch its accuracies, on training and on validation images, were not near guessing. In
    the last one, validation accuracy is near guessing, or below half of the best, and by more than
    chance below it.
    """
    best, last = max(row["val_accuracy"] for row in epochs), epochs[-1]["val_accuracy"]
    learned = any(
        not _near_guessing(min(row["accuracy"], row["val_accuracy"]), chance) for row in epochs
    )
    fell = last < best / 2 or _near_guessing(last, chance)
    return learned and fell and _gain(best, last, images)[1] > 0


def _trained(record: RunRecord) -> str:
    test, data, network = record.scores["test"], record.dataset, record.model["architecture"]
    told = f"95% interval {interval(test['top1_interval'])}, one seed"
    sentences = [classified([record], network, percent(test["top1"]), told)]
    best, by = best_reported(record)
    best_five, by_five = best_reported(record, "top5")
    if best is not None:
        sentences.append(reported_sentence(network, f"{as_given(best)} ({by})"))
    elif best_five is not None:
        sentences.append(f"Its top-5 accuracy is {percent(test['top5'])}.")
        sentences.append(reported_sentence(network, f"top-5 {as_given(best_five)} ({by_five})"))
    if record.parameters.get("fine_tune_layers") and data["validation"]:
        sentences += _fine_tuned(record)
    open_k = any("accuracy" in row for row in reported_results(network, data["name"]))
    reached = [k for k, share in enumerate(test.get("top_k", []), 1) if share >= TARGET]
    if open_k and reached and reached[0] > 1:
        target = percent(TARGET, 0)
        sentences.append(f"Its top-k accuracy is at least {target} from k = {reached[0]} on.")
    whole = [trial for trial in record.trials if not diverged(trial)]
    if len({trial["name"].isdigit() for trial in whole}) > 1:
        sentences.append(
            "No trial of the search had as many epochs as the first guess: they can't be compared."
        )
    return " ".join(sentences + _diverged(record))


def classified(records: Sequence[RunRecord], network: str, share: str, told: str) -> str:
    """A sentence with a share of the test images, in words, and what is ``told`` of it.

    The records are of one configuration, a seed each.
    """
    record = records[0]
    test, data = record.scores["test"], record.dataset
    kept = from_to([one.best_epoch for one in records])
    epochs = from_to([len(one.history) for one in records])
    views, unsure = record.views
    whose = f"the least certain {100 * unsure:.3g}%" if unsure < 1 else "each"
    seen = f", by {views} views of {whose}" if views > 1 else ""
    of = f"{kept} of " if kept != epochs else ""
    return (
        f"{network} classifies {share} of {test['n']:,} test images of {data['name']} correctly"
        f"{seen}, after {of}{epochs} epoch{'s' * (epochs != '1')} of {data['train']:,} images "
        f"({told})."
    )


def reported_sentence(network: str, reported: str) -> str:
    """A sentence with the figure that others report of a network of this name, if any."""
    name = first_name(network)
    return reported and f"Others report {reported} for {name}; options and settings may differ."


def _fine_tuned(record: RunRecord) -> list[str]:
    """The gain from training the base's last layers after the head's own epochs."""
    more, images = record.parameters.get("fine_tune_epochs"), record.dataset["validation"]
    if not more or len(record.history) <= more:
        return []
    stages = record.history[:-more], record.history[-more:]
    alone, together = (max(row["val_accuracy"] for row in rows) for rows in stages)
    gain, low, high = _gain(together, alone, images)
    given = record.parameters.get("fine_tune_augmentation", "none")
    changed = "" if given == "none" else f", and from their augmentation, “{given}”"
    return [
        f"The head alone came to {percent(alone)} of {images:,} validation images. "
        f"With the base's last layers trained too, for {more} more epoch{'s' * (more != 1)}, "
        f"it was {percent(together)}, {gain:+.1f} points ({_between(low, high)}). A part of this "
        f"may come from the additional epochs{changed}."
    ]


def _compared(record: RunRecord, groups: list[list[dict[str, Any]]]) -> str:
    images, seeds = record.dataset["validation"], len(groups[0])
    best, *others = sorted(groups, key=_place)
    worst = others[-1]
    others.sort(key=lambda group: group is not groups[0])  # what the others are set against
    searched = best[0]["name"].isdigit()
    trials = [trial for group in groups for trial in group]
    # A search also chose by the trials that it ended before the others.
    tried = {str(trial["values"]) for trial in _raced(record) if trial["name"].isdigit()}
    cases = max(len(groups), len(tried) + sum(not group[0]["name"].isdigit() for group in groups))
    gains = _gains([best, *others], images, _chance(record.scores["test"]), cases)
    epochs = from_to([trial["epochs"] for trial in trials])
    shown = [
        group
        for group in others
        if len(others) < 4 or group in (others[0], worst) or not gains[group[0]["name"]][1] > 0
    ]
    shown = others[:1] if searched else shown
    name = called(best[0])
    epochs += " epoch" + "s" * (epochs != "1")
    how = f"trainings of {epochs} each (one seed): it"
    if seeds > 1:
        how = f"ways, each trained for {epochs} with {seeds} seeds: on average it"
    sentences = [
        f"{name[0].upper()}{name[1:]} is the best of {len(groups)} {how} classifies "
        f"{percent(_mean(best))} of {images:,} validation images correctly.",
        *_better("It", shown, gains),
    ]
    if not searched and any(trial["name"].isdigit() for trial in trials):
        sentences.append("The search found nothing better.")
    if searched:
        sentences.append("The search chose it by these images, so its gain may be less on others.")
    steps = {called(group[0]): steps_to_target(record, group) for group in groups}
    if fewest := min(filter(None, steps.values()), default=None):
        first = listed([name for name, count in steps.items() if count == fewest])
        target = as_given(record.parameters["target_accuracy"])
        average = " on average" * (seeds > 1)
        sentences.append(
            f"{target} is first reached by {first}, after {fewest:,.0f} steps{average}. Steps are "
            "counted at the ends of epochs, and other seeds may change the order."
        )
    trained = [
        f"{called(group[0])} {percent(mean(one['history'][-1]['accuracy'] for one in group))}"
        for group in (best, *shown)
        if group[0].get("history")  # a search keeps none
    ]
    sentences += _collapsed(groups, images, _chance(record.scores["test"]))
    if early := dict.fromkeys(called(trial) for trial in trials if trial.get("stopped")):
        why = "Ended early, at the target accuracy or for lack of progress"
        sentences.append(f"{why}: {listed(first_three([*early]))}.")
    sentences += _diverged(record)
    more = _better("The best", [group for group in others if group not in shown], gains)
    if len(trained) > 1:
        more.append(f"Accuracy on training images in the last epoch: {listed(trained)}.")
    more += _of_intervals(gains, seeds, cases)
    test, network = record.scores["test"], record.model["architecture"]
    told = f"95% interval {interval(test['top1_interval'])}"
    tested = classified([record], network, percent(test["top1"]), told)
    if _unsure(record):
        tested += f" Guessing one class for all comes to {percent(_chance(test))}."
    if len(_raced(record)) < len(record.trials):
        # Older records call it `longer`.
        given = record.parameters.get("augmentation", record.parameters.get("longer"))
        by = f" with “{given}”" if given else ""
        sentences.append(f"Trained again{by}, {tested}")
    else:
        more.append(f"Tested{', the first seed' * (seeds > 1)}: {tested}")
    return f"{' '.join(sentences)}\n\n{' '.join(more)}".strip()


def _diverged(record: RunRecord) -> list[str]:
    """Of the trials that can't be compared, which ones they are."""
    lost = dict.fromkeys(called(trial) for trial in record.trials if diverged(trial))
    told = f"Not compared, because the loss diverged: {listed(first_three([*lost]))}."
    return [told] if lost else []


def _collapsed(groups: list[list[dict[str, Any]]], images: int, chance: float) -> list[str]:
    """Of each network that lost what it had learned, how often and by how much it did."""
    sentences = []
    for group in groups:
        told = [trial for trial in group if trial.get("history")]  # a search keeps none
        if fallen := [trial for trial in told if _lost(trial["history"], images, chance)]:
            best = percent(_mean(fallen))
            last = percent(mean(trial["history"][-1]["val_accuracy"] for trial in fallen))
            often = f" in {len(fallen)} of {len(group)} trainings" if len(group) > 1 else ""
            sentences.append(
                f"{called(group[0])} lost what it had learned{often}: it classifies {last} of the "
                f"validation images correctly in the last epoch, {best} in its best one."
            )
    return sentences


def _mean(group: list[dict[str, Any]]) -> float:
    return mean(trial["val_accuracy"] for trial in group)


def _place(group: list[dict[str, Any]]) -> tuple[float, bool, float]:
    """Smaller for the better of two groups; of equal ones, a search's trials first, by loss."""
    first = group[0]
    return -_mean(group), not first["name"].isdigit(), first.get("val_loss") or 0.0


def by_name(trials: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Trials of a record; those that differ in the seed alone stand together."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(trial["name"], []).append(trial)
    return [*groups.values()]


def _gains(
    groups: list[list[dict[str, Any]]], images: int, chance: float, cases: int
) -> dict[str, tuple[float, float, float]]:
    """The best trial's gain over each other one, by the others' names, as :func:`_gain` gives it.

    The best is the first. The intervals are Tukey's: they allow for the choice of the best of all
    ``cases``. Trials that never learned hardly differ between seeds, so they do not count in the
    others' deviation.
    """
    best, *others = groups
    if len(best) == 1:
        best, level = best[0]["val_accuracy"], tukey_level(cases)
        return {
            trial["name"]: _gain(best, trial["val_accuracy"], images, level) for (trial,) in others
        }
    shares = [{one["seed"]: one["val_accuracy"] for one in group} for group in groups]
    learned = [
        row for row in shares if not all(_near_guessing(one, chance) for one in row.values())
    ]
    half = 100 * tukey_half_width(learned if len(learned) > 1 else shares, cases)
    gains = {group[0]["name"]: 100 * (_mean(best) - _mean(group)) for group in others}
    return {name: (gain, gain - half, gain + half) for name, gain in gains.items()}


def _better(subject: str, others: list, gains: dict[str, tuple[float, ...]]) -> list[str]:
    """From which trials the validation images can tell the best one, and from which they can't."""
    better, alike, equal = [], [], []
    for trial, *_ in others:
        gain, low, high = gains[trial["name"]]
        told = "" if math.isnan(low) else f" ({_between(low, high)})"
        if gain < EQUAL:
            equal.append(called(trial))
        else:
            which = better if low > 0 else alike
            which.append(f"{called(trial)} by {gain:.1f} points{told}")
    sentences = [f"{subject} is better than {listed(first_three(better))}."] if better else []
    if alike:
        ahead = listed(first_three(alike))
        sentences.append(f"{subject} is ahead of {ahead}, which may be chance.")
    if equal:
        are = "is" if len(equal) == 1 else "are"
        sentences.append(f"On these images {listed(first_three(equal))} {are} as good.")
    return sentences


def _of_intervals(gains: dict[str, tuple[float, ...]], seeds: int, cases: int) -> list[str]:
    """What the intervals of the gains allow for; nothing if there is no gain."""
    lows = [low for gain, low, _ in gains.values() if gain >= EQUAL]
    if not lows:
        return []
    if any(map(math.isnan, lows)):
        return ["There are no intervals: each difference is the same with all seeds."]
    if seeds > 1:
        return ["The intervals are Tukey's over seeds, on the same validation images."]
    if cases > 2:
        why = f"they allow for the choice of the best of {cases}, not for other seeds"
        return [f"The intervals are Tukey's over images: {why}."]
    return ["The interval is over images, not over other seeds."]


def steps_to_target(record: RunRecord, group: list[dict[str, Any]]) -> float | None:
    """Steps until a trial's validation accuracy reached the target, counted at ends of epochs.

    Of several seeds it is the mean; None if one of them did not reach it.
    """
    steps = [_steps_to_target(record, trial) for trial in group]
    return None if None in steps else mean(steps)


def _steps_to_target(record: RunRecord, trial: dict[str, Any]) -> int | None:
    target, batch = (record.parameters.get(key) for key in ("target_accuracy", "batch_size"))
    for row in trial.get("history", []) if target and batch else []:
        if row["val_accuracy"] >= target:
            return row["epoch"] * math.ceil(record.dataset["train"] / batch)
    return None


def diverged(trial: dict[str, Any]) -> bool:
    """Whether the loss of a record's trial diverged, in its first epoch or later."""
    return trial["val_accuracy"] is None or trial.get("diverged", False)


def called(trial: dict[str, Any], marks: str = "“”") -> str:
    """A trial's name in quotation marks or, for a numbered trial of a search, with its values."""
    if not trial["name"].isdigit():
        return f"{marks[0]}{trial['name']}{marks[1]}"
    values = [f"{key.replace('_', ' ')} {value:g}" for key, value in trial["values"].items()]
    return f"trial {trial['name']} ({', '.join(values)})"


def _between(low: float, high: float) -> str:
    return f"95% interval {low:+.1f} to {high:+.1f}"


def _gain(
    best: float, other: float, images: int, level: float = 0.95
) -> tuple[float, float, float]:
    """The best trial's gain and the ends of its interval, in points.

    The interval is of Newcombe's method for two shares (Statistics in Medicine 17, 873-890, 1998).
    It does not use that the images are the same ones, so it is too wide rather than too narrow.
    """
    (best_low, best_high), (other_low, other_high) = (
        wilson_interval(round(share * images), images, level) for share in (best, other)
    )
    gain = best - other
    low = gain - math.hypot(best - best_low, other_high - other)
    high = gain + math.hypot(best_high - best, other - other_low)
    return 100 * gain, 100 * low, 100 * high
