"""Write RESULTS.md and README's table from the records of the published runs.

``python -m cifar_utils.reporting.results`` writes both.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev, variance
from typing import Any

from scipy.stats import norm, t

from cifar_utils.errors import InputError
from cifar_utils.evaluation import wilson_interval
from cifar_utils.files import write_atomically
from cifar_utils.reporting.runs import project_folder
from cifar_utils.runs.answer import TARGET
from cifar_utils.runs.folder import Run, find_runs, read_cells
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
TOP_K = """\
## Top-k by k

The share of test images whose class is among the k most probable ones, of runs that kept it; of
several seeds, the first. Report A trains to 94% by a top-k of which it does not give k.
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
        Holds the runs' folders and ``notes.yaml``, a sentence for runs that need one.
    root
        Where RESULTS.md stands. Links start there.

    """
    groups = _finished(folder)
    parts = [INTRODUCTION]
    for dataset in dict.fromkeys(group.board["dataset"][0] for group in groups):
        here = [group for group in groups if group.board["dataset"][0] == dataset]
        parts += [f"## {dataset}\n", _table(_figures(group, root) for group in here)]
        notes = read_notes(folder, [run for group in here for run in group.runs])
        parts += [f"`{pattern}`: {note}\n" for pattern, note in notes.items()]
    kept = [run for group in groups if (run := group.runs[0]).record.scores["test"].get("top_k")]
    parts += [TOP_K, _table(_by_k(run, root) for run in kept)] if kept else []
    compared = [_comparison(ways, root) for ways in _comparable(groups)]
    parts += [COMPARISONS, *compared] if compared else []
    several = [run for run in find_runs(folder) if run.record and run.record.trials]
    parts += [TRIALS, *(_trials(run, root) for run in several)] if several else []
    return "\n".join(parts)


def render_table(folder: Path, root: Path) -> str:
    """README's table: a row for each notebook with its question and what its runs came to.

    Of each network on each dataset the longest training is shown; notes on these runs follow.
    """
    groups, rows, shown = _finished(folder), [], []
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        own = _longest(group for group in groups if group.runs[0].record.notebook == notebook.stem)
        shown += [run for group in own for run in group.runs]
        rows.append(
            {
                "notebook": f"[{notebook.stem}]({_link(notebook, root)})",
                "question": _question(notebook),
                "answer": "<br>".join(_answer(group, root) for group in own)
                or "no published run yet",
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


def _finished(folder: Path) -> list[Configuration]:
    return configurations([run for run in find_runs(folder) if run.record])


# The tables of figures.


def _figures(group: Configuration, root: Path) -> dict[str, str]:
    board, first = group.board, group.runs[0]
    name = f"[{group.name}]({_page(first, root)})"
    if len(group.runs) > 1:
        seeds = (f"[{run.record.parameters.get('seed')}]({_page(run, root)})" for run in group.runs)
        name = f"{group.name}, seeds {', '.join(seeds)}"
    images = f"{board['epochs'].mean():.0f} of {first.record.dataset.get('train', 0):,} images"
    return {
        "run": name,
        "network": f"`{group.network}`",
        "top-1": _mean_of(group, "top1"),
        "95% interval": interval(group.interval) if group.interval else "–",
        "top-5": _mean_of(group, "top5"),
        "reported": _reported(group) or "–",
        "epochs": images,
        "training": _training(group) or "–",
        "processor": _each(board["processor"]),
        "commit": _each(board["commit"], _short),
    }


def _training(group: Configuration) -> str:
    """The time that training took, from the quickest seed to the slowest."""
    times = sorted(group.board["train_seconds"].dropna())
    return " to ".join(dict.fromkeys(map(duration, times[:1] + times[-1:])))


def _reported(group: Configuration) -> str:
    reported = group.mean("reported")
    by = group.board["reported_by"][0]
    return "" if reported is None else f"{percent(reported, 2)} ({by})"


def _mean(values: Sequence[float]) -> str:
    """The mean of fractions; of several with their standard deviation in points."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return percent(mean(values), 2) + spread


def _mean_of(group: Configuration, column: str) -> str:
    values = group.board[column].dropna()
    if values.empty:
        return "–"
    return _mean(values) + (f", n = {len(group.runs)}" if len(values) > 1 else "")


def _by_k(run: Run, root: Path) -> dict[str, str]:
    shares = run.record.scores["test"]["top_k"]
    reached = next((f"top-{k}" for k, share in enumerate(shares, 1) if share >= TARGET), "–")
    return {
        "run": f"[{run.name}]({_page(run, root)})",
        **{f"top-{k}": percent(share) for k, share in enumerate(shares[:9], 1)},
        f"{percent(TARGET, 0)} reached by": reached,
    }


# Comparisons by validation images.


def _validation(run: Run) -> float | None:
    """The validation accuracy after the epoch that was kept."""
    epochs = {row.get("epoch"): row.get("val_accuracy") for row in run.record.history}
    return epochs.get(run.record.best_epoch)


def _comparable(groups: Iterable[Configuration]) -> list[list[Configuration]]:
    """Sets of configurations of one notebook, on the same images, for as many epochs."""
    found = defaultdict(list)
    for group in sorted(groups, key=lambda group: group.runs[0].name):
        record = group.runs[0].record
        if not record.trials and None not in map(_validation, group.runs):
            data = [record.dataset.get(key) for key in ("name", "train", "validation")]
            found[record.notebook, *data, record.parameters.get("epochs")].append(group)
    return [ways for ways in found.values() if len(ways) > 1]


def _differing(way: Configuration, reference: Configuration) -> dict[str, Any]:
    one, other = (settings(group.runs[0].record) for group in (way, reference))
    return {name: one.get(name) for name in one | other if one.get(name) != other.get(name)}


def _pairs(way: Configuration, reference: Configuration) -> list[float]:
    """Differences in validation accuracy between runs of one seed that the same thing trained."""
    others = {_circumstances(run): _validation(run) for run in reference.runs}
    pairs = ((_validation(run), others.get(_circumstances(run))) for run in way.runs)
    return [ours - theirs for ours, theirs in pairs if theirs is not None]


def _circumstances(run: Run) -> str:
    """The seed and what computed the training; no other run's where the code is not certain."""
    stretches = trained_by(run.record)
    commits = [stretch.get("git") or UNKNOWN for stretch in stretches]
    certain = stretches and not any(git == UNKNOWN or git.endswith("+changes") for git in commits)
    return f"{run.record.parameters.get('seed')} {stretches if certain else run.folder}"


def _comparison(ways: list[Configuration], root: Path) -> str:
    """A table of configurations against the one that differs least from the others."""
    reference = min(ways, key=lambda way: sum(len(_differing(way, other)) for other in ways))
    record = reference.runs[0].record
    others = [way for way in ways if way is not reference]
    others.sort(key=lambda way: -mean(map(_validation, way.runs)))
    pairs = [_pairs(way, reference) for way in others]
    freedom = sum(max(len(values) - 1, 0) for values in pairs)
    squares = sum((len(values) - 1) * variance(values) for values in pairs if len(values) > 1)
    deviation = math.sqrt(squares / freedom) if freedom else 0.0
    rows = []
    for way, differences in zip([reference, *others], [[], *pairs], strict=True):
        differing = _told(_differing(way, reference), ", ")
        share, *more = map(_validation, way.runs)
        row = {
            "differs in": differing or "– (the reference)",
            "validation top-1": _mean([share, *more])
            + ("" if more else f" ({_wilson(share, record)})"),
            "n": f"{len(way.runs)}",
            "runs": ", ".join(f"[{run.name}]({_page(run, root)})" for run in way.runs),
        }
        rows.append(row | (_difference(differences, deviation, freedom) if freedom else {}))
    given = settings(record)
    varying = dict.fromkeys(name for way in ways for name in _differing(way, reference))
    text = (
        f"### {record.notebook}: {record.dataset['name']}, {record.dataset['train']:,} training "
        f"images, {record.parameters.get('epochs')} epochs\n\n"
        f"By {record.dataset['validation']:,} validation images. The reference: "
        f"{_told({name: given[name] for name in varying if name in given}, '; ')}.\n\n"
        f"{_table(rows)}"
    )
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


def _told(values: dict[str, Any], between: str) -> str:
    return between.join(f"{name} `{value}`" for name, value in values.items())


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


def _wilson(share: float, record: RunRecord) -> str:
    images = record.dataset["validation"]
    return interval(wilson_interval(round(share * images), images))


# Trials.


def _trials(run: Run, root: Path) -> str:
    record, rows = run.record, []
    for trial in record.trials:
        share, target = trial["val_accuracy"], record.parameters.get("target_accuracy")
        row = {
            "trial": f"`{trial['name']}`",
            "epochs": str(trial["epochs"]),
            "validation top-1": "diverged" if share is None else percent(share, 2),
            "95% interval": "–" if share is None else _wilson(share, record),
        }
        if target:  # reached at the end of an epoch, as notebook 04 counts
            reached = [row["epoch"] for row in trial["history"] if row["val_accuracy"] >= target]
            steps = math.ceil(record.dataset["train"] / record.parameters["batch_size"])
            row[f"steps to {percent(target, 0)}"] = f"{reached[0] * steps:,}" if reached else "–"
        rows.append(row)
    return (
        f"### [{run.name}]({_page(run, root)}): {record.notebook}, {record.dataset['name']}\n\n"
        f"Seed {record.parameters.get('seed')}, {record.dataset['validation']:,} validation "
        f"images.\n\n{_table(rows)}"
    )


# README's table.


def _question(notebook: Path) -> str:
    """The first question of a notebook's prose."""
    prose = " ".join(source for kind, source in read_cells(notebook) if kind == "markdown")
    lines = [line for line in prose.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0].replace("*", "").partition("?")[0] + "?"


def _longest(groups: Iterable[Configuration]) -> list[Configuration]:
    """Of each network on each dataset those that saw the most images in training."""
    found = defaultdict(lambda: defaultdict(list))
    for group in groups:
        key = group.board["dataset"][0], group.network.partition("(")[0]
        seen = (group.board["epochs"] * group.board["train_images"]).mean()
        found[key][seen].append(group)
    return [group for by_images in found.values() for group in by_images[max(by_images)]]


def _answer(group: Configuration, root: Path) -> str:
    run, board, n = group.runs[0], group.board, len(group.runs)
    text = (
        f"{board['dataset'][0]}, `{group.network}`: [{_mean(board['top1'])}]({_page(run, root)}), "
        f"{f'n = {n}' if n > 1 else 'one seed'}, {board['epochs'][0]} epochs in {_training(group)}"
    )
    if reported := _reported(group):
        text += f"; reported {reported}"
    if trials := run.record.trials:  # those of the commonest number of epochs
        ((epochs, _),) = Counter(trial["epochs"] for trial in trials).most_common(1)
        alike = [trial for trial in trials if trial["epochs"] == epochs and trial["val_accuracy"]]
        alike.sort(key=lambda trial: -trial["val_accuracy"])
        listed = (f"`{trial['name']}` {percent(trial['val_accuracy'])}" for trial in alike)
        text += f"<br>Trials of {epochs} epochs, one seed each, by "
        text += f"{run.record.dataset['validation']:,} validation images: {', '.join(listed)}"
    return text


# Markdown.


def _table(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    lines = [[*rows[0]], ["---"] * len(rows[0]), *map(dict.values, rows)] if rows else []
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _page(run: Run, root: Path) -> str:
    return _link(run.page if run.page.exists() else run.folder / "record.json", root)


def _link(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _each(values: Iterable[str], form: Callable[[str], str] = str) -> str:
    """Values, of which "; " parts several in one, each once."""
    return "; ".join(dict.fromkeys(map(form, "; ".join(values).split("; "))))


def _short(commit: str) -> str:
    sha, plus, _ = commit.partition("+")
    return f"{sha[:8]}{plus and ' + changes'}"


if __name__ == "__main__":
    for written in write_results(project_folder()):
        print(f"results: {written.name}")
