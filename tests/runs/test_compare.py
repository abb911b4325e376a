import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cifar_utils import compare_runs, load_run
from cifar_utils.evaluation import Scores
from cifar_utils.reporting.terminal import as_table
from cifar_utils.runs.compare import OF_SEEDS, OF_TESTS, PairedTest, missed_by_all, same_images

LABELS = np.arange(200) % 4


@pytest.fixture
def make(tmp_path, make_record):
    """Make a run that gets the given test images right; ``right=None`` leaves no predictions."""

    def make(
        name,
        right=range(150),
        labels=LABELS,
        dataset="digits",
        folder=".",
        pictures="",
        test=200,
        **parameters,
    ):
        place = tmp_path / folder / name
        place.mkdir(parents=True)
        scores = {"top1": 0.5, "top1_interval": [0.4, 0.6], "top5": 0.9, "loss": 1.25}
        if right is not None:
            hit = np.isin(np.arange(len(labels)), list(right))
            said = np.where(hit, labels, (labels + 1) % 4)
            found = Scores(tuple("abcd"), labels, np.eye(4, dtype=np.float32)[said])
            found.write(place)
            scores = found.to_dict()
        make_record(
            parameters={"epochs": 2, "seed": 0, "dataset": dataset} | parameters,
            dataset={"name": dataset, "test_pictures": pictures, "test": test},
            model={"architecture": "resnet20", "parameters": 272_474, "flops": 81_600_000},
            seconds={"train": 65.0, "total": 70.0},
            history=[{"epoch": e, "val_accuracy": 0.3 * e} for e in (1, 2)],
            scores={"test": scores},
        ).write(place)
        return place

    return make


def test_the_table_holds_what_differs_and_what_came_of_it(make):
    one, two = make("one", schedule="step"), make("two", range(160), schedule="cosine", l2=0.1)
    comparison = compare_runs([one, load_run(two)])
    table = comparison.table
    assert table.index.tolist() == ["one", "two"]
    assert table.columns.tolist() == [
        "schedule", "l2", "top1", "top1_low", "top1_high", "top5", "loss", "parameters", "flops",
        "train_seconds", "total_seconds",
    ]  # fmt: skip
    assert table["schedule"].tolist() == ["step", "cosine"]
    assert pd.isna(table["l2"]["one"])
    assert comparison.words["l2"].tolist() == ["–", "0.1"]
    assert table["top1"].tolist() == [0.75, 0.8]
    low, high = load_run(one).scores.top_k_interval(1)
    assert table.loc["one", ["top1_low", "top1_high"]].tolist() == [low, high]
    words = comparison.words.loc["two"]
    assert words["top-1"] == "80.0%"
    assert words["95% interval"].startswith("73.9 to ")
    assert words["parameters"] == "272 k"
    assert words["training"] == "1 min 5 s"


def test_runs_on_the_same_images_are_tested_in_pairs(make):
    runs = [make("a", range(150)), make("b", range(10, 180)), make("c", range(150), epochs=3)]
    comparison = compare_runs(runs)
    b, c = comparison.tests
    assert (b.run, b.against, c.run, c.against) == ("b", "a", "c", "a")
    assert (b.both_right, b.only_run, b.only_against, b.both_wrong) == (140, 30, 10, 20)
    assert b.difference == pytest.approx(0.1)
    # Twice the chance of at most 10 heads in 40 throws.
    tail = sum(math.comb(40, heads) for heads in range(11)) / 2**40
    assert b.p_value == pytest.approx(2 * tail)
    assert (c.difference, c.p_value) == (0, 1)
    assert str(b).startswith(
        "b against a on 200 test images: top-1 +10.00 points (95% interval +3.86 to +16.19), "
        "McNemar's exact p = 0.0022; both right 140, only b 30, only a 10, both wrong 20"
    )
    assert comparison.findings[-2:] == [OF_SEEDS, OF_TESTS]


@pytest.mark.parametrize(
    ("counts", "difference", "low", "high", "p_value"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017),
        # chapter 8: complete response before and after therapy (Cavo et al., 2012).
        ((59, 6, 16, 80), -0.0621, -0.1186, -0.0046, 0.0525),
        # Newcombe, Statistics in Medicine 17 (1998), method 10.
        ((36, 12, 2, 0), 0.2, 0.0569, 0.3404, 0.0129),
    ],
)
def test_difference_interval_and_p_value_of_known_tables(counts, difference, low, high, p_value):
    test = PairedTest("a", "b", *counts)
    assert test.difference == pytest.approx(difference, abs=5e-5)
    assert test.interval == pytest.approx((low, high), abs=5e-5)
    assert test.p_value == pytest.approx(p_value, abs=5e-5)


COUNTS = st.lists(st.integers(0, 5000), min_size=4, max_size=4).filter(any)


@settings(max_examples=25)
@given(COUNTS)
def test_intervals_hold_the_difference_and_turn_with_the_runs(counts):
    both, one, other, none = counts
    test = PairedTest("a", "b", both, one, other, none)
    turned = PairedTest("b", "a", both, other, one, none)
    low, high = test.interval
    assert -1 - 1e-9 <= low <= test.difference + 1e-9
    assert test.difference - 1e-9 <= high <= 1 + 1e-9
    assert turned.interval == pytest.approx((-high, -low), abs=1e-9)
    assert turned.p_value == pytest.approx(test.p_value)
    assert 0 <= test.p_value <= 1


def test_folders_of_one_name_with_other_pictures_are_other_data(make):
    one, alike = (
        make(name, dataset="folder:pets", pictures="1" * 64, seed=seed)
        for seed, name in enumerate(["one", "alike"])
    )
    other = make("other", dataset="folder:pets", pictures="2" * 64, seed=2)
    comparison = compare_runs([one, alike, other])
    assert [test.run for test in comparison.tests] == ["alike"]
    notes = " ".join(comparison.notes)
    assert "no paired test of other against one: their test images differ" in notes
    assert "one, alike differ in no parameter but the seed" in notes
    assert comparison.table["dataset"].tolist() == [
        f"folder:pets, test pictures {digest}" for digest in ("111111", "111111", "222222")
    ]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"right": None}, r"no paired test of two against one: .*predicted.npz can't be read"),
        ({"dataset": "cifar10"}, r"images differ \(200 of cifar10, 200 of digits\)$"),
        ({"labels": LABELS[:100], "right": range(50)}, r"differ \(100 of digits, 200 of digits\)"),
        ({"labels": LABELS[::-1]}, r"no paired test of two against one: their test images differ"),
    ],
)
def test_without_the_same_images_the_test_is_said_to_be_missing(make, other, words):
    comparison = compare_runs([make("one"), make("two", **other)])
    assert comparison.tests == ()
    (note,) = comparison.notes
    assert pd.Series([note]).str.contains(words, regex=True).all(), note
    assert note in repr(comparison)
    assert len(comparison.table) == 2


def test_seeds_are_averaged_where_nothing_else_differs(make):
    runs = [make(f"s{seed}", range(150 + 10 * seed), seed=seed) for seed in range(3)]
    comparison = compare_runs([*runs, make("other", epochs=5)])
    note, _ = comparison.notes
    told = "s0, s1, s2 differ in no parameter but the seed: top-1 80.00% ± 5.00, n = 3"
    assert note.startswith(told)


def test_means_are_compared_by_the_seeds_that_both_have(make):
    runs = [make(f"a{seed}", range(150 + seed), seed=seed) for seed in (0, 2, 4)]
    runs += [make(f"b{seed}", range(140 + 2 * seed), seed=seed, epochs=9) for seed in (7, 4, 0)]
    (told,) = (
        note for note in compare_runs(runs).notes if "pairs of runs with the same seed" in note
    )
    # Differences of -5 and -3 points: -4 ± 12.706 · 1.4142 / √2
    assert (
        "2 pairs of runs with the same seed: top-1 -4.00 points on average (95% interval -16.71 to"
        in told
    )
    nothing = [
        ("c", {"dataset": "cifar10"}, (0, 4)),
        ("d", {"test": 100}, (0, 4)),
        ("e", {"epochs": 9}, (0, 7)),
        ("f", {"epochs": 9}, (0, None)),
    ]
    runs[1:2] = [make("a", range(9), seed=None)]
    for name, images, seeds in nothing:
        runs[3:] = [make(f"{name}{seed}", range(seed or 8), seed=seed, **images) for seed in seeds]
        assert not any("pairs of" in note for note in compare_runs(runs).notes), name


@pytest.mark.parametrize(
    "name", ["run", "notebook", "interval", "top1", "precision", "loss", "commit"]
)
def test_a_parameter_of_any_name_is_compared(make, name):
    comparison = compare_runs([make("one", **{name: "a"}), make("two", **{name: "b"})])
    assert comparison.table.iloc[:, 0].tolist() == ["a", "b"]
    shown = comparison.words.reset_index()
    assert "75.0%" in shown["top-1"].tolist()
    assert shown["run"].tolist() == ["one", "two"]


def test_a_default_that_an_older_notebook_lacks_is_no_difference(make):
    both = compare_runs([make("old"), make("new", patience=None)])
    assert both.table.columns[0] == "top1"
    assert both.notes == ()


def test_more_than_one_difference_is_said(make):
    both = compare_runs([make("one"), make("two", epochs=3, schedule="cosine")])
    assert both.notes[-1] == "They differ in 2 things, so no single one explains the result."


def test_a_comparison_is_shown_as_text_and_as_html(make):
    comparison = compare_runs([make("one", note="<script>"), make("two", range(170), note="")])
    text = repr(comparison)
    assert "one" in text.splitlines()[2]
    assert "85.0%  79.4 to 89.3%" in text
    assert "McNemar's exact p" in text.splitlines()[-3]
    html = comparison._repr_html_()
    assert "<script>" not in html
    assert html.count("<table") == html.count("<ul>") == 1


def test_what_else_made_them_is_among_what_differs(make):
    one, two = make("one"), make("two")
    for place, commit in ((one, "a" * 40), (two, "b" * 40)):
        by = {"git": commit, "processor": "a CPU", "precision": place.name, "backend": place.name}
        by |= {"first": 1, "last": 1}
        replace(load_run(place).record, trained_by=[by]).write(place)
    words = compare_runs([one, two]).words
    assert words[["backend", "computed in", "commit"]].to_numpy().tolist() == [
        ["one", "one", "aaaaaaaa"],
        ["two", "two", "bbbbbbbb"],
    ]
    assert "processor" not in words


def test_images_that_all_miss_are_told_with_what_they_are_taken_for(make):
    several = [make("a", range(190)), make("b", range(5, 195)), make("c", range(150))]
    runs = [load_run(each) for each in (*several, make("other", labels=LABELS[::-1]))]
    alike, other = same_images([*runs, load_run(make("none", None))])
    assert ([run.name for run in alike], [run.name for run in other]) == ([*"abc"], ["other"])
    missed = missed_by_all(alike)
    assert missed.index.tolist() == [195, 196, 197, 198, 199]
    assert missed.loc[195].tolist() == ["d", [("a", 3)], 1.0]


def test_those_of_which_runs_say_the_same_come_first(tmp_path, make):
    said = [[1, 2, 3, 0], [1, 3, 3, 0], [2, 3, 3, 0]]  # of images of class 0
    for name, classes in zip("abc", said, strict=True):
        probabilities = np.full((4, 4), 0.1, np.float32)
        probabilities[range(4), classes] = 0.7
        Scores(tuple("wxyz"), np.zeros(4, int), probabilities).write(make(name))
    missed = missed_by_all([load_run(tmp_path / name) for name in "abc"])
    assert missed.index.tolist() == [2, 0, 1]
    assert missed.loc[1, "said"] == [("3", 2), ("2", 1)]


def test_a_terminal_shows_names_and_values_whole(make):
    settings = dict.fromkeys(("optimizer", "schedule", "augmentation", "architecture"), "none")
    many = {"schedule": "exponential(0.5)", "augmentation": "crop(2,'reflect'), alternating_flip"}
    runs = make("a-name-of-many-letters", **settings), make("b", **settings | many)
    words = compare_runs(runs).words.reset_index()
    console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    console.print(as_table(tuple(words), words.to_numpy().tolist(), 40))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    shown = "\n".join(lines)
    for value in ("a-name-of-many-letters", "exponential(0.5)", "crop(2,'reflect'),", "75.0%"):
        assert value in shown


def test_runs_of_one_name_are_told_apart_by_their_folders(make):
    one, two = make("run", folder="a"), make("run", folder="b")
    assert compare_runs([one, two]).table.index.tolist() == [str(one), str(two)]


def test_too_few_runs_or_one_twice_are_one_line(make, refused, tmp_path):
    one = make("one")
    for runs, words in [
        ([], "two runs or more, not 0"),
        ([one], "two runs or more, not 1"),
        (str(one), "two runs or more, not 1"),
        ([one, one / ".." / "one"], "one is given twice"),
        ([one, tmp_path / "none"], "none is not there"),
    ]:
        with refused(words):
            compare_runs(runs)
