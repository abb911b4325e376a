import json

import pytest
from bs4 import BeautifulSoup

from cifar_utils.record import RunRecord
from cifar_utils.reports.site import build_index


@pytest.fixture
def add_run(tmp_path):
    def add(name, *, dataset="digits", top1=0.5, classes="abcdef", page=True, **facts):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        interval = [top1 - 0.01, top1 + 0.01]
        test = {"top1": top1, "top1_interval": interval, "top5": 0.991, "top5_interval": interval}
        RunRecord(
            run=name,
            notebook="01_tiny",
            parameters={},
            dataset={"name": dataset},
            model={"architecture": "tiny", "parameters": 15636},
            environment={},
            seconds={"total": 65.0},
            history=[],
            best_epoch=1,
            scores={"test": test | {"per_class": dict.fromkeys(classes, 0.5)}},
        ).write(folder)
        if page:
            (folder / "report.html").touch()
        identity = {"notebook": "01_tiny", "parameters": {}, "notebook_sha256": ""}
        (folder / "run.json").write_text(json.dumps(identity | facts))
        return folder

    return add


def read(folder):
    page = BeautifulSoup(build_index(folder).read_text(), "html.parser")
    cells = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tr")]
    return page, cells[1:]


DONE = {"outcome": "finished", "ended": "2026-11-21T04:36:00+00:00"}


def test_finished_runs_are_listed_best_first_by_dataset(add_run, tmp_path):
    add_run("worse", top1=0.6, **DONE)
    add_run("deep/er/better", top1=0.867, **DONE)
    add_run("other", dataset="cifar10", top1=0.9, classes="abc", page=False, **DONE)
    page, rows = read(tmp_path)
    assert [row[0] for row in rows] == ["other", "better", "worse"]
    assert rows[1] == [
        "better",
        "86.7% 85.7 to 87.7%",
        "99.1%",
        "digits",
        "tiny",
        "15.6 k",
        "1 min 5 s",
        "01_tiny",
        "2026-11-21",
    ]
    assert rows[0][2] == "–"  # top-5 of three classes says nothing
    hrefs = [a["href"] for a in page.find_all("a")]
    assert hrefs == ["deep/er/better/report.html", "worse/report.html"]
    assert all((tmp_path / href).exists() for href in hrefs)
    assert "http" not in str(page).lower().replace("http-equiv", "")


def test_other_runs_say_why(add_run, tmp_path):
    add_run("broken", **DONE).joinpath("record.json").write_text("{")
    add_run("failed", outcome="failed", error="ValueError: <script>alert(1)</script>")
    add_run("stopped").joinpath("record.json").unlink()
    page, rows = read(tmp_path)
    assert rows == []
    assert not page.find("script")
    why = {item.strong.get_text(): item.code.get_text() for item in page.select(".undone li")}
    assert why["failed"] == "ValueError: <script>alert(1)</script>"
    assert "is broken" in why["broken"]
    assert "not finished" in why["stopped"]


def test_a_record_alone_is_a_run_and_hidden_folders_are_none(add_run, tmp_path):
    add_run("alone").joinpath("run.json").unlink()
    add_run("alone/.before/old", **DONE)
    assert [row[0] for row in read(tmp_path)[1]] == ["alone"]


def test_an_empty_folder_has_an_index_too(tmp_path):
    assert "No run yet" in read(tmp_path)[0].get_text()
