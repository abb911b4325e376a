"""What a series found, in sentences that are filled from records."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

import pandas as pd
from markupsafe import Markup

from cifar_utils.leaderboard import FoundRun
from cifar_utils.words import duration, interval, percent

# Runs on different images are not compared; a seed is no choice; where a run went says nothing.
NO_CHOICE = {"dataset", "seed", "test_limit", "output"}
MOST = 6  # sentences of a kind
Link = Callable[[FoundRun], Markup]


def find_findings(runs: Sequence[FoundRun], board: pd.DataFrame, link: Link) -> list[Markup]:
    """The best of each dataset, what one parameter alone was worth, what another seed changed.

    Parameters
    ----------
    runs, board
        Finished runs, and their rows of the leaderboard: the best first within a dataset.
    link
        A run's name as HTML.

    """
    rows = list(zip(runs, board.to_dict("records"), strict=True))
    scored = [(run, row) for run, row in rows if pd.notna(row["top1"])]
    datasets = dict.fromkeys(row["dataset"] for _, row in scored)
    best = [
        _best([pair for pair in scored if pair[1]["dataset"] == name], link) for name in datasets
    ]
    return [*best, *_effects(scored, link)[:MOST], *_seeds(scored, link)[:MOST]]


def _best(ranked: list[tuple[FoundRun, dict]], link: Link) -> Markup:
    run, row = ranked[0]
    which = f"the best of {len(ranked)} runs" if len(ranked) > 1 else "the one run"
    seeds = {other.record.parameters.get("seed") for other, _ in ranked if _same(run, other)}
    n = run.record.scores["test"].get("n")
    words = Markup("On {}, {} is {}: {} of {}test images ({})").format(
        row["dataset"],
        which,
        link(run),
        _share(row),
        f"{n:,} " if n else "",
        "one seed" if len(seeds) == 1 else f"the best of {len(seeds)} seeds",
    )
    if pd.notna(row["reported"]):
        points = 100 * (row["top1"] - row["reported"])
        words += Markup(", {:.1f} points {} the {} reported for {} ({})").format(
            abs(points),
            "above" if points > 0 else "below",
            percent(row["reported"]),
            row["architecture"],
            row["reported_by"],
        )
    else:
        words += Markup("; no report gives a top-1 figure of {} there").format(row["architecture"])
    if pd.notna(row["train_seconds"]):
        words += f"; it trained for {duration(row['train_seconds'])}"
        words += f" on {row['processor']}" if row["processor"] else ""
    return words + "."


def _share(row: dict[str, Any]) -> str:
    if pd.isna(row["top1_low"]):
        return percent(row["top1"])
    bounds = interval((row["top1_low"], row["top1_high"]))
    return f"{percent(row['top1'])} (95% interval {bounds})"


def _effects(scored: list[tuple[FoundRun, dict]], link: Link) -> list[Markup]:
    """A sentence for each set of runs that are equal but for one parameter, the widest first."""
    names = {name for run, _ in scored for name in run.record.parameters} - NO_CHOICE
    found = []
    for name in sorted(names):
        alike: dict[str, dict[str, dict[Any, tuple]]] = defaultdict(lambda: defaultdict(dict))
        for run, row in scored:
            parameters = run.record.parameters
            if name in parameters and _validation(run) is not None:
                value, seed = _written(parameters[name]), parameters.get("seed")
                alike[_key(run, name)][value][seed] = run, row
        found += [_effect(name, values, link) for values in alike.values() if len(values) > 1]
    widest: dict[str, Markup] = {}
    for _, about, words in sorted(filter(None, found), key=lambda effect: -effect[0]):
        widest.setdefault(about, words)  # one sentence for each parameter and setting
    return list(widest.values())


def _effect(
    name: str, values: dict[str, dict[Any, tuple]], link: Link
) -> tuple[float, str, Markup] | None:
    """How far apart the values' validation accuracies are, where, and that in words."""
    seeds = set.intersection(*map(set, values.values()))  # each value with the same luck
    if not seeds:
        return None
    chosen = {value: [by[seed] for seed in seeds] for value, by in values.items()}
    means = {
        value: sum(_validation(run) for run, _ in pairs) / len(pairs)
        for value, pairs in chosen.items()
    }
    ranked = sorted(means, key=lambda value: -means[value])
    worth = means[ranked[0]] - means[ranked[-1]]
    row = chosen[ranked[0]][0][1]
    setting = [f"{row['architecture']} on {row['dataset']}"] if name != "architecture" else []
    setting += [f"{row['epochs']} epochs"] if name != "epochs" else []
    if pd.notna(row["train_images"]) and name != "train_limit":
        setting.append(f"{row['train_images']:,} images")
    each = f"means over {len(seeds)} seeds" if len(seeds) > 1 else "one run of each"
    listed = Markup(", ").join(
        Markup("{} {}").format(_named(value, chosen[value], link), percent(means[value]))
        for value in ranked
    )
    words = Markup("{} alone was worth {:.1f} points of validation accuracy ({}; {}): {}.").format(
        name.replace("_", " ").capitalize(), 100 * worth, ", ".join(setting), each, listed
    )
    if len(seeds) == 1:
        last = chosen[ranked[-1]][0][1]
        words += f" On test images it is {percent(row['top1'])} against {percent(last['top1'])}"
        if pd.notna(row["top1_low"]) and pd.notna(last["top1_low"]):
            overlap = row["top1_low"] <= last["top1_high"] and last["top1_low"] <= row["top1_high"]
            words += ", and the intervals " + ("overlap" if overlap else "are apart")
        words += "; another seed would move either."
    return worth, f"{name}: {setting}", words


def _named(value: str, pairs: list[tuple], link: Link) -> Markup:
    """A value, linked to its run where there is one only."""
    shown = Markup("<code>{}</code>").format(value)
    return shown if len(pairs) > 1 else Markup("{} ({})").format(shown, link(pairs[0][0]))


def _seeds(scored: list[tuple[FoundRun, dict]], link: Link) -> list[Markup]:
    """A sentence for each set of runs that are equal but for the seed."""
    alike: dict[str, list[tuple]] = defaultdict(list)
    for run, row in scored:
        if run.record.parameters.get("seed") is not None:
            alike[_key(run, "seed")].append((run, row))
    sentences = []
    for pairs in alike.values():
        shares = {run.record.parameters["seed"]: row["top1"] for run, row in pairs}
        if len(shares) > 1:
            run, row = pairs[0]
            sentences.append(
                Markup(
                    "{} seeds of {} on {} (the best: {}) give {} on average, with a standard "
                    "deviation of {:.2f} points, from {}."
                ).format(
                    len(shares),
                    row["architecture"],
                    row["dataset"],
                    link(run),
                    percent(mean(shares.values()), 2),
                    100 * stdev(shares.values()),
                    interval((min(shares.values()), max(shares.values()))),
                )
            )
    return sentences


def _same(one: FoundRun, other: FoundRun) -> bool:
    return _key(one, "seed") == _key(other, "seed")


def _key(run: FoundRun, but: str) -> str:
    """The notebook and all parameters, but for one, the seed and where the run went."""
    same = {k: v for k, v in run.record.parameters.items() if k not in {but, "seed", "output"}}
    return json.dumps([run.record.notebook, same], sort_keys=True)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _validation(run: FoundRun) -> float | None:
    """The validation accuracy by which the run's epoch was chosen."""
    epochs = {row.get("epoch"): row.get("val_accuracy") for row in run.record.history}
    return epochs.get(run.record.best_epoch)
