import json

import pandas as pd
import pytest
from click.testing import CliRunner

from cifar_utils.cli import commands, main
from cifar_utils.leaderboard import COLUMNS, leaderboard
from cifar_utils.record import RunRecord


@pytest.fixture
def add(tmp_path):
    def add(name, *, top1=0.5, dataset="cifar10", architecture="resnet20", outcome="finished"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        RunRecord(
            run=name,
            notebook="02_resnet",
            parameters={"seed": 3},
            dataset={"name": dataset, "train": 900},
            model={"architecture": architecture, "parameters": 274042, "flops": 81626368},
            environment={"processor": "a processor", "accelerators": ["a GPU"]},
            seconds={"train": 60.0, "total": 65.0},
            history=[{"epoch": 1}],
            best_epoch=1,
            scores={"test": {"top1": top1, "top1_interval": [top1 - 0.1, top1 + 0.1]}},
        ).write(folder)
        ended = {"outcome": outcome, "ended": "2026-11-21T04:36:00+00:00"}
        (folder / "run.json").write_text(json.dumps(ended))
        return folder

    return add


def test_a_row_says_what_its_record_says(add, tmp_path):
    add("run")
    (row,) = leaderboard(tmp_path).to_dict("records")
    assert pd.isna(row.pop("top5"))
    assert row == {
        "run": "run",
        "notebook": "02_resnet",
        "dataset": "cifar10",
        "architecture": "resnet20",
        "family": "resnet",
        "top1": 0.5,
        "top1_low": 0.4,
        "top1_high": 0.6,
        "reported": 0.8,
        "reported_by": "report C, split unclear",
        "parameters": 274042,
        "flops": 81626368,
        "epochs": 1,
        "train_images": 900,
        "train_seconds": 60.0,
        "total_seconds": 65.0,
        "processor": "a GPU",
        "date": "2026-11-21",
        "seed": 3,
    }


def test_the_best_come_first_within_a_dataset_and_only_finished_runs_are_in(add, tmp_path):
    add("worse", top1=0.6)
    add("better", top1=0.7)
    add("digits", dataset="digits", top1=0.9)
    add("failed", outcome="failed")
    add("broken").joinpath("record.json").write_text("{")
    assert list(leaderboard(tmp_path)["run"]) == ["better", "worse", "digits"]


@pytest.mark.parametrize(
    ("dataset", "architecture", "reported", "by"),
    [
        ("cifar10", "fan", 0.76, "report B"),  # on test images, though more on validation images
        ("cifar10", "resnet18(dropout=0.5)", 0.8675, "report C"),
        ("cifar10", "gn_resnet", None, ""),  # whose report does not say top-1
        ("cifar100", "preact", None, ""),  # top-5 alone
        ("digits", "resnet20", None, ""),
    ],
)
def test_the_reported_figure_is_the_top_1_on_test_images(
    add, tmp_path, dataset, architecture, reported, by
):
    add("run", dataset=dataset, architecture=architecture)
    (row,) = leaderboard(tmp_path).to_dict("records")
    assert row["reported_by"] == by
    assert row["reported"] == reported or (reported is None and pd.isna(row["reported"]))


def test_no_run_is_an_empty_table(tmp_path):
    board = leaderboard(tmp_path)
    assert board.empty
    assert list(board) == COLUMNS


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(commands, ["leaderboard", *arguments])

    return run


def test_the_command_prints_a_table(add, cli):
    add("reports/published/one")
    add("reports/published/two", dataset="digits", architecture="tiny")
    (add("reports/published/three") / "record.json").unlink()
    add("notebooks")  # makes this folder the project
    heads, one, two = cli().stdout.splitlines()
    assert heads.split()[:4] == ["run", "dataset", "architecture", "accuracy"]
    assert one.split()[:7] == ["one", "cifar10", "resnet20", "50.0%", "40.0", "to", "60.0%"]
    assert "1 min 0 s" in one
    assert two.split()[7:9] == ["–", "274"]
    assert "two" not in cli("--dataset", "cifar10").stdout


def test_the_command_writes_csv_and_json(add, cli, tmp_path):
    add("runs/one")
    assert cli("runs", "--csv", "a.csv", "--json", "a.json").stdout == (
        "leaderboard: a.csv\nleaderboard: a.json\n"
    )
    assert pd.read_csv(tmp_path / "a.csv")["top1"].tolist() == [0.5]
    (row,) = json.loads((tmp_path / "a.json").read_text())
    assert (row["run"], row["top1_low"], row["top5"], row["seed"]) == ("one", 0.4, None, 3)
    assert cli("runs", "--csv", "-").stdout == (tmp_path / "a.csv").read_text()
    assert cli("runs", "--json", "-").stdout == (tmp_path / "a.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none"], "no finished run below none; make some"),
        (["runs", "--dataset", "cifar1"], "did you mean 'cifar10'?"),
        (["runs", "--csv", "no/a.csv"], "no/a.csv can't be written (No such file"),
    ],
)
def test_what_the_command_refuses(add, cli, capsys, arguments, words):
    add("runs/one")
    assert main(["leaderboard", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
