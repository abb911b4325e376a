import json
import re

import pytest
from bs4 import BeautifulSoup

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
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tr")]
    return page, cells[1:]


def test_finished_runs_are_listed_best_first_by_dataset(add_run, tmp_path):
    add_run("worse", top1=0.6)
    add_run("deep/er/better", top1=0.867)
    add_run("other", dataset="cifar10", architecture="resnet20", top1=0.9, page=False)
    page, rows = read(tmp_path)
    assert [row[0] for row in rows] == ["other", "better", "worse"]
    assert rows[1] == [
        "better",
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
    assert rows[0][2] == "91.25% He et al."
    hrefs = [a["href"] for a in page.select("tbody a")]
    assert hrefs == ["deep/er/better/report.html", "worse/report.html"]
    assert all((tmp_path / href).exists() for href in hrefs)


def test_no_page_of_a_site_names_another_host(add_run, tmp_path):
    add_run("one")
    build_index(tmp_path)
    for page in ("index.html", "curves.html"):
        text = (tmp_path / page).read_text().replace("http-equiv", "")
        namespaces = re.compile(r' xmlns(:xlink)?="http://www.w3.org/[\w/]+"')
        assert "http" not in namespaces.sub("", text)
        assert "default-src 'none'" in text


def test_other_runs_say_why(add_run, tmp_path):
    add_run("broken").joinpath("record.json").write_text("{")
    add_run("failed", outcome="failed", error="ValueError: <script>alert(1)</script>")
    add_run("stopped", started="2026").joinpath("record.json").unlink()
    add_run("unread").joinpath("run.json").write_text("[]")
    page, rows = read(tmp_path)
    assert rows == []
    assert len(page.find_all("script")) == 1
    why = {item.strong.get_text(): item.code.get_text() for item in page.select(".undone li")}
    assert why["failed"] == "ValueError: <script>alert(1)</script>"
    assert "is broken" in why["broken"]
    assert "is broken" in why["unread"]
    assert "not finished" in why["stopped"]


def test_a_record_alone_is_a_run_and_hidden_folders_are_none(add_run, tmp_path):
    add_run("alone").joinpath("run.json").unlink()
    add_run("alone/.before/old")
    assert [row[0] for row in read(tmp_path)[1]] == ["alone"]


def test_an_empty_folder_has_an_index_too(tmp_path):
    assert "No run yet" in read(tmp_path)[0].get_text()
    assert "No run has left a curve" in (tmp_path / "curves.html").read_text()


def test_a_record_that_says_little_is_listed(add_run, tmp_path):
    file = add_run("bare") / "record.json"
    bare = json.loads(file.read_text()) | {"model": {}, "scores": {}, "seconds": {}, "history": []}
    file.write_text(json.dumps(bare | {"dataset": {}}))
    assert read(tmp_path)[1] == [["bare", *"––", "", "", "01_tiny", *"–––", "2026-11-21"]]


def test_seeds_of_one_configuration_are_one_row_that_unfolds(add_run, tmp_path):
    for seed, top1 in ((0, 0.6), (1, 0.62)):
        add_run(f"r-s{seed}", parameters={"seed": seed}, top1=top1, train=60.0 + seed)
    add_run("other", parameters={"seed": 0, "epochs": 9}, top1=0.615)
    page, rows = read(tmp_path)
    assert "3 finished runs" in page.header.get_text()
    assert [row[1] for row in rows] == ["61.50% 60.5 to 62.5%", "61.00% ± 1.41, n = 2"]
    assert rows[1][8].startswith("1 min 0 s")
    (folded,) = page.select("tbody details")
    assert folded.summary.get_text() == "r"
    assert [a["href"] for a in folded.find_all("a")] == ["r-s0/report.html", "r-s1/report.html"]
    assert [small.get_text() for small in folded.find_all("small")] == ["60.00%", "62.00%"]


def test_notes_stand_below_the_runs_that_they_are_of(add_run, tmp_path):
    add_run("one-s0")
    (tmp_path / "notes.yaml").write_text("one-s*: It was <b>chosen</b> late.\n")
    page, _ = read(tmp_path)
    assert page.select_one(".note").get_text() == "one-s*: It was <b>chosen</b> late."


def test_figures_say_what_they_show(add_run, tmp_path):
    add_run("quick", top1=0.6, train=30.0)
    add_run("slow", top1=0.9, train=3000.0, validation=(0.5, 0.9))
    page, _ = read(tmp_path)
    cost = page.select_one("figure img")["alt"]
    assert "By training time, the best for their cost: 60.0% at 30 s (quick), 90.0% at 50" in cost
    assert "By FLOPs an image, the best for their cost: 90.0% at 1 M (slow)." in cost
    curves = soup(tmp_path / "curves.html")
    assert "Best epoch of each: slow 90.0%, quick 50.0%." in curves.img["alt"]


def test_of_many_curves_the_best_are_drawn_and_that_is_said(add_run, tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_utils.reporting.drawings.MOST_CURVES", 1)
    add_run("worse", top1=0.6)
    add_run("better", top1=0.7)
    build_index(tmp_path)
    curves = soup(tmp_path / "curves.html")
    assert "better" in curves.img["alt"]
    assert "worse" not in curves.img["alt"]
    assert curves.figcaption.get_text().startswith("Of 2 runs the 1 best on test images.")


def test_reported_curves_lie_behind_ours_and_say_that_they_are_of_training(add_run, tmp_path):
    add_run("ours", dataset="cifar100")
    build_index(tmp_path)
    curves = soup(tmp_path / "curves.html")
    told = "Grey: report D: preact, top-5 in training, 93.3% after 100 epochs."
    assert told in curves.figcaption.get_text()


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


def test_pages_are_exported_again_only_where_something_changed(add_run, report_cells, tmp_path):
    folder = add_run("one", *report_cells())
    add_run("two", *report_cells())
    told = []
    build_index(tmp_path, told.append)
    assert [line.split(": ")[0] for line in told] == ["[1/2] one", "[2/2] two"]
    before = (folder / "report.html").stat().st_mtime_ns
    told.clear()
    build_index(tmp_path, told.append)
    assert told == []
    assert (folder / "report.html").stat().st_mtime_ns == before
    page = folder / "report.html"
    page.write_text(page.read_text().replace("cifar-reports ", "cifar-reports of old ", 1))
    (tmp_path / "two" / "record.json").write_text("{")
    build_index(tmp_path, told.append)
    assert [line.split(": ")[0] for line in told] == ["[1/2] one", "[2/2] two"]


def test_a_notebook_that_cannot_be_exported_leaves_the_site_whole(add_run, tmp_path):
    (add_run("cut", page=True) / "notebook.ipynb").write_text("{")
    told = []
    index = build_index(tmp_path, told.append)
    assert "can't be read as a notebook" in told[-1]
    assert soup(index).select_one("tbody a")["href"] == "cut/report.html"


def test_names_from_records_show_as_text(add_run, tmp_path):
    evil = "<script>alert(1)</script>\"'"
    for value, top1 in ((evil, 0.5), ("b", 0.6)):
        name = f"run-{top1} <b> $x$"
        add_run(name, dataset=evil, architecture=evil, top1=top1, parameters={evil: value})
    page, rows = read(tmp_path)
    assert rows[0][3:5] == [evil, evil]
    for each in (page, soup(tmp_path / "curves.html")):
        assert len(each.find_all("script")) == 1
        assert not each.main.find_all("b")
        assert "<b> $x$" in each.main.get_text() + each.main.img["alt"]
