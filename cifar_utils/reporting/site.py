"""The site of a folder of runs: their pages, and an index with answers and a leaderboard."""

import base64
import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from cifar_utils.errors import InputError
from cifar_utils.files import NO_ROOM, NOTEBOOK, write_atomically
from cifar_utils.reporting.export import TEMPLATES, export_page, is_current, page_look, write_links
from cifar_utils.reporting.fragments import REPORT, breakable
from cifar_utils.reporting.notebooks import list_notebooks, read_question, relative_link
from cifar_utils.reporting.results import answers
from cifar_utils.runs.compare import (
    OF_SEEDS,
    OF_TESTS,
    compare_means,
    missed_by_all,
    paired_test,
    same_images,
)
from cifar_utils.runs.folder import Run, find_runs, local_data
from cifar_utils.runs.leaderboard import (
    COMPUTED,
    Configuration,
    configurations,
    families,
    leading_notes,
    read_notes,
    short_commits,
)
from cifar_utils.runs.reported import introduction
from cifar_utils.text import as_given, compact, duration, interval, percent, spread

MOST_MISSED = 40  # images of a dataset to list, those with the most doubtful labels


def build_index(folder: Path, say: Callable[[str], None] = lambda line: None) -> Path:
    """Write ``index.html`` into a folder, and link the pages of its runs.

    A folder with ``record.json`` or ``run.json`` is a run. Seeds of one configuration share a row,
    with its ablations folded below it. For each dataset, the best accuracy comes first. Failed and
    unfinished runs come last, with the reason. A page is exported again if its notebook, its record
    or the template has changed; nothing is executed. Test images are drawn if their data are on
    this machine. Runs below a folder with an index of its own are listed; their pages stay as they
    are.

    Parameters
    ----------
    folder
        The folder that has the runs' folders, at any depth.
    say
        Receives a line for each page that is exported, and for test images that are not drawn.

    Returns
    -------
    Path
        The index.

    """
    runs = find_runs(folder)
    own = [run for run in runs if not _of_another_site(run, folder)]
    _renew_pages(own, say)
    links = {run.folder: relative_link(run.page, folder) for run in runs if run.page.exists()}
    _link_pages([run for run in own if run.folder in links], folder)
    done = [run for run in runs if run.record]
    groups = configurations(done)
    together = families(groups)
    listed = [group for family in together for group in family]
    tested = same_images(run for group in listed for run in group.runs)
    places = {run: place for place, run in enumerate(run for alike in tested for run in alike)}

    def link(run: Run, text: str = "") -> Markup:
        html = Markup('<a href="{}">{}</a>') if run.folder in links else Markup("{1}")
        return html.format(links.get(run.folder, ""), text or run.name)

    told, notes = answers(groups), read_notes(folder, done)
    named = [group.lead for rows in told.values() for group in rows]
    named += [group.board["reported_by"][0] for group in listed]
    reports = {letter for text in named for letter in REPORT.findall(text)}
    index = TEMPLATES.get_template("index.html.j2").render(
        look=page_look("site.css", "site.js"),
        link=link,
        questions={name: read_question(f) for name, f in list_notebooks().items() if name in told},
        aside=_aside,
        better=_better,
        breakable=breakable,
        share=partial(percent, digits=2),
        reported=as_given,
        compact=compact,
        duration=duration,
        count=len(done),
        answers=told,
        beside=partial(leading_notes, notes),
        reports=[(letter, introduction(letter)) for letter in reports],
        families=together,
        notes=notes,
        missed=[_missed(alike, say) for alike in tested if len(alike) > 1],
        undone=[run for run in runs if not run.record],
        data={
            "configurations": [_embedded(*each, places) for each in enumerate(listed)],
            "tests": _paired_tests(tested, places),
            "means": _means(listed),
            "computed": [*COMPUTED.values()],
            "of_seeds": OF_SEEDS,
            "of_tests": OF_TESTS,
        },
    )
    write_atomically(folder / "index.html", index)
    return folder / "index.html"


def _better(family: Sequence[Configuration]) -> str:
    """The best mean accuracy of a family whose first configuration is not the best; or nothing."""
    first, best = family[0].mean("top1"), max(group.mean("top1") for group in family)
    return percent(best, 2) if best > first else ""


def _aside(group: Configuration) -> str:
    """The text beside a mean accuracy: the deviation or one run's interval, and the views."""
    told = spread(group.board["top1"].tolist()).partition(" ")[2] or interval(group.interval)
    return "; ".join(filter(None, [told, group.record.views_in_words]))


def _embedded(place: int, group: Configuration, places: dict[Run, int]) -> dict[str, Any]:
    """A configuration for the page's script, with its place and those of its runs."""
    seconds, flops = group.mean("train_seconds"), group.mean("flops")
    images = group.record.dataset["train"]
    settings = {"notebook": group.record.notebook}
    settings |= {name: str(value) for name, value in group.settings.items()}
    for column, name in COMPUTED.items():
        each = group.board[column]  # of which runs it differs matters, too
        settings[name] = each[0] if each.nunique() == 1 else "; ".join(each)
    settings["commit"] = short_commits(settings["commit"])
    return {
        "place": place,
        "name": group.name,
        "dataset": group.board["dataset"][0],
        "kind": group.kind,
        "top1": [group.mean("top1"), *group.interval],
        "accuracy": spread(group.board["top1"].tolist()),
        "seconds": seconds,
        "flops": flops,
        "images": images,
        "cost": {
            "seconds": duration(seconds),
            "flops": flops and f"{compact(flops)}FLOP",
            "images": f"{images:,} images",
        },
        "settings": settings,
        "runs": [
            {
                "name": run.name,
                "seed": run.record.seed,
                "training": _by_epoch(run, "accuracy"),
                "validation": _by_epoch(run, "val_accuracy"),
                "place": places.get(run),
            }
            for run in group.runs
        ],
    }


def _by_epoch(run: Run, key: str) -> list[float | None]:
    values = [epoch.get(key) for epoch in run.record.history]
    return [value and round(value, 4) for value in values] if any(values) else []


def _paired_tests(tested: list[list[Run]], places: dict[Run, int]) -> dict[int, dict[int, list]]:
    """The paired tests of runs of one seed, each pair once, by the later place and the earlier.

    A test is its four numbers of images, its interval, and its p-value in words.
    """
    found = defaultdict(dict)
    for alike in tested:
        for other, run in itertools.combinations(alike, 2):
            if run.record.seed == other.record.seed:
                test = paired_test(run.name, run, other.name, other)
                counts = test.both_right, test.only_run, test.only_against, test.both_wrong
                interval = (round(share, 8) for share in test.interval)
                found[places[run]][places[other]] = [*counts, *interval, test.p_in_words]
    return found


def _means(groups: Sequence[Configuration]) -> dict[int, dict[int, list]]:
    """The differences of mean accuracies, each pair once, by the later place and the earlier."""
    found = defaultdict(dict)
    several = [(place, group) for place, group in enumerate(groups) if len(group.runs) > 1]
    for (earlier, other), (later, group) in itertools.combinations(several, 2):
        if told := compare_means(group, other):
            found[later][earlier] = [round(number, 8) for number in told]
    return found


# The test images that all runs get wrong.


def _missed(runs: Sequence[Run], say: Callable[[str], None]) -> dict[str, Any]:
    table = missed_by_all(runs)
    shown = table.iloc[:MOST_MISSED]
    pictures = _pictures(runs[0], shown.index) if len(shown) else {}
    dataset = runs[0].record.dataset["name"]
    if len(shown) and not pictures:
        say(f"{dataset}: test images are not drawn, because this machine has no such data")
    return {
        "dataset": dataset,
        "runs": runs,
        "count": len(table),
        "images": [(row, pictures.get(row.Index)) for row in shown.itertuples()],
    }


def _pictures(run: Run, numbers: Iterable[int]) -> dict[int, str]:
    """Test images as data URIs, by their numbers; empty if the data are not on this machine."""
    data = local_data(run.record.parameters | run.facts.get("parameters", {}))
    if data is None or not np.array_equal(data.test.labels, run.predicted.labels):
        return {}
    pictures = {}
    for number in numbers:
        file = io.BytesIO()
        Image.fromarray(data.test.images[number]).save(file, "WEBP", quality=90)
        pictures[number] = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
    return pictures


# The runs' pages.


def _of_another_site(run: Run, folder: Path) -> bool:
    """Whether a folder between a run's and this one has an index, to which its page belongs."""
    between = run.folder.relative_to(folder).parents
    return any((folder / path / "index.html").exists() for path in between if path.name)


def _renew_pages(runs: Sequence[Run], say: Callable[[str], None]) -> None:
    """Export outdated pages again."""
    for run in runs:
        notebook = run.folder / NOTEBOOK
        try:
            if notebook.exists() and not is_current(run.page, notebook):
                export_page(notebook, run.page)
                say(f"{run.name}: page exported")
        # A run that was killed early, or somebody else's; its page, if any, stays.
        except (InputError, OSError) as error:
            if getattr(error, "errno", None) in NO_ROOM:
                raise
            say(f"{run.name}: {error}")


def _link_pages(runs: Sequence[Run], folder: Path) -> None:
    """Link each run's page to the index and to the runs before and after it."""
    links = TEMPLATES.get_template("links.html.j2")
    index = folder / "index.html"
    for before, run, after in zip([None, *runs], runs, [*runs[1:], None], strict=False):
        address = partial(relative_link, folder=run.folder)
        html = links.render(index=index, before=before, after=after, address=address)
        with suppress(OSError):  # another process replaces this run, or it is read-only
            write_links(run.page, html)
