"""Tables written from records: what is a difference, and what is not stated."""

import json

import pytest

from cifar_utils.reporting.results import (
    MARKS,
    render_results,
    render_table,
    write_results,
)


@pytest.fixture
def published(tmp_path):
    return tmp_path / "reports/published"


@pytest.fixture
def add(published, write_run):
    """Publish a run, of 4,000 validation images, that was trained by a commit, or by none known."""

    def add(name, accuracy=0.5, *, seed=0, commit="a1", given=None, **facts):
        given = {"seed": seed, "epochs": 2} | (given or {})
        facts = {"validation": (0.1, accuracy)} | facts
        stretch = {"first": 1, "last": 2, "git": commit, "processor": "a CPU"}
        by = [stretch] if commit else []
        data = {"validation": 4000}
        write_run(published / name, parameters=given, data=data, trained_by=by, **facts)

    return add


def rows(text, head):
    """The tables' rows of cells, of those tables that have a column."""
    tables, found = text.split("\n\n"), []
    for table in tables:
        lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
        if lines and head in lines[0]:
            found += [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return found


def test_a_row_of_figures_says_what_the_records_say(add, published, tmp_path):
    for seed, top1 in ((0, 0.6), (1, 0.62)):
        add(f"r-s{seed}", seed=seed, top1=top1, train=60.0 + seed, commit="abcdef0123+changes")
    searched = {
        "architecture": "tiny",
        "unsure": 0.25,
    }  # what was tested has a value that the search found
    add("alone", top1=0.5, commit=None, architecture="tiny(width=2)", given=searched)
    seeds, alone = rows(render_results(published, tmp_path), "top-5")
    assert seeds["run"] == (
        "r, seeds [0](reports/published/r-s0/record.json), [1](reports/published/r-s1/record.json)"
    )
    assert seeds["top-1"] == "61.00% ± 1.41, n = 2"
    assert seeds["95% interval"] == "48.3 to 73.7%"  # 12.706 · 1.41 / √2
    assert (seeds["views"], alone["views"]) == ("1 view", "6 views of 25%")
    assert seeds["training"] == "1 min 0 s to 1 min 1 s"
    assert seeds["commit"] == "abcdef01 + changes"
    assert alone["run"] == "[alone](reports/published/alone/record.json)"
    assert (alone["network"], alone["parameters"]) == ("`tiny(width=2)`", "15.6 k")
    assert (alone["top-1"], alone["95% interval"]) == ("50.00%", "49.0 to 51.0%")
    assert (alone["top-5"], alone["training"]) == ("99.10%", "1 min 0 s")
    assert (alone["epochs"], alone["reported"]) == ("2 of 900 images", "–")
    assert (seeds["processor"], alone["processor"]) == ("a CPU", "unknown")
    assert alone["commit"] == "unknown"


def test_a_note_stands_below_its_runs_only(add, published, tmp_path):
    add("one", dataset="cifar10")
    add("two")
    (published / "notes.yaml").write_text("one*: Seen before.\nthree: No such run.\n")
    text = render_results(published, tmp_path)
    assert text.count("`one*`: Seen before.") == 1
    assert text.index("Seen before.") < text.index("## digits")
    assert "No such run." not in text


def test_a_difference_is_that_of_pairs_of_a_seed_and_a_commit(add, published, tmp_path):
    for seed, commit, ours, theirs in ((0, "a1", 0.50, 0.52), (1, "b2", 0.60, 0.63)):
        add(f"all-s{seed}", ours, seed=seed, commit=commit, given={"flip": True, "rate": 1})
        add(f"none-s{seed}", theirs, seed=seed, commit=commit, given={"flip": False, "rate": 1})
    add("fast", 0.4, commit="c3", given={"flip": True, "rate": 2})
    reference, none, fast = rows(render_results(published, tmp_path), "differs in")
    assert reference["differs in"] == "– (the reference)"
    assert reference["validation top-1"] == "55.00% ± 7.07, n = 2"
    assert none["differs in"] == "flip `False`"
    # Differences of 2 and 3 points: 2.5 ± 12.706 · 0.7071 / √2, by one degree of freedom.
    assert none["difference (points)"] == "+2.50 (-3.85 to +8.85), n = 2"
    assert fast["difference (points)"] == "–"  # of another commit


@pytest.mark.parametrize(
    "other",
    [
        {"commit": None},  # of an unknown commit
        {"commit": "unknown"},
        {"commit": "a1+changes"},  # of which there may be several
        {"later": 2},  # of other seeds
    ],
)
def test_no_difference_is_stated_where_more_than_one_thing_may_differ(
    add, published, tmp_path, other
):
    for seed in (0, 1):
        commit, later = other.get("commit", "a1"), other.get("later", 0)
        add(f"all-{seed}", 0.5, seed=seed, commit=commit, given={"flip": True})
        add(f"none-{seed}", 0.6, seed=seed + later, commit=commit, given={"flip": False})
    compared = rows(render_results(published, tmp_path), "differs in")
    assert [row["difference (points)"] for row in compared] == ["–", "–"]


def test_one_seed_of_each_gets_intervals_over_images_and_no_difference(add, published, tmp_path):
    add("a", 0.5, given={"schedule": "constant"})
    add("b", 0.6, given={"schedule": "cosine(0.1)"})
    first, second = rows(render_results(published, tmp_path), "differs in")
    assert first["validation top-1"] == "50.00% (48.5 to 51.5%)"
    assert second["differs in"] == "schedule `cosine(0.1)`"


def test_a_repeated_run_is_no_second_reference(add, published, tmp_path):
    add("a", given={"schedule": "constant"})
    add("again", given={"schedule": "constant"})
    assert rows(render_results(published, tmp_path), "differs in") == []
    add("b", given={"schedule": "cosine(0.1)"})
    told = [row["differs in"] for row in rows(render_results(published, tmp_path), "differs in")]
    assert sum("the reference)" in one for one in told) == 1
    assert len(told) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"validation": (0.1, 0.4, 0.5), "given": {"fine_tune_epochs": 1}},  # another budget
        {"given": {"seed": 1}},
        {"given": {"architecture": "other"}, "architecture": "other"},
    ],
)
def test_runs_of_another_budget_network_or_seed_alone_are_no_comparison(
    add, published, tmp_path, other
):
    add("a")
    add("b", **other)
    assert rows(render_results(published, tmp_path), "differs in") == []


def trial(name, *accuracies):
    history = [
        {"epoch": e, "accuracy": share, "val_accuracy": share}
        for e, share in enumerate(accuracies, 1)
    ]
    best = max(accuracies, default=None)
    return {"name": name, "val_accuracy": best, "epochs": len(accuracies), "history": history}


def test_trials_stand_with_their_images_and_the_steps_to_a_target(add, published, tmp_path):
    trials = [trial("flip", 0.3, 0.5), trial("none", 0.2, 0.3), trial("bad")]
    add("race", trials=trials, given={"target_accuracy": 0.4, "batch_size": 300})
    text = render_results(published, tmp_path)
    assert "Seed 0, 4,000 validation images." in text
    flip, none, bad = rows(text, "trial")
    assert (flip["steps to 40%"], none["steps to 40%"]) == ("6", "–")
    assert none["validation top-1"] == "30.00% (28.6 to 31.4%)"
    assert (bad["validation top-1"], bad["steps to 40%"]) == ("diverged", "–")


def test_seeds_of_a_trial_share_a_row(add, published, tmp_path):
    trials = [
        trial(name, *shares) | {"seed": seed}
        for seed, name, *shares in (
            *((3, "flip", 0.3, 0.3, 0.5), (3, "none", 0.4, 0.3), (3, "bad", 0.3)),
            *((4, "flip", 0.4, 0.5, 0.6), (4, "none", 0.1, 0.3), (4, "bad")),
            *((3, "late", 0.3, 0.4), (4, "late", 0.3)),
        )
    ]
    trials[-1]["diverged"] = True
    add("race", trials=trials, given={"target_accuracy": 0.4, "batch_size": 300})
    text = render_results(published, tmp_path)
    assert "Seeds 3 and 4, 4,000 validation images." in text
    flip, none, bad, late = rows(text, "trial")
    assert late["validation top-1"] == "diverged"
    assert flip["validation top-1"] == "55.00% ± 7.07, n = 2"
    assert flip["after the last epoch"] == flip["validation top-1"]
    assert (flip["steps to 40%"], none["steps to 40%"]) == ("6", "–")
    assert (bad["validation top-1"], bad["epochs"]) == ("diverged", "1, 0")


@pytest.fixture
def project(project, tmp_path, published):
    """A project of two notebooks and a README."""
    published.mkdir(parents=True)
    for name, question in (("01_tiny", "How **far**? Far."), ("02_none", "Why?")):
        cells = [{"cell_type": "markdown", "source": [f"# A title\n\n{question}"]}]
        (tmp_path / f"notebooks/{name}.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "README.md").write_text(f"Before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    return tmp_path


def test_the_readme_has_a_row_for_each_notebook(add, project, published):
    add("one", top1=0.6)
    first, second = rows(render_table(published, project), "question")
    assert first["notebook"] == "[01_tiny](notebooks/01_tiny.ipynb)"
    assert first["question"] == "How far?"
    assert first["answer"].startswith("[one](reports/published/one/record.json): ")
    assert "60.0% of 1,000 test images" in first["answer"]
    add("other", dataset="zoo")
    assert rows(render_table(published, project), "question")[0] == first
    assert second["answer"] == "no published run yet"


def test_the_answer_is_that_of_the_most_seeds_whether_of_runs_or_of_trials(add, project, published):
    add("better", 0.9, trials=[trial("a", 0.9), trial("b", 0.8)])
    pairs = [
        trial(name, share) | {"seed": seed}
        for seed in (0, 1)
        for name, share in (("a", 0.7), ("b", 0.6))
    ]
    add("seeds", 0.7, trials=pairs)
    first, _ = rows(render_table(published, project), "question")
    assert first["answer"].startswith("[seeds](")


def test_a_seed_without_test_figures_has_no_part_in_the_answer(add, project, published):
    for seed, top1 in enumerate((0.9, 0.5, 0.7)):
        add(f"r-s{seed}", top1=top1, seed=seed)
    told = ["60.00% of 1,000", "mean of 2 seeds, standard deviation 14.14 points"]
    for seed, words in enumerate((told, ["70.0% of 1,000", "one seed"], ["no published run yet"])):
        file = published / f"r-s{seed}" / "record.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"scores": {}}))
        first, _ = rows(render_table(published, project), "question")
        assert all(each in first["answer"] for each in words)


def test_the_command_writes_both_and_nothing_else_of_the_readme(add, project):
    add("one")
    written = write_results(project)
    assert [file.name for file in written] == ["RESULTS.md", "README.md"]
    readme = (project / "README.md").read_text()
    assert readme.startswith(f"Before\n{MARKS[0]}\n| notebook |")
    assert readme.endswith(f"|\n{MARKS[1]}\nafter\n")
    before = [file.read_text() for file in written]
    write_results(project)
    assert [file.read_text() for file in written] == before


@pytest.mark.parametrize("text", ["", MARKS[0], MARKS[1] + MARKS[0]])
def test_a_readme_without_a_place_for_the_table_is_refused(text, project, refused):
    (project / "README.md").write_text(text)
    with refused("put both where the table goes"):
        write_results(project)
    assert not (project / "RESULTS.md").exists()


def test_no_run_is_no_table(project, published):
    assert "## Comparisons" not in render_results(published, project)
    assert render_table(published, project).count("no published run yet") == 2
