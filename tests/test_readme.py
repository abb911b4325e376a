"""README says what the committed records say, and its links lead somewhere."""

import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from cifar_utils.record import read_record
from cifar_utils.words import duration, interval, percent

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
RESULTS = re.findall(r"^\|.*\]\((reports/published/.+?)/report\.html\).*$", README, re.MULTILINE)


@pytest.mark.parametrize("folder", RESULTS)
def test_a_result_is_the_one_of_its_record(folder):
    rows = [line for line in README.splitlines() if line.startswith("|")]
    row = next(line for line in rows if f"({folder}/report.html)" in line)
    record = read_record(ROOT / folder)
    test = record.scores["test"]
    assert f"{percent(test['top1'], 2)} ({interval(test['top1_interval'])})" in row
    assert f"{len(record.history)} epochs" in row
    assert duration(record.seconds["train"]) in row


def test_there_are_results():
    assert RESULTS


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_validation_figures_in_the_prose_are_those_of_their_records():
    found = re.findall(r"\]\((reports/published/[\w-]+)/report\.html\) ([\d.]+%)", README)
    assert found
    for folder, figure in found:
        record = read_record(ROOT / folder)
        assert figure == percent(record.history[record.best_epoch - 1]["val_accuracy"]), folder


def test_means_over_seeds_are_those_of_their_records():
    pattern = r"\*\*([\d.]+%) ± ([\d.]+)\*\* \(mean and standard deviation of (\d+) seeds\)"
    ((average, deviation, count),) = re.findall(pattern, README)
    records = [read_record(run) for run in (ROOT / "reports/published").glob("airbench-cifar10-s*")]
    shares = [record.scores["test"]["top1"] for record in records]
    assert len(shares) == int(count)
    assert (average, deviation) == (percent(mean(shares), 2), f"{100 * stdev(shares):.2f}")
    seconds = [record.seconds["train"] for record in records]
    assert f"{duration(min(seconds))} to {duration(max(seconds))} of training" in README
