"""The tables of RESULTS.md and README, written from the records of the published runs.

``python -m cifar_utils.reporting.results`` writes both. No figure in them is written by hand.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import norm, t

from cifar_utils.errors import InputError
from cifar_utils.evaluation import wilson_interval
from cifar_utils.files import write_atomically
from cifar_utils.reporting.runs import project_folder, read_cells
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.leaderboard import (
    Configuration,
    configurations,
    read_notes,
    settings,
    trained_by,
)
from cifar_utils.runs.record import UNKNOWN, RunRecord
from cifar_utils.text import duration, interval, percent

MARKS = "<!-- results -->", "<!-- /results -->"  # what stands between them in README is written
WORTH = 0.002  # the difference in accuracy of which a comparison says how many seeds could tell it
INTRODUCTION = """\
# Results

`make publish` writes this page from the `record.json` of each published run. The weights of a run
were chosen by its validation images, or are those of its last epoch where it held none out; test
images choose nothing within a run.

- **top-1, top-5**: accuracy on the test images. Runs that differ in nothing but the seed share a
  row: mean ± standard deviation between seeds, in points, and their number n.
- **95% interval**: of one run, Wilson's, over its test images; it does not hold what another seed
  would change. Of several seeds, Student's, of their mean.
- **reported**: the top-1 that others report of the same network and dataset, whatever its settings.
- **commit, processor**: of training. Where a record can't tell them they are unknown.
"""
COMPARISONS = """\
## Comparisons

Each table holds one notebook's runs on the same images for the same number of epochs. They are
compared by top-1 on validation images, held out of training, after the epoch that was kept: one
run's with Wilson's 95% interval, or mean ± standard deviation of n runs, which may be of several
commits. A difference is taken between runs of the same seed and commit alone.
"""
TRIALS = """\
## Trials within a run

Networks that one run trained and compared on the same validation images, one seed each. Intervals
are Wilson's, over the validation images; they do not hold what another seed would change. Trials
whose intervals overlap are ties: one seed can't tell them apart.
"""


def render_results(folder: Path, root: Path) -> str:
    """RESULTS.md: every figure of the runs in a folder, then what was compared by validation.

    Parameters
    ----------
    folder
        The runs' folders lie in it; ``notes.yaml`` there holds a sentence for runs that need one,
        by pattern of their names.
    root
        Where RESULTS.md stands: links start there.

    """
    runs = _finished(folder)
    groups = configurations(runs)
    parts = [INTRODUCTION]
    for dataset in dict.fromkeys(group.board["dataset"][0] for group in groups):
        here = [group for group in groups if group.board["dataset"][0] == dataset]
        parts.append(f"## {dataset}\n")
        parts.append(_table(_figures(group, root) for group in here))
        notes = read_notes(folder, [run for group in here for run in group.runs])
        parts += [f"`{pattern}`: {note}\n" for pattern, note in notes.items()]
    sets = _comparable(runs)
    parts += [COMPARISONS, *(_comparison(ways, root) for ways in sets)] if sets else []
    several = [run for run in runs if run.record.trials]
    parts += [TRIALS, *(_trials(run, root) for run in several)] if several else []
    return "\n".join(parts)


def render_table(folder: Path, root: Path) -> str:
    """README's table: a row for each notebook with its question and what its runs came to.

    Of each network on each dataset the longest training is shown; notes on these runs follow.
    """
    runs = _finished(folder)
    groups, rows, shown = configurations(runs), [], []
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        own = _longest(group for group in groups if group.runs[0].record.notebook == notebook.stem)
        shown += [run for group in own for run in group.runs]
        rows.append(
            {
                "notebook": f"[{notebook.stem}]({_link(notebook, root)})",
                "question": _question(notebook),
                "answer": _answer(own, root) or "no published run yet",
            }
        )
    notes = "".join(f"- `{key}`: {note}\n" for key, note in read_notes(folder, shown).items())
    return _table(rows) + (notes and f"\n{notes}")


def write_results(root: Path) -> list[Path]:
    """Write RESULTS.md and README's table in a project's folder; return their paths.

    Raises
    ------
    InputError
        Where README has no place for the table.

    """
    folder, readme, results = root / "reports/published", root / "README.md", root / "RESULTS.md"
    text = with_table(readme.read_text("utf-8"), render_table(folder, root))
    write_atomically(results, render_results(folder, root))
    write_atomically(readme, text)
    return [results, readme]


def with_table(text: str, table: str) -> str:
    """A text with a table in place of what stands between the two marks.

    Raises
    ------
    InputError
        Where the marks are not there, once each and in order.

    """
    before, first, rest = text.partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not first or not second:
        raise InputError(f"README.md has no {MARKS[0]} … {MARKS[1]}; put both where the table goes")
    return f"{before}{MARKS[0]}\n{table}{MARKS[1]}{after}"


def _finished(folder: Path) -> list[Run]:
    return [run for run in find_runs(folder) if run.record]


# The tables of figures.


def _figures(group: Configuration, root: Path) -> dict[str, str]:
    first, board, n = group.runs[0].record, group.board, len(group.runs)
    epochs = "{:.0f}".format(board["epochs"].mean())
    if n > 1:
        seeds = ", ".join(
            f"[{run.record.parameters.get('seed')}]({_page(run, root)})" for run in group.runs
        )
        name = f"{group.name}, seeds {seeds}"
    else:
        name = f"[{group.name}]({_page(group.runs[0], root)})"
    return {
        "run": name,
        "network": f"`{group.network}`",
        "top-1": _mean(group, "top1"),
        "95% interval": interval(group.interval) if group.interval else "–",
        "top-5": _mean(group, "top5"),
        "reported": _reported(group),
        "epochs": f"{epochs} of {first.dataset.get('train', 0):,} images",
        "training": _training(group) or "–",
        "processor": _each(board["processor"]),
        "commit": _each(board["commit"].map(_short)),
    }


def _training(group: Configuration) -> str:
    """The time that training took, from the quickest seed to the slowest."""
    times = group.board["train_seconds"].dropna()
    return " to ".join(
        dict.fromkeys(map(duration, (times.min(), times.max()) if len(times) else ()))
    )


def _reported(group: Configuration) -> str:
    reported = group.mean("reported")
    return "–" if reported is None else f"{percent(reported, 2)} ({group.board['reported_by'][0]})"


def _mean(group: Configuration, column: str) -> str:
    value, deviation = group.mean(column), group.deviation(column)
    if value is None:
        return "–"
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}, n = {len(group.runs)}"
    return percent(value, 2) + spread


# Comparisons by validation images.


def _validation(run: Run) -> float | None:
    """The validation accuracy after the epoch that was kept."""
    epochs = {row.get("epoch"): row.get("val_accuracy") for row in run.record.history}
    return epochs.get(run.record.best_epoch)


def _comparable(runs: Sequence[Run]) -> list[list[list[Run]]]:
    """Runs of a notebook on the same images for as many epochs: sets of ways, each of its seeds."""
    found: dict[tuple, dict[str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: run.name):
        record = run.record
        if _validation(run) is None or record.trials:
            continue
        data = [record.dataset.get(key) for key in ("name", "train", "validation")]
        budget = record.notebook, *data, record.parameters.get("epochs")
        found.setdefault(budget, {}).setdefault(str(settings(record)), []).append(run)
    return [[*ways.values()] for ways in found.values() if len(ways) > 1]


def _differing(way: list[Run], reference: list[Run]) -> dict[str, Any]:
    one, other = settings(way[0].record), settings(reference[0].record)
    return {name: one.get(name) for name in one | other if one.get(name) != other.get(name)}


def _pairs(way: list[Run], reference: list[Run]) -> list[float]:
    """Differences in validation accuracy between runs of one seed that the same thing trained."""
    others = {_circumstances(run): run for run in reference}
    pairs = [(run, others.get(_circumstances(run))) for run in way if _circumstances(run)]
    return [_validation(run) - _validation(other) for run, other in pairs if other]


def _circumstances(run: Run) -> str | None:
    """The seed and what computed the training; None where the code is not known for certain."""
    stretches = trained_by(run.record)
    commits = [stretch.get("git") or UNKNOWN for stretch in stretches]
    certain = stretches and not any(git == UNKNOWN or git.endswith("+changes") for git in commits)
    return f"{run.record.parameters.get('seed')} {stretches}" if certain else None


def _comparison(ways: list[list[Run]], root: Path) -> str:
    """A set of ways against the one that differs least from the others."""
    reference = min(ways, key=lambda way: sum(len(_differing(way, other)) for other in ways))
    record = reference[0].record
    images = record.dataset["validation"]
    others = [way for way in ways if way is not reference]
    pairs = {id(way): _pairs(way, reference) for way in others}
    repeated = [values for values in pairs.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    deviation = 0.0
    if freedom:
        squares = sum((len(values) - 1) * stdev(values) ** 2 for values in repeated)
        deviation = math.sqrt(squares / freedom)
    rows = []
    for way in [reference, *sorted(others, key=lambda way: -mean(map(_validation, way)))]:
        shares = [_validation(run) for run in way]
        bounds = interval(wilson_interval(round(shares[0] * images), images))
        value = percent(mean(shares), 2)
        value += f" ± {100 * stdev(shares):.2f}" if len(shares) > 1 else f" ({bounds})"
        differing = _differing(way, reference)
        row = {
            "differs in": ", ".join(f"{name} `{value}`" for name, value in differing.items())
            or "– (the reference)",
            "validation top-1": value,
            "n": f"{len(way)}",
            "runs": ", ".join(f"[{run.name}]({_page(run, root)})" for run in way),
        }
        if freedom:
            row |= _difference(pairs.get(id(way), []), deviation, freedom)
        rows.append(row)
    dataset = f"{record.dataset['name']}, {record.dataset['train']:,} training images"
    varying = {
        name: settings(record)[name]
        for way in others
        for name in _differing(way, reference)
        if name in settings(record)
    }
    told = "; ".join(f"{name} `{value}`" for name, value in varying.items())
    text = f"### {record.notebook}: {dataset}, {record.parameters.get('epochs')} epochs\n\n"
    text += f"By {images:,} validation images. The reference: {told}.\n\n{_table(rows)}"
    if not freedom:
        return text + (
            "\nNo differences are given: that takes two seeds or more of both ways, trained by the "
            "same commit on the same kind of machine.\n"
        )
    quantiles = norm.ppf([0.975, 0.8])
    needed = math.ceil((quantiles.sum() * deviation / WORTH) ** 2)
    return text + (
        f"\nA difference is the mean over pairs of runs with the same seed, commit and machine, "
        f"with its 95% interval (Student's, of the standard deviation pooled over all rows: "
        f"{100 * deviation:.2f} points, {freedom} degrees of freedom; not corrected for the number "
        f"of rows). To tell {100 * WORTH:.1f} points with 80% power takes "
        f"(({quantiles[0]:.2f} + {quantiles[1]:.2f}) · {100 * deviation:.2f} / {100 * WORTH:.1f})² "
        f"= {needed} pairs of each. A dash: no run of the same commit to pair with.\n"
    )


def _difference(pairs: list[float], deviation: float, freedom: int) -> dict[str, str]:
    if not pairs:
        return {"difference (points)": "–", "pairs": "–", "told from none": "–"}
    half = t.ppf(0.975, freedom) * deviation / math.sqrt(len(pairs))
    low, high = mean(pairs) - half, mean(pairs) + half
    return {
        "difference (points)": f"{100 * mean(pairs):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        "pairs": f"{len(pairs)}",
        "told from none": "no" if low <= 0 <= high else "yes",
    }


def _trials(run: Run, root: Path) -> str:
    record = run.record
    images, target = record.dataset["validation"], record.parameters.get("target_accuracy")
    rows = []
    for trial in record.trials:
        share = trial["val_accuracy"]
        bounds = None if share is None else wilson_interval(round(share * images), images)
        row = {
            "trial": f"`{trial['name']}`",
            "epochs": str(trial["epochs"]),
            "validation top-1": "diverged" if share is None else percent(share, 2),
            "95% interval": "–" if bounds is None else interval(bounds),
        }
        if target:
            row[f"steps to {percent(target, 0)}"] = _steps(trial, record, target)
        rows.append(row)
    return (
        f"### [{run.name}]({_page(run, root)}): {record.notebook}, {record.dataset['name']}\n\n"
        f"Seed {record.parameters.get('seed')}, {images:,} validation images.\n\n{_table(rows)}"
    )


def _steps(trial: dict[str, Any], record: RunRecord, target: float) -> str:
    """Steps to the end of the epoch that reached the target, as notebook 04 counts them."""
    reached = [row["epoch"] for row in trial["history"] if row["val_accuracy"] >= target]
    steps = math.ceil(record.dataset["train"] / record.parameters["batch_size"])
    return f"{reached[0] * steps:,}" if reached else "–"


# README's table.


def _question(notebook: Path) -> str:
    """The first question of a notebook's prose."""
    prose = " ".join(source for kind, source in read_cells(notebook) if kind == "markdown")
    lines = [line for line in prose.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0].replace("*", "").partition("?")[0] + "?"


def _longest(groups: Iterable[Configuration]) -> list[Configuration]:
    """Of each network on each dataset those that saw the most images in training."""
    found: dict[tuple[str, str], list[Configuration]] = {}
    for group in groups:
        key = group.board["dataset"][0], group.network.partition("(")[0]
        found.setdefault(key, []).append(group)
    most = {key: max(map(_budget, same)) for key, same in found.items()}
    return [group for key, same in found.items() for group in same if _budget(group) == most[key]]


def _answer(groups: Sequence[Configuration], root: Path) -> str:
    parts = []
    for group in groups:
        first = group.runs[0]
        seeds = f"n = {len(group.runs)}" if len(group.runs) > 1 else "one seed"
        deviation = group.deviation("top1")
        figure = percent(group.mean("top1"), 2)
        figure += "" if deviation is None else f" ± {100 * deviation:.2f}"
        about = f"{seeds}, {group.board['epochs'][0]} epochs in {_training(group)}"
        if group.mean("reported") is not None:
            about += f"; reported {_reported(group)}"
        dataset = group.board["dataset"][0]
        parts.append(f"{dataset}, `{group.network}`: [{figure}]({_page(first, root)}), {about}")
        if first.record.trials:
            parts.append(_trial_words(first))
    return "<br>".join(parts)


def _budget(group: Configuration) -> float:
    return float((group.board["epochs"] * group.board["train_images"]).mean())


def _trial_words(run: Run) -> str:
    """The trials of the commonest number of epochs, in words."""
    trials = run.record.trials
    ((epochs, _),) = Counter(trial["epochs"] for trial in trials).most_common(1)
    alike = [trial for trial in trials if trial["epochs"] == epochs and trial["val_accuracy"]]
    alike.sort(key=lambda trial: -trial["val_accuracy"])
    listed = ", ".join(f"`{trial['name']}` {percent(trial['val_accuracy'])}" for trial in alike)
    return (
        f"Trials of {epochs} epochs, one seed each, by {run.record.dataset['validation']:,} "
        f"validation images: {listed}"
    )


# Markdown.


def _table(rows: Any) -> str:
    rows = list(rows)
    if not rows:
        return ""
    lines = [[*rows[0]], ["---"] * len(rows[0]), *([*row.values()] for row in rows)]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _page(run: Run, root: Path) -> str:
    return _link(run.page if run.page.exists() else run.folder / "record.json", root)


def _link(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _each(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys("; ".join(values).split("; ")))


def _short(commits: str) -> str:
    """Commits, of which "; " parts several, by their first eight digits."""
    parts = (commit.partition("+") for commit in commits.split("; "))
    return "; ".join(f"{sha[:8]}{plus and ' + changes'}" for sha, plus, _ in parts)


if __name__ == "__main__":
    for written in write_results(project_folder()):
        print(f"results: {written.name}")
