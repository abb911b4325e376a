"""README says what the committed records say, and its links lead somewhere."""

import re
from pathlib import Path
from statistics import mean, stdev

import pytest

from cifar_utils.record import read_record
from cifar_utils.words import duration, interval, percent

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PUBLISHED = ROOT / "reports/published"
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


@pytest.mark.parametrize(
    ("name", "metrics"), [("airbench-cifar10", ("top1",)), ("airbench-cifar100", ("top1", "top5"))]
)
def test_means_over_seeds_are_those_of_their_records(name, metrics):
    link = f"](reports/published/{name}-s0/report.html)"
    (told,) = (text for text in README.split("\n\n") if link in text and not text.startswith("|"))
    told = " ".join(told.split())
    records = [read_record(run) for run in PUBLISHED.glob(f"{name}-s*")]
    assert len(records) >= 5
    assert f"(mean and standard deviation of {len(records)} seeds)" in told
    for metric in metrics:
        shares = [record.scores["test"][metric] for record in records]
        assert f"**{percent(mean(shares), 2)} ± {100 * stdev(shares):.2f}**" in told
    for part, aside in (("train", " of training"), ("evaluate", "")):
        seconds = [record.seconds[part] for record in records]
        assert f"{duration(min(seconds))} to {duration(max(seconds))}{aside}" in told


def test_what_an_ingredient_is_worth_is_what_its_records_say():
    rows = re.findall(
        r"^\|.+/(ingredients-.+)/record\.json\) \| (.+) \| (.+) \|$", README, re.MULTILINE
    )
    assert len(rows) >= 7
    for run, average, each in rows:
        folders = sorted(PUBLISHED.glob(f"{run.removesuffix('-s0')}*"))
        shares = [read_record(folder).scores["test"]["top1"] for folder in folders]
        assert average == percent(mean(shares), 2), run
        assert each == ", ".join(percent(share, 2) for share in shares), run
