import io
import json

import pandas as pd
import pytest

from cifar_utils.runs.compare import compare_means, compare_runs
from cifar_utils.runs.folder import Run, find_runs
from cifar_utils.runs.leaderboard import configurations, leading_notes, read_notes, tabulate
from cifar_utils.text import spread

BY = {"first": 1, "last": 1, "git": "a1", "processor": "a CPU", "precision": "float32", "cores": 2}


@pytest.fixture
def found(tmp_path, make_record):
    """A finished run that was trained by stretches of epochs."""

    def found(
        name, top1=0.9, *, dataset="cifar10", architecture="resnet20", by=(BY,), seed=0,
        notebook="02_resnet", outcome="finished", size=274042, **parameters,
    ):  # fmt: skip
        folder = tmp_path / name
        folder.mkdir(parents=True)
        make_record(
            notebook=notebook,
            parameters={"seed": seed, "architecture": architecture} | parameters,
            dataset={"name": dataset, "train": 900},
            model={"architecture": architecture, "parameters": size, "flops": 81626368},
            seconds={"train": 60.0, "total": 65.0},
            history=[{"epoch": e + 1, "loss": 1.0} for e in range(parameters.get("epochs", 1))],
            scores={"test": {"top1": top1, "top1_interval": [top1 - 0.01, top1 + 0.01]}},
            trained_by=list(by),
        ).write(folder)
        ended = {"outcome": outcome, "ended": "2026-11-21T04:36:00+00:00"}
        (folder / "run.json").write_text(json.dumps(ended))
        return Run(folder)

    return found


def test_runs_behind_links_are_found_once(found, tmp_path):
    folder = found("run", 0.6).folder
    disk, site = tmp_path / "disk", tmp_path / "site"
    disk.mkdir()
    folder.rename(disk / "run")
    site.mkdir()
    for name in ("a", "b"):
        (site / name).symlink_to(disk)
    (disk / "back").symlink_to(site)
    (site / ".hidden").symlink_to(disk)
    assert [run.folder for run in find_runs(site)] == [site / "a" / "run"]


@pytest.mark.parametrize(
    ("dataset", "architecture", "size", "reported", "by"),
    [
        # On test images, though there are more of validation images.
        ("cifar10", "fan", 87_316_426, 0.76, "report B, 30 epochs"),
        ("cifar10", "fan(width=0.5)", 22_000_000, None, ""),
        ("cifar10", "report_a", 93_036, 0.95, "report A, split unclear"),
        ("cifar100", "preact", 1_585_828, None, ""),  # top-5 alone
    ],
)
def test_the_reported_figure_is_the_top_1_on_test_images(
    found, dataset, architecture, size, reported, by
):
    run = found("run", dataset=dataset, architecture=architecture, size=size)
    (row,) = tabulate([run]).to_dict("records")
    assert row["reported_by"] == by
    assert row["reported"] == reported or (reported is None and pd.isna(row["reported"]))


def change(run, **facts):
    """Change a run's record; return a run that has not been read."""
    file = run.folder / "record.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return Run(run.folder)


def test_seeds_of_one_configuration_are_together_by_seed(found):
    network = "resnet20(dropout=0.1)"
    seeds = [
        found(f"r-s{seed}", top1, seed=seed, architecture=network)
        for seed, top1 in ((4294967295, 0.9), (999, 0.8), (1, 0.7))
    ]
    (group,) = configurations(seeds)
    assert (group.name, group.network) == ("r", network)
    assert [run.name for run in group.runs] == ["r-s1", "r-s999", "r-s4294967295"]
    assert group.mean("top1") == pytest.approx(0.8)
    assert spread(group.board["top1"].tolist()) == "80.00% ± 10.00, n = 3"
    low, high = group.interval  # Student's, 2 degrees of freedom: 4.303 · 0.1 / √3
    assert (low, high) == pytest.approx((0.8 - 0.24842, 1.0), abs=1e-4)


def test_runs_of_one_folder_stay_together_where_another_repeats_their_seeds(found):
    shares = {"a": (0.90, 0.80), "b": (0.81, 0.91)}
    runs = [
        found(f"{folder}/r-s{seed}", top1, seed=seed)
        for folder, both in shares.items()
        for seed, top1 in enumerate(both)
    ]
    groups = configurations(sorted(runs, key=lambda run: -run.record.scores["test"]["top1"]))
    assert [group.mean("top1") for group in groups] == pytest.approx([0.86, 0.85])


def test_seeds_that_kept_other_epochs_are_told_from_the_least_to_the_most(found):
    history = [{"epoch": epoch} for epoch in range(1, 10)]
    runs = [
        change(found("r-s0-abc123"), history=history, best_epoch=9),
        change(found("r-s1-abcdef", seed=1), history=history[:8], best_epoch=7),
    ]
    (group,) = configurations(runs)
    assert "after 7 to 9 of 8 to 9 epochs of 900 images (mean of 2 seeds" in group.answer
    assert group.name == "r-abc123"


def test_the_interval_of_seeds_that_all_came_to_the_same_is_called_one_over_images(found):
    (group,) = configurations([found(f"r-s{seed}", 0.8, seed=seed) for seed in (0, 1)])
    assert "standard deviation 0.00 points, 95% interval" in group.answer
    assert "% over images" in group.answer
    (group,) = configurations([found(f"q-s{seed}", 0.8 + seed / 10, seed=seed) for seed in (0, 1)])
    assert "over images" not in group.answer


def test_a_run_that_compares_networks_stands_alone_with_its_comparison(found):
    trials = [
        {"name": name, "val_accuracy": share, "epochs": 2, "values": {}}
        for name, share in (("wide", 0.9), ("deep", 0.5))
    ]
    runs = [found("r-s0"), found("r-s1", seed=1)]
    dataset = runs[0].record.dataset | {"validation": 5000}
    groups = configurations([change(run, dataset=dataset, trials=trials) for run in runs])
    assert [len(group.runs) for group in groups] == [1, 1]
    assert all("“wide” is the best of 2 trainings" in group.answer for group in groups)


def test_a_parameter_that_is_none_is_as_one_that_is_not_there(found):
    (group,) = configurations([found("old"), found("new", seed=1, patience=None)])
    assert group.settings == {"architecture": "resnet20"}


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 2},
        {"notebook": "01_vgg_like"},
        {"seed": 0},  # the same run again is no second seed
    ],
)
def test_what_differs_in_more_than_the_seed_is_apart(found, other):
    runs = [found("one"), found("two", **{"seed": 1} | other)]
    assert [len(group.runs) for group in configurations(runs)] == [1, 1]


def test_seeds_that_do_not_differ_have_the_interval_of_one(found):
    runs = [found(f"r-s{seed}", seed=seed) for seed in (0, 1)]
    runs += [found(f"q-s{seed}", 0.8, seed=seed, epochs=2) for seed in (0, 1)]
    groups = configurations(runs)
    assert groups[0].interval == pytest.approx((0.89, 0.91))
    assert compare_means(*groups) is None
    other = configurations(
        [*runs[:2], found("o-s0", 0.7, epochs=3), found("o-s1", 0.72, seed=1, epochs=3)]
    )
    assert compare_means(*other) == pytest.approx((2, 0.19, 0.0629, 0.3171), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "fact", "contents"),
    [
        ("architecture", "source", ("conv(x)", "conv(x)", "dense(x)")),
        ("weights", "weights_sha256", (64 * "1", 64 * "1", 64 * "2")),
    ],
)
def test_networks_and_weights_of_one_name_are_told_apart_by_their_content(
    found, name, fact, contents
):
    runs = [found(run, **{name: "mine"}, seed=seed) for seed, run in enumerate("abc")]
    runs = [
        change(run, model=run.record.model | {fact: content})
        for run, content in zip(runs, contents, strict=True)
    ]
    one, other = configurations(runs)
    assert ([run.name for run in one.runs], other.name) == (["a", "b"], "c")
    assert [*other.differing(one)] == [name]
    assert name in compare_runs([runs[0], runs[2]]).table
    assert name not in compare_runs(runs[:2]).table


@pytest.mark.parametrize(
    "by",
    [
        [BY | {"git": "b2"}],
        [BY | {"processor": "another"}],
        [],
        [BY, BY | {"git": "b2", "first": 2, "last": 2}],
    ],
)
def test_seeds_of_several_commits_and_machines_are_together_and_tell_of_each(found, by):
    (group,) = configurations([found("one"), found("two", seed=1, by=by, output="elsewhere")])
    assert len(group.runs) == 2
    assert len(set(group.board["commit"] + group.board["processor"])) == 2


def test_configurations_come_best_mean_first_whatever_their_best_seed(found):
    lucky = [found("lucky-s0", 0.95), found("lucky-s1", 0.65, seed=1)]
    steady = [found("steady-s0", 0.9, epochs=9), found("steady-s1", 0.89, seed=1, epochs=9)]
    assert [group.name for group in configurations(lucky + steady)] == ["steady", "lucky"]


def test_notes_are_those_of_runs_that_are_there(found, refused, tmp_path):
    run = found("a-s0")
    assert read_notes(tmp_path, [run]) == {}
    (tmp_path / "notes.yaml").write_text("b, a-s*: A note.\nb: Another.\n")
    assert read_notes(tmp_path, [run]) == {"b, a-s*": "A note."}
    (group,) = configurations([run])
    assert leading_notes(read_notes(tmp_path, [run]), group) == ""
    (tmp_path / "notes.yaml").write_text("a-s*: >-\n  Few epochs,\n  one seed.\n\n  More.\n")
    notes = read_notes(tmp_path, [run]) | {"b": "Of another run.\nMore."}
    assert leading_notes(notes, group) == "Few epochs, one seed."
    (tmp_path / "notes.yaml").write_text("# a-s0: none yet\n")
    assert read_notes(tmp_path, [run]) == {}
    for text in ("a: b: c", "a note", "0: a note", "a-s0:", "a-s0: 3"):
        (tmp_path / "notes.yaml").write_text(text)
        with refused("notes.yaml has no lines"):
            read_notes(tmp_path, [run])


def test_the_command_prints_a_table(found, cli):
    found("reports/published/one", 0.5)
    found("reports/published/a", 0.4)
    found("reports/published/two", dataset="digits", architecture="tiny")
    found("reports/published/failed", outcome="failed")
    (found("reports/published/three").folder / "record.json").unlink()
    heads, one, worse, two = cli("leaderboard")[1].splitlines()
    assert heads.split()[:4] == ["run", "dataset", "architecture", "top-1"]
    assert worse.startswith("a ")
    assert one.split()[:7] == ["one", "cifar10", "resnet20", "50.0%", "49.0", "to", "51.0%"]
    assert "1 min 0 s" in one
    assert two.split()[7:9] == ["–", "274"]
    assert "two" not in cli("leaderboard", "--dataset", "cifar10")[1]
    assert "did you mean 'cifar10'?" in cli("leaderboard", "--dataset", "cifar1")[2]


def test_the_command_prints_csv(found, cli):
    by = [BY, BY | {"first": 2, "git": "b2", "accelerators": ["a GPU"]}, {"first": 3, "last": 3}]
    found("runs/one", 0.5, seed=3, by=by)
    _, out, _ = cli("leaderboard", "runs", "--csv")
    (row,) = pd.read_csv(io.StringIO(out)).to_dict("records")
    assert row["processor"] == "a CPU; a GPU; unknown"
    assert (row["precision"], row["commit"]) == ("float32; unknown", "a1; b2; unknown")
    assert (row["run"], row["top1"], row["top1_low"], row["seed"]) == ("one", 0.5, 0.49, 3)
