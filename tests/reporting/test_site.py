import json
import os
from unittest.mock import Mock

import pytest
from bs4 import BeautifulSoup

from cifar_utils.data import load_dataset
from cifar_utils.reporting.site import build_index


@pytest.fixture
def add_run(tmp_path, write_run):
    def add(name, *cells, page=True, **facts):
        folder = write_run(tmp_path / name, *cells, **facts)
        if page and not cells:
            (folder / "report.html").touch()
        return folder

    return add


def soup(file):
    return BeautifulSoup(file.read_text(), "html.parser")


def read(folder):
    page = soup(build_index(folder))
    for told in page.select(".runs .answer"):
        told.extract()
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tr")]
    return page, cells[1:]


def test_finished_runs_are_listed_best_first_by_dataset(add_run, tmp_path):
    add_run("worse", top1=0.6, validation=(0.3, 0.4, 0.5))
    add_run("deep/er/better", top1=0.867)
    add_run("other", dataset="cifar10", architecture="resnet20", top1=0.9, page=False)
    page, rows = read(tmp_path)
    assert [row[0].strip() for row in rows] == ["other", "better", "worse"]
    assert rows[1][1:] == [
        "86.70% 85.7 to 87.7%",
        "–",
        "digits",
        "tiny",
        "01_tiny",
        "15.6 k",
        "1 M",
        "1 min 0 s 2 epochs, 900 images",
        "2026-11-21",
    ]
    assert rows[0][2] == "92.60% chenyaofo, pytorch-cifar-models, 200 epochs"
    hrefs = [a["href"] for a in page.select("tbody a")]
    assert hrefs == ["deep/er/better/report.html", "worse/report.html"]
    assert all((tmp_path / href).exists() for href in hrefs)


def test_the_index_names_no_other_host(add_run, tmp_path):
    add_run("one")
    text = build_index(tmp_path).read_text()
    text = text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "http" not in text
    assert "default-src 'none'" in BeautifulSoup(text, "html.parser").find_all("meta")[2]["content"]


def test_other_runs_say_why(add_run, tmp_path):
    add_run("broken").joinpath("record.json").write_text("{")
    add_run("failed", outcome="failed", error="ValueError: <script>alert(1)</script>")
    add_run("stopped", started="2026").joinpath("record.json").unlink()
    add_run("unread").joinpath("run.json").write_text("[]")
    page, rows = read(tmp_path)
    assert rows == []
    assert not any("alert" in script.get_text() for script in page.find_all("script"))
    why = {item.strong.get_text(): item.code.get_text() for item in page.select(".undone li")}
    assert why["failed"] == "ValueError: <script>alert(1)</script>"
    assert "is broken" in why["broken"]
    assert "is broken" in why["unread"]
    assert "not finished" in why["stopped"]


def test_a_run_s_answer_is_folded_below_its_name(add_run, tmp_path):
    add_run("mine", architecture="resnet20")
    (told,) = soup(build_index(tmp_path)).select(".runs tbody th .answer")
    assert told.get_text().startswith("answerresnet20 classifies 50.0% of 1,000 test images")


def test_a_record_alone_is_a_run_and_hidden_folders_are_none(add_run, tmp_path):
    add_run("alone").joinpath("run.json").unlink()
    add_run("alone/.before/old")
    assert [row[0].strip() for row in read(tmp_path)[1]] == ["alone"]


def test_seeds_of_one_configuration_are_one_row_that_unfolds(add_run, tmp_path):
    for seed, top1 in ((0, 0.6), (1, 0.62)):
        add_run(f"r-s{seed}", parameters={"seed": seed}, top1=top1, train=60.0 + seed)
    page, ((_, accuracy, *_),) = read(tmp_path)
    assert "2 finished runs" in page.header.get_text()
    assert accuracy == "61.00% ± 1.41, n = 2"
    (folded,) = page.select("tbody details")
    assert folded.summary.get_text() == "r"
    assert [a["href"] for a in folded.find_all("a")] == ["r-s0/report.html", "r-s1/report.html"]
    assert [small.get_text() for small in folded.find_all("small")] == ["60.00%", "62.00%"]


def test_accuracies_by_several_views_say_so(add_run, tmp_path):
    add_run("one", top1=0.8)
    add_run("six", top1=0.9, parameters={"unsure": 0.4})
    told = sorted(accuracy.partition("; ")[2] for _, accuracy, *_ in read(tmp_path)[1])
    assert told == ["", "6 views of 40%"]


def test_ablations_stand_below_what_they_ablate_and_say_how_they_differ(add_run, tmp_path):
    given = {"epochs": 2, "flip": True, "rate": 1}
    add_run("without", top1=0.9, parameters=given | {"flip": False})
    add_run("all", top1=0.8, parameters=given)
    add_run("slow", top1=0.7, parameters=given | {"rate": 0})
    add_run("longer", top1=0.6, parameters=given, validation=(0.5,) * 3)
    add_run("other", top1=0.5, parameters=given, architecture="vgg19")
    page, _ = read(tmp_path)
    bodies = [[row.a.get_text() for row in body.find_all("tr")] for body in page.select("tbody")]
    assert bodies == [["all", "without", "slow"], ["longer"], ["other"]]
    assert [small.get_text() for small in page.select(".variant th small")] == [
        "flip False",
        "rate 0",
    ]


def test_a_notebook_s_answer_is_that_of_the_most_seeds_for_each_dataset(
    add_run, project, write_notebook
):
    write_notebook("# Why?\n\nHow *far*\ndoes it go? Far.")
    for seed, top1 in ((0, 0.6), (1, 0.62)):
        add_run(f"r-s{seed}", parameters={"seed": seed, "epochs": 2}, top1=top1)
    add_run("longer", top1=0.9, validation=(0.5, 0.6, 0.7), parameters={"epochs": 3})
    add_run("hundred", top1=0.4, dataset="cifar100")
    add_run("elsewhere", notebook="09_mine", top1=0.7)
    page, _ = read(project)
    asked = [term.get_text() for term in page.select(".answers dt")]
    assert asked == ["How far does it go? 01_tiny", "09_mine"]
    hundred, ours, other = (answer.get_text() for answer in page.select(".answers dd"))
    assert "40.0% of 1,000 test images of cifar100" in hundred
    assert ours.startswith("tiny classifies 61.00% of 1,000 test images of digits correctly")
    assert "mean of 2 seeds, standard deviation 1.41 points, 95% interval 48.3 to 73.7%" in ours
    assert "70.0%" in other
    assert len(page.select(".answers dd a")) == 4


def test_a_comparison_answers_first_then_the_most_images_then_the_best_by_validation(
    add_run, tmp_path
):
    def chosen():
        page, _ = read(tmp_path)
        return [link.get_text() for link in page.select(".answers dd a")]

    add_run("good", top1=0.5, validation=(0.3, 0.6), parameters={"rate": 1})
    add_run("lucky", top1=0.9, validation=(0.3, 0.5), parameters={"rate": 2})
    assert chosen() == ["good"]
    add_run("more", top1=0.4, validation=(0.3, 0.4), parameters={"rate": 3}, data={"train": 1000})
    assert chosen() == ["more"]
    trial = {"values": {}, "val_accuracy": 0.5, "best_epoch": 2, "epochs": 2, "parameters": 15636}
    trials = [trial | {"name": name} for name in ("a", "b")]
    images = {"validation": 100}
    add_run("compared", top1=0.3, parameters={"rate": 4}, trials=trials, data=images)
    assert chosen() == ["compared"]
    trials = [trial | {"name": name, "val_accuracy": 0.17} for name in "abc"]
    images = {"validation": 100, "train": 2000}
    add_run("failed", top1=0.17, parameters={"rate": 5}, trials=trials, data=images)
    assert chosen() == ["compared"]


def test_without_validation_images_the_first_by_name_answers_not_the_best_on_test_images(
    add_run, tmp_path
):
    # Without validation images no epoch has a validation accuracy.
    for name, top1, rate in (("worse", 0.8, 1), ("better", 0.7, 2), ("best", 0.9, 3)):
        folder = add_run(name, top1=top1, parameters={"rate": rate}, data={"validation": 0})
        record = json.loads((folder / "record.json").read_text())
        for epoch in record["history"]:
            del epoch["val_accuracy"]
        (folder / "record.json").write_text(json.dumps(record))
    page, _ = read(tmp_path)
    assert [link.get_text() for link in page.select(".answers dd a")] == ["best"]
    (tmp_path / "best").rename(tmp_path / "west")
    page, _ = read(tmp_path)
    assert [link.get_text() for link in page.select(".answers dd a")] == ["better"]


def test_notes_stand_below_the_runs_that_they_are_of(add_run, tmp_path):
    add_run("one-s0")
    (tmp_path / "notes.yaml").write_text("one-s*: It was <b>chosen</b> late.\n")
    page, _ = read(tmp_path)
    assert page.select_one("details > .note").get_text() == "one-s*: It was <b>chosen</b> late."


@pytest.fixture
def digits(add_run, write_predicted):
    """Three runs on the digits: all miss images 3 and 5, and agree on 5 alone."""
    labels = load_dataset("digits", offline=True).test.labels
    for run, missed in enumerate(({3: 1, 5: 1, 7: 1}, {3: 2, 5: 1}, {3: 2, 5: 1, 9: 1})):
        said = [(label + missed.get(i, 0)) % 10 for i, label in enumerate(labels)]
        folder = add_run(f"r{run}", classes="0123456789", parameters={"epochs": run})
        facts = json.loads((folder / "run.json").read_text())
        facts["parameters"] = {"dataset": "digits"}
        (folder / "run.json").write_text(json.dumps(facts))
        write_predicted(folder, labels, said, "0123456789")
    add_run("broken", parameters={"epochs": 9}).joinpath("predicted.npz").write_text("")
    return labels


def test_what_all_runs_miss_is_listed_and_drawn(digits, tmp_path):
    page, _ = read(tmp_path)
    assert "Each of 3 runs gets them wrong." in page.get_text()
    assert "keep their predictions: r0, r1, r2." in page.get_text()
    first, second = page.select(".missed li")
    five, three = (int(digits[i]) for i in (5, 3))
    assert first.get_text(" ", strip=True) == (
        f"{five} image 5 taken for {(five + 1) % 10} (3); 100%"
    )
    assert f"{(three + 2) % 10} (2), {(three + 1) % 10} (1)" in second.get_text()
    assert first.img["src"].startswith("data:image/webp")


def test_images_other_than_those_tested_are_not_drawn(digits, tmp_path, write_predicted):
    for run in range(3):
        write_predicted(tmp_path / f"r{run}", [0, 1, 2], [1, 1, 2])
    told = []
    page = soup(build_index(tmp_path, told.append))
    assert "image 0" in page.select_one(".missed li").get_text()
    assert page.select(".missed img") == []
    assert "test images are not drawn" in told[-1]


def test_pages_lead_to_the_index_and_to_their_neighbours(add_run, report_cells, tmp_path):
    for name, top1 in (("deep/b", 0.8), ("a & b", 0.9), ("c", 0.7)):
        add_run(name, *report_cells(), top1=top1)
    build_index(tmp_path)
    bar = soup(tmp_path / "deep/b/report.html").select_one(".bar nav")
    assert [(a.get_text(), a["href"]) for a in bar.find_all("a")] == [
        ("All runs", "../../index.html"),
        ("← a & b", "../../a%20%26%20b/report.html"),
        ("c →", "../../c/report.html"),
    ]
    first = soup(tmp_path / "a & b/report.html").select_one(".bar nav")
    assert [a.get("rel") for a in first.find_all("a")] == [None, ["next"]]


def test_pages_of_a_site_below_stay_as_they_are(add_run, report_cells, tmp_path):
    for name in ("mine", "published/one", "published/two"):
        add_run(name, *report_cells())
    build_index(tmp_path / "published")
    pages = [tmp_path / f"published/{name}/report.html" for name in ("one", "two")]
    before = [page.read_bytes() for page in pages]
    page, _ = read(tmp_path)
    assert [page.read_bytes() for page in pages] == before
    assert "published/one/report.html" in [a["href"] for a in page.select("tbody a")]


def test_pages_are_exported_again_only_where_something_changed(add_run, report_cells, tmp_path):
    folder = add_run("one", *report_cells())
    add_run("two", *report_cells())
    told = []
    build_index(tmp_path, told.append)
    assert [line.split(": ")[0] for line in told] == ["one", "two"]
    before = (folder / "report.html").stat().st_mtime_ns
    told.clear()
    build_index(tmp_path, told.append)
    assert told == []
    assert (folder / "report.html").stat().st_mtime_ns == before
    page = folder / "report.html"
    page.write_text(page.read_text().replace("cifar-reports ", "cifar-reports of old ", 1))
    (tmp_path / "two" / "record.json").write_text("{")
    build_index(tmp_path, told.append)
    assert [line.split(": ")[0] for line in told] == ["one", "two"]


def test_a_notebook_that_cannot_be_exported_leaves_the_site_whole(add_run, tmp_path):
    (add_run("cut", page=True) / "notebook.ipynb").write_text("{")
    odd = [{"output_type": "display_data", "data": {"image/svg+xml": 5}, "metadata": {}}]
    cell = {"cell_type": "code", "source": "", "execution_count": 1, "metadata": {}, "outputs": odd}
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}
    (add_run("odd", page=True) / "notebook.ipynb").write_text(json.dumps(content))
    (add_run("no file", page=True) / "notebook.ipynb").mkdir()
    told = []
    index = build_index(tmp_path, told.append)
    assert [line.partition(": ")[0] for line in told] == ["cut", "no file", "odd"]
    assert "can't be read as a notebook" in told[0]
    assert "can't be made" in told[-1]
    assert soup(index).select_one("tbody a")["href"] == "cut/report.html"


def test_a_page_that_can_t_be_written_leaves_the_site_whole(
    add_run, report_cells, tmp_path, monkeypatch
):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    add_run("one", *report_cells())
    add_run("theirs")
    for step in ("export_page", "write_links"):
        monkeypatch.setattr(f"cifar_utils.reporting.site.{step}", refuse)
    told = []
    index = soup(build_index(tmp_path, told.append))
    assert [a["href"] for a in index.select("tbody a")] == ["theirs/report.html"]
    assert told[0] == "one: [Errno 13] Permission denied"
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("cifar_utils.reporting.site.export_page", full)
    with pytest.raises(OSError, match="No space"):
        build_index(tmp_path)


def test_other_files_among_the_notebooks_and_odd_names_leave_the_site_whole(
    add_run, project, tmp_path, write_notebook
):
    write_notebook()
    (project / "notebooks" / "Untitled.ipynb").touch()
    add_run(os.fsdecode(b"b\xe9ta"))
    assert soup(build_index(tmp_path)).select_one("tbody a")["href"] == "b%E9ta/report.html"


def test_names_from_records_show_as_text(add_run, tmp_path):
    evil = "<script>alert(1)</script>\"'"
    for value, top1 in ((evil, 0.5), ("b", 0.6)):
        name = f"run-{top1} <b> $x$"
        add_run(name, dataset=evil, architecture=evil, top1=top1, parameters={evil: value})
    page, rows = read(tmp_path)
    assert rows[0][3:5] == [evil, evil]
    assert not page.main.find_all("b")
    assert "<b> $x$" in page.main.get_text()
    runs = json.loads(page.select_one("script#data").get_text())["configurations"]
    assert [run["settings"][evil] for run in runs] == [evil, "b"]


def test_differences_of_means_are_of_the_configuration_and_not_of_its_name(add_run, tmp_path):
    for name, top1 in (("a/x", 0.6), ("b/x", 0.9), ("a/y", 0.7)):
        for seed in (0, 1):
            width = {"width": round(100 * top1)}
            found = top1 * (1 + seed / 100)
            add_run(f"{name}-s{seed}", top1=found, parameters={"seed": seed} | width)
    page, _ = read(tmp_path)
    data = json.loads(page.select_one("script#data").get_text())
    rows, means = data["configurations"], data["means"]
    best, y, x = rows
    assert [row["place"] for row in rows] == [0, 1, 2]
    assert (best["name"], y["name"], x["name"]) == ("x", "y", "x")
    # Each pair once, by the later place and the earlier: pairs, mean difference, its interval.
    assert means["1"]["0"][:2] == [2, -0.201]
    assert means["2"]["1"][:2] == [2, -0.1005]
    assert means.keys() == {"1", "2"}
