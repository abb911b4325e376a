import pandas as pd
import pytest
import yaml

from cifar_utils.runs.reported import (
    FOLDER,
    compare_with_reported,
    reported_curve,
    reported_results,
)


def table_of(*arguments):
    """The figures of an architecture on a dataset; by default all of them."""
    experiments = yaml.safe_load((FOLDER / "results.yaml").read_text())["results"]
    tasks = {(row["architecture"], row["dataset"]) for row in experiments}
    asked = [arguments] if arguments else sorted(tasks)
    return pd.DataFrame([row for each in asked for row in reported_results(*each)])


@pytest.fixture
def compared(make_record):
    """The table of a run of a network on a dataset beside the reports of it."""
    scores = {"loss": 0.41, "top1": 0.88, "top1_interval": [0.8734, 0.8862]}
    scores |= {"top5": 0.99, "top5_interval": [0.988, 0.992]}

    def compared(architecture, dataset, classes="abcdefghij", others=()):
        return compare_with_reported(
            make_record(
                dataset={"name": dataset},
                model={"architecture": architecture, "parameters": 2_444_672},
                seconds={"train": 6720.0},
                history=[{"epoch": 1}, {"epoch": 2}],
                scores={"test": scores | {"per_class": dict.fromkeys(classes, 0.9)}},
                trials=[
                    {"name": "", "val_accuracy": 0.8, "epochs": 2, "values": {"architecture": name}}
                    for name in others
                ],
            )
        )

    return compared


def test_what_stands_beside_the_five_reports_goes_by_its_author_and_names_its_source(compared):
    table = compared("resnet18(dropout=0.5)", "cifar100")
    assert list(table.index) == [
        "report C: ResNet-18, sparse dropout 0.5 (split unclear)",
        "weiaicunzai, pytorch-cifar100: ResNet-18",
        "this run",
    ]
    rows = table_of()
    assert (rows.source.notna() == (rows.report.str.len() > 1)).all()


def test_every_report_is_there_with_fractions_of_known_splits():
    rows = table_of()
    counts = rows.drop_duplicates(
        ["report", "experiment", "architecture", "dataset", "steps"]
    ).report.value_counts()
    assert {name: counts[name] for name in "ABCDE"} == {"A": 14, "B": 2, "C": 7, "D": 2, "E": 4}
    assert set(rows.split) == {"train", "validation", "test", "unclear"}
    for metric in ("top1", "top5", "accuracy"):
        assert rows[metric].dropna().between(0, 1).all()
    assert rows[["top1", "top5", "accuracy", "loss"]].notna().any(axis=1).all()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_report_d_s_seconds_are_about_those_of_its_log(dataset):
    (seconds,) = table_of("preact", dataset).seconds.unique()
    assert reported_curve("preact", dataset).seconds.sum() == pytest.approx(seconds, rel=0.01)


@pytest.mark.parametrize(
    ("dataset", "column", "last"),
    [("cifar10", "accuracy", 0.9022), ("cifar100", "top_5_accuracy", 0.9328)],
)
def test_printed_curves(dataset, column, last):
    curve = reported_curve("preact", dataset)
    assert curve.epoch.tolist() == list(range(1, 101))
    assert curve[column].iloc[-1] == pytest.approx(last, abs=1e-4)
    assert curve.attrs["source"] == "report D"
    assert reported_curve("preact", "digits") is None


def test_reported_stands_beside_measured(compared):
    table = compared("cifarnet(residual=False)", "cifar10")
    assert table.index.tolist() == ["report E: CifarNet, best", "this run"]
    assert table["top-1"].tolist() == ["86.70%", "88.00% (87.3 to 88.6%)"]
    assert table["loss (nats)"].tolist() == ["0.4632", "0.4100"]
    assert table["parameters"].tolist() == ["–", "2,444,672"]
    assert table["epochs"].tolist() == ["20", "2"]
    assert table["training time"].tolist() == ["–", "1 h 52 min"]
    assert "steps" not in table


def test_each_network_that_a_run_compares_has_its_reported_figures(compared):
    table = compared("cifarnet", "cifar10", others=["cifarnet", "cifarnet_worst(residual=False)"])
    assert table.index.tolist() == [
        "report E: CifarNet, best",
        "report E: CifarNet, worst, cifarnet_worst",
        "this run",
    ]


def test_splits_other_than_test_and_unclear_metrics_are_named(compared):
    table = compared("gn_resnet(width=32)", "cifar10")
    row = table.loc["report A: flip all images, width 32, report_a (validation)"]
    assert (row["top-1"], row["accuracy, top-k unclear"], row["steps"]) == ("–", "96%", "1,623")
    assert "report A: flip all images, report_a (split unclear)" in table.index


def test_figures_of_networks_of_the_same_size_stand_beside_our_own_network_s(compared):
    ours = compared("gn_resnet(width=32)", "cifar10").index
    theirs = compared("report_a(32)", "cifar10").index
    assert len([row for row in ours if ", report_a" in row]) == len(theirs) - 1
    assert ours[-2:].tolist() == ["xvel, cifar10-tiniest: mean of 5 runs, tiniest", "this run"]
    assert "gn_resnet" not in set(table_of().architecture)


def test_a_top_5_accuracy_of_few_classes_is_not_shown(compared):
    for classes, top5 in (("abcdef", "99.00% (98.8 to 99.2%)"), ("abcde", "–")):
        assert compared("cifarnet", "folder:pets", classes).loc["this run", "top-5"] == top5


def test_where_nothing_was_reported_the_table_says_so(compared):
    table = compared("resnet20", "digits")
    assert table.index.tolist() == ["none reported for resnet20 on digits", "this run"]
    assert set(table.iloc[0]) == {"–"}


def test_where_nothing_was_reported_of_a_network_others_on_the_dataset_follow(compared):
    table = compared("airbench(width=0.5)", "cifar100")
    first, *others, last = table.index
    assert (first, last) == ("none reported for airbench on cifar100", "this run")
    assert table.loc["report D: 12 pre-activation units, preact", "top-5"] == "88.40%"
    assert len(others) > 1
