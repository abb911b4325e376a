"""Write RESULTS.md and README's table from the records of the published runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from cifar_utils.errors import InputError
from cifar_utils.files import RECORD, write_atomically
from cifar_utils.intervals import paired_intervals, wilson_interval
from cifar_utils.reporting.notebooks import list_notebooks, read_question, relative_link
from cifar_utils.runs.answer import by_name, called, diverged, near_chance, seed_of, steps_to_target
from cifar_utils.runs.compare import OF_SEEDS, OF_TESTS, points
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.leaderboard import (
    Configuration,
    configurations,
    families,
    leading_notes,
    read_notes,
    short_commits,
    trained_by,
)
from cifar_utils.runs.record import UNKNOWN, RunRecord
from cifar_utils.text import ABSENT, as_given, compact, interval, listed, percent, spread

MARKS = "<!-- results -->", "<!-- /results -->"  # README's text between them is generated
INTRODUCTION = f"""\
# Results

`make publish` writes this page from the `record.json` of each published run. A run's weights were
chosen by its validation images, or are those of its last epoch. Test images choose nothing,
unless a note says so.

- **top-1, top-5**: accuracy on the test images. Runs that differ in no parameter but the seed
  share a row: mean ± standard deviation in points, and their number n.
- **95% interval**: of one run Wilson's, over its test images: another seed may fall outside of it.
  Of several seeds Student's, of their mean; Wilson's if all are equal.
- **differences**, in notes: of runs on the same test images. {OF_SEEDS}
  {OF_TESTS}
- **views**: “6 views of 25%” means that the least certain quarter of the test images was seen six
  times, shifted and mirrored. Compare accuracies of equal views.
- **reported**: the best accuracy that others report on these images for a network of this name. If
  they give its size, it is about the same. Options and settings may differ.
- **training**: the time of the tested network's epochs alone, without a run's other trainings, and
  without the features that a frozen base computes before (`features` in the record's `seconds`).
- **processor, precision, commit**: of training. Processors of one name may differ in speed.
"""
COMPARISONS = """\
## Comparisons

Each table has runs of one notebook, with networks of one name, on as many images and for as many
epochs. Accuracy is top-1 on their validation images after the epoch that was kept. A difference is
the mean over pairs of runs with the same seed, and so with the same images. Commit, precision and
the name of the processor are equal, too. Its 95% interval is Student's, from the residuals of the
whole table: what the effects of rows and of seeds leave unexplained. It is not corrected for the
number of rows. All rows share the runs of the reference, so an error in it moves all differences
alike. A row with fewer than two pairs has no difference.
"""
TRIALS = """\
## Trials within a run

Networks that one run trained and compared on the same validation images, after the best of their
epochs. With one seed each, they have Wilson's 95% intervals, which do not cover the difference
between seeds. With several, mean ± standard deviation. Steps to a target are their mean then, or –
if one of them did not reach it. The page compares the best with the others.
"""


def render_results(folder: Path, root: Path) -> str:
    """RESULTS.md: every figure of the runs in a folder, then comparisons by validation.

    Parameters
    ----------
    folder
        Holds the runs' folders and ``notes.yaml``, with notes on some runs.
    root
        The folder of RESULTS.md. Links start there.

    """
    groups, parts = _finished(folder), [INTRODUCTION]
    for dataset in dict.fromkeys(group.board["dataset"][0] for group in groups):
        here = [group for group in groups if group.board["dataset"][0] == dataset]
        parts += [f"## {dataset}\n", _table(_figures(group, root) for group in here)]
        runs = [run for group in here for run in group.runs]
        copies = Counter(run.record.dataset.get("note") for run in runs)
        parts += [
            f"Images of {count} of {len(runs)} runs: {note}\n"
            for note, count in copies.items()
            if note
        ]
        notes = read_notes(folder, runs)
        parts += [f"`{pattern}`: {note}\n" for pattern, note in notes.items()]
    compared = [_comparison(family, root) for family in families(groups) if _comparable(family)]
    parts += [COMPARISONS, *compared] if compared else []
    several = [run for group in groups for run in group.runs if run.record.trials]
    parts += [TRIALS, *(_trials(run, root) for run in several)] if several else []
    return "\n".join(parts)


def render_table(folder: Path, root: Path) -> str:
    """README's table: a row for each notebook, with its question and its answer.

    Where runs on several datasets answer it, the first dataset by name counts: cifar10 comes before
    cifar100 and tiny_imagenet.
    """
    groups, rows = _finished(folder), []
    found = answers(groups)
    notes = read_notes(folder, [run for group in groups for run in group.runs])
    for name, notebook in list_notebooks().items():
        first, told = found.get(name, [None])[0], "no published run yet"
        if first:
            link = f"[{first.name}]({_page(first.runs[0], root)})"
            told = f"{link}: {first.lead} {leading_notes(notes, first)}".strip()
        rows.append(
            {
                "notebook": f"[{name}]({relative_link(notebook, root)})",
                "question": read_question(notebook),
                "answer": told,
            }
        )
    return _table(rows)


def answers(groups: Iterable[Configuration]) -> dict[str, list[Configuration]]:
    """The configurations that answer each notebook's question, by its name: one for each dataset.

    It is one that is not near chance, and a comparison of several trainings, if there is any. Among
    several, it is the one of the most seeds, then of the most training images, then of the best
    validation accuracy, then the first by name. Test images choose nothing.
    """
    alike: dict[tuple[str, str], list[Configuration]] = {}
    for group in groups:
        alike.setdefault((group.record.notebook, group.board["dataset"][0]), []).append(group)
    found: dict[str, list[Configuration]] = {}
    for notebook, dataset in sorted(alike):
        here = sorted(alike[notebook, dataset], key=lambda group: group.name)
        found.setdefault(notebook, []).append(max(here, key=_rank))
    return found


def _rank(group: Configuration) -> tuple[bool, bool, int, int, float]:
    record = group.record
    seeds = max([len(group.runs), *map(len, by_name(record.trials))])
    validation = mean(_validation(run) or 0.0 for run in group.runs)
    several = len(record.trials) > 1
    return not near_chance(record), several, seeds, record.dataset["train"], validation


def write_results(root: Path) -> list[Path]:
    """Write RESULTS.md and README's table in a project's folder; return their paths.

    Raises
    ------
    InputError
        Where README has no marks for the table.

    """
    folder, readme, results = root / "reports/published", root / "README.md", root / "RESULTS.md"
    before, first, rest = readme.read_text("utf-8").partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not second:
        raise InputError(f"{readme} has no {' … '.join(MARKS)}; put both where the table goes")
    write_atomically(results, render_results(folder, root))
    write_atomically(readme, f"{before}{first}\n{render_table(folder, root)}{second}{after}")
    return [results, readme]


def _finished(folder: Path) -> list[Configuration]:
    return configurations([run for run in find_runs(folder) if run.record])


def _figures(group: Configuration, root: Path) -> dict[str, str]:
    board, images = group.board, group.record.dataset["train"]
    return {
        "run": _links(group, root),
        "network": f"`{group.network}`",
        "parameters": compact(group.record.model["parameters"]),
        "top-1": spread(board["top1"].tolist()),
        "95% interval": interval(group.interval),
        "views": group.record.views_in_words or "1 view",
        "top-5": spread(board["top5"].dropna().tolist()),
        "reported": group.reported or ABSENT,
        "epochs": f"{board['epochs'].mean():.0f} of {images:,} images",
        "training": group.training,
        "processor": group.each("processor"),
        "precision": group.each("precision"),
        "commit": short_commits(group.each("commit")),
    }


# Comparisons by validation images.


def _validation(run: Run) -> float | None:
    """The validation accuracy after the kept epoch."""
    epochs = {row.get("epoch"): row.get("val_accuracy") for row in run.record.history}
    return epochs.get(run.record.best_epoch)


def _comparable(family: Sequence[Configuration]) -> bool:
    runs = [run for group in family for run in group.runs]
    whole = not any(run.record.trials or _validation(run) is None for run in runs)
    return whole and any(group.differing(family[0]) for group in family)


def _circumstances(run: Run) -> str:
    """The seed and what computed the training; different for each run if the code is unknown."""
    stretches = trained_by(run.record)
    commits = [stretch.get("git") or UNKNOWN for stretch in stretches]
    certain = stretches and not any(git == UNKNOWN or git.endswith("+changes") for git in commits)
    return f"{run.record.seed} {stretches if certain else run.folder}"


def _comparison(family: Sequence[Configuration], root: Path) -> str:
    reference, *others = family
    others.sort(key=lambda group: -mean(map(_validation, group.runs)))
    record, rows = reference.record, []
    shares = [
        {_circumstances(run): _validation(run) for run in group.runs}
        for group in (reference, *others)
    ]
    gains = [None, *paired_intervals(shares)]
    for group, gain, ours in zip([reference, *others], gains, shares, strict=True):
        differing = "– (the reference)" if group is reference else _told(group.differing(reference))
        difference = ABSENT
        if gain:
            middle, low, high = map(points, gain)
            difference = f"{middle} ({low} to {high}), n = {len(ours.keys() & shares[0])}"
        rows.append(
            {
                "differs in": differing or "nothing: it repeats the reference",
                "validation top-1": _measured([_validation(run) for run in group.runs], record),
                "difference (points)": difference,
                "runs": _links(group, root),
            }
        )
    varying = {name for group in others for name in group.differing(reference)}
    shown = {name: value for name, value in reference.settings.items() if name in varying}
    data = record.dataset
    return (
        f"### {record.notebook}: {data['name']}, {data['train']:,} training images, "
        f"{reference.epochs} epochs\n\n"
        f"By {data['validation']:,} validation images. The reference: {_told(shown)}.\n\n"
        f"{_table(rows)}"
    )


def _told(values: dict[str, Any]) -> str:
    """Parameters in Markdown: ``"epochs `3`, seed `0`"``."""
    return ", ".join(f"{name} `{value}`" for name, value in values.items())


def _measured(shares: Sequence[float | None], record: RunRecord) -> str:
    """Validation accuracies of one training or of its seeds; None is of one that diverged."""
    if None in shares:
        return "diverged"
    if len(shares) > 1:
        return spread(shares)
    images = record.dataset["validation"]
    bounds = wilson_interval(round(shares[0] * images), images)
    return f"{percent(shares[0], 2)} ({interval(bounds)})"


def _trials(run: Run, root: Path) -> str:
    record, rows = run.record, []
    target = record.parameters.get("target_accuracy")
    for group in by_name(record.trials):
        ends = [trial["history"][-1] for trial in group if trial.get("history")]  # not of a search
        row = {
            "trial": called(group[0], "``"),
            "epochs": ", ".join(dict.fromkeys(str(trial["epochs"]) for trial in group)),
            "validation top-1": _measured(
                [None if diverged(trial) else trial["val_accuracy"] for trial in group], record
            ),
            "after the last epoch": spread([row["val_accuracy"] for row in ends]),
        }
        if target:
            steps = steps_to_target(record, group)
            row[f"steps to {as_given(target)}"] = f"{steps:,.0f}" if steps else ABSENT
        rows.append(row)
    seeds = dict.fromkeys(str(seed_of(trial, record)) for trial in record.trials)
    return (
        f"### [{run.name}]({_page(run, root)}): {record.notebook}, {record.dataset['name']}\n\n"
        f"Seed{'s' * (len(seeds) > 1)} {listed([*seeds])}, "
        f"{record.dataset['validation']:,} validation images.\n\n{_table(rows)}"
    )


# Markdown.


def _table(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    lines = [[*rows[0]], ["---"] * len(rows[0]), *map(dict.values, rows)] if rows else []
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _links(group: Configuration, root: Path) -> str:
    if len(group.runs) == 1:
        return f"[{group.name}]({_page(group.runs[0], root)})"
    seeds = (f"[{run.record.parameters.get('seed')}]({_page(run, root)})" for run in group.runs)
    return f"{group.name}, seeds {', '.join(seeds)}"


def _page(run: Run, root: Path) -> str:
    return relative_link(run.page if run.page.exists() else run.folder / RECORD, root)
