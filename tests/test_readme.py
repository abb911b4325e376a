"""README and RESULTS.md say what the committed records say, and their links lead somewhere."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from cifar_utils.reporting.notebooks import find_notebook, list_notebooks, plan_run
from cifar_utils.reporting.results import MARKS, render_results, render_table
from cifar_utils.reporting.series_file import read_series
from cifar_utils.runs.compare import paired_test, same_images
from cifar_utils.runs.folder import PREDICTED, Run

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "reports/published"
README, RESULTS = ((ROOT / name).read_text("utf-8") for name in ("README.md", "RESULTS.md"))
PROSE = README[: README.index(MARKS[0])] + README[README.index(MARKS[1]) :]
NUMBER = r"([+-]?\d+\.\d+)"
# As in "3.4 points more of the same test images correctly (95% interval 2.9 to 3.9".
DIFFERENCE = re.compile(rf"{NUMBER} points( less)?(?:(?! points).)*?{NUMBER} to {NUMBER}(?![\d%])")
# Notes whose intervals are of a run's trials, or of means over seeds.
OTHERS = {"depth-cifar10-s*", "degradation-cifar10-s*", "ingredients-*", "tuning-cifar10-s*"}
LESSONS = (ROOT / "notebooks/README.md").read_text("utf-8")


def test_results_are_those_of_the_published_records():
    assert render_results(PUBLISHED, ROOT) == RESULTS, "run make publish"


def test_the_readme_s_table_is_that_of_the_published_records():
    table = render_table(PUBLISHED, ROOT)
    assert f"{MARKS[0]}\n{table}{MARKS[1]}" in README, "run make publish"


def test_each_percentage_in_the_readme_is_one_of_the_results():
    assert set(re.findall(r"[\d.]+%", PROSE)) <= set(re.findall(r"[\d.]+%", RESULTS))


@pytest.mark.parametrize(
    "name", ["README.md", "RESULTS.md", "benchmarks/NOTES.md", "notebooks/README.md"]
)
def test_links_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_published_pages_are_small():
    files = [*PUBLISHED.rglob("*.html")]
    assert files
    assert [file.name for file in files if file.stat().st_size > 600_000] == []


def test_each_note_is_of_a_published_run():
    notes = yaml.safe_load((PUBLISHED / "notes.yaml").read_text("utf-8"))
    patterns = [pattern for key in notes for pattern in key.split(", ")]
    assert [pattern for pattern in patterns if not [*PUBLISHED.glob(pattern)]] == []


def test_each_difference_in_a_note_is_that_of_its_run_and_another_one():
    notes = yaml.safe_load((PUBLISHED / "notes.yaml").read_text("utf-8"))
    told = [
        (key, *found) for key in notes.keys() - OTHERS for found in DIFFERENCE.findall(notes[key])
    ]
    assert len(told) > 15
    runs = [Run(file.parent) for file in PUBLISHED.glob(f"*/{PREDICTED}")]
    pairs = [pair for alike in same_images(runs) for pair in itertools.permutations(alike, 2)]

    def is_true(key: str, middle: str, less: str, *ends: str) -> bool:
        figures = [figure.removeprefix("+") for figure in (middle, *ends)]
        for run, other in pairs:
            if run.folder.match(key):
                first, second = (other, run) if less else (run, other)
                test = paired_test(first.name, first, second.name, second)
                decimals = [len(figure.partition(".")[2]) for figure in figures]
                values = zip((test.difference, *test.interval), decimals, strict=True)
                if figures == [f"{100 * value:.{places}f}" for value, places in values]:
                    return True
        return False

    assert [one for one in told if not is_true(*one)] == []


def test_each_exercise_is_a_run_that_its_notebook_takes_in_a_folder_of_its_own():
    commands, folders = re.findall("cifar-reports run (.+)", LESSONS), set()
    for command in commands:
        name, *words = shlex.split(command)
        given = dict(word.split("=", 1) for word in words if word != "-p")
        assert len(given) == words.count("-p") > 0
        folders.add(plan_run(find_notebook(name), given).folder)
    assert len(folders) == len(commands)


def test_the_lesson_path_and_the_quick_series_hold_every_notebook(tmp_path):
    names = set(list_notebooks())
    assert set(re.findall(r"^## Lesson \d: (\w+)$", LESSONS, re.M)) == names
    assert len(re.findall("cifar-reports run", LESSONS)) >= 2 * len(names) - 1
    quick = read_series(ROOT / "notebooks/series.yaml", "quick", tmp_path)
    assert {run.notebook.stem for run in quick} == names
