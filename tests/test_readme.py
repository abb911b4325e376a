"""README and RESULTS.md say what the committed records say, and their links lead somewhere."""

import re
from pathlib import Path

import pytest
import yaml

from cifar_utils.reporting.results import MARKS, render_results, render_table, with_table

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "reports/published"
README, RESULTS = ((ROOT / name).read_text("utf-8") for name in ("README.md", "RESULTS.md"))
PROSE = README[: README.index(MARKS[0])] + README[README.index(MARKS[1]) :]


def test_results_are_those_of_the_published_records():
    assert render_results(PUBLISHED, ROOT) == RESULTS, "run make publish"


def test_the_readme_s_table_is_that_of_the_published_records():
    assert with_table(README, render_table(PUBLISHED, ROOT)) == README, "run make publish"


def test_each_percentage_in_the_readme_is_one_of_the_results():
    assert set(re.findall(r"[\d.]+%", PROSE)) <= set(re.findall(r"[\d.]+%", RESULTS))


@pytest.mark.parametrize("name", ["README.md", "RESULTS.md", "benchmarks/NOTES.md"])
def test_links_lead_somewhere(name):
    page = ROOT / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_each_note_is_of_a_published_run():
    patterns = yaml.safe_load((PUBLISHED / "notes.yaml").read_text("utf-8"))
    assert [pattern for pattern in patterns if not [*PUBLISHED.glob(pattern)]] == []
