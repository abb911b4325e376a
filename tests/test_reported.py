import pytest

from cifar_utils.record import RunRecord
from cifar_utils.reported import (
    compare_with_reported,
    reported_curve,
    reported_per_class,
    reported_results,
)


def record_of(architecture, dataset):
    scores = {"n": 10_000, "loss": 0.41, "top1": 0.88, "top1_interval": [0.8734, 0.8862]}
    return RunRecord(
        run="r",
        notebook="n",
        parameters={},
        dataset={"name": dataset},
        model={"architecture": architecture, "parameters": 2_444_672},
        environment={},
        seconds={"train": 6720.0},
        history=[{"epoch": 1}, {"epoch": 2}],
        best_epoch=2,
        scores={"test": scores | {"top5": 0.99, "top5_interval": [0.988, 0.992]}},
    )


@pytest.mark.parametrize(
    ("architecture", "dataset", "metric", "value"),
    [
        ("fan", "cifar10", "top1", 0.76),
        ("resnet50v2", "cifar10", "top1", 0.8451),
        ("vgg19", "cifar10", "top1", 0.70),
        ("resnet18", "cifar10", "top1", 0.8675),
        ("airbench", "cifar10", "top1", 0.9401),
        ("preact", "cifar10", "top1", 0.9342),
        ("preact", "cifar100", "top5", 0.8840),
        ("cifarnet", "cifar10", "top1", 0.8670),
        ("cifarnet_worst", "cifar10", "top1", 0.8386),
        ("cifarnet(pool=2)", "tiny_imagenet", "top1", 0.44),
    ],
)
def test_reported_test_figures(architecture, dataset, metric, value):
    rows = reported_results(architecture, dataset)
    assert rows[rows.split == "test"][metric].tolist() == [value]


def test_what_stands_beside_the_five_reports_goes_by_its_author():
    table = compare_with_reported(record_of("resnet18(dropout=0.5)", "cifar100"))
    assert list(table.index) == [
        "report C: ResNet-18, sparse dropout 0.5",
        "weiaicunzai, pytorch-cifar100: ResNet-18",
        "this run",
    ]


def test_every_report_is_there_with_fractions_of_known_splits():
    rows = reported_results()
    assert {name for name in rows.report if len(name) == 1} == set("ABCDE")
    assert set(rows.split) == {"train", "validation", "test", "unclear"}
    for metric in ("top1", "top5", "accuracy"):
        assert rows[metric].dropna().between(0, 1).all()
    assert rows[["top1", "top5", "accuracy", "loss"]].notna().any(axis=1).all()


def test_group_norm_sizes_follow_the_report_s_formula():
    sizes = reported_results("gn_resnet").parameters.dropna().unique()
    assert set(sizes) == {9 * w * w + 30 * w + 36 for w in (32, 40, 100)}


def test_an_architecture_is_found_with_its_options():
    assert reported_results("resnet18(dropout=0.5)").equals(reported_results("resnet18"))


@pytest.mark.parametrize("name", ["cifarnet", "cifarnet_worst"])
def test_accuracy_by_class_averages_to_the_whole(name):
    from cifar_utils.data.cifar import CIFAR10

    shares = reported_per_class(name, "cifar10")
    assert len(shares) == CIFAR10.classes == 10
    whole = reported_results(name, "cifar10").top1.max()
    assert sum(shares.values()) / 10 == pytest.approx(whole, abs=0.015)
    assert reported_per_class(name, "digits") is None


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


def test_reported_stands_beside_measured():
    table = compare_with_reported(record_of("cifarnet(residual=False)", "cifar10"))
    assert table.index.tolist() == ["report E: CifarNet, best", "this run"]
    assert table["top-1"].tolist() == ["86.70%", "88.00% (87.3 to 88.6%)"]
    assert table["loss (nats)"].tolist() == ["0.4632", "0.4100"]
    assert table["parameters"].tolist() == ["2,444,672", "2,444,672"]
    assert table["epochs"].tolist() == ["20", "2"]
    assert table["training time"].tolist() == ["—", "1 h 52 min"]
    assert "steps" not in table


def test_splits_other_than_test_and_unclear_metrics_are_named():
    table = compare_with_reported(record_of("gn_resnet(width=32)", "cifar10"))
    row = table.loc["report A: flip all images, width 32 (validation)"]
    assert (row["top-1"], row["accuracy, top-k unclear"], row["steps"]) == ("—", "96.00%", "1,623")
    assert "report A: flip all images (split unclear)" in table.index


def test_where_nothing_was_reported_the_table_says_so():
    table = compare_with_reported(record_of("resnet20", "digits"))
    assert table.index.tolist() == ["none reported for resnet20 on digits", "this run"]
    assert set(table.iloc[0]) == {"—"}


def test_where_nothing_was_reported_of_a_network_others_on_the_dataset_follow():
    table = compare_with_reported(record_of("airbench(width=0.5)", "cifar100"))
    assert table.index.tolist() == [
        "none reported for airbench on cifar100",
        "report A: final model, gn_resnet",
        "report C: ResNet-18, sparse dropout 0.5, resnet18",
        "report D: 12 pre-activation units, preact",
        "weiaicunzai, pytorch-cifar100: ResNet-18, resnet18",
        "this run",
    ]
    assert table["top-5"].tolist() == [
        "—",
        "—",
        "78.42%",
        "88.40%",
        "93.05%",
        "99.00% (98.8 to 99.2%)",
    ]
