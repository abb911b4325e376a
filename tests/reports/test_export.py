import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cifar_utils.parameters import InputError
from cifar_utils.record import RunRecord
from cifar_utils.reports.export import export_page, render_page

FETCHING = re.compile(
    r"<(script|link|img|iframe|source|video|audio|embed|object|image)\b[^>]*"
    r"\s(src|href|srcset|data|poster)\s*=\s*(?![\"']?(data:|#))"
    r"|@import|url\((?!\s*[\"']?(data:|#))",
    re.IGNORECASE,
)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
FIGURE = (
    '<figure class="report-figure"><img alt="Loss falls to 0.2" '
    f'src="data:image/png;base64,{PIXEL}"><figcaption>By epoch.</figcaption></figure>'
)


def result(**data):
    names = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}
    names |= {"png": "image/png", "svg": "image/svg+xml"}
    return new_output("execute_result", {names[key]: value for key, value in data.items()})


def executed(*outputs, source="draw()", **kwargs):
    return new_code_cell(source, outputs=list(outputs), execution_count=1, **kwargs)


def record(**changes):
    facts = {
        "run": "r",
        "notebook": "n",
        "parameters": {},
        "dataset": {"name": "cifar10", "note": "Kept by <somebody>."},
        "model": {"architecture": "cifarnet", "parameters": 2444672, "flops": 1.03e9},
        "environment": {},
        "seconds": {"total": 6720.0},
        "history": [{"epoch": 1, "val_accuracy": 0.8}, {"epoch": 2, "val_accuracy": 0.9}],
        "best_epoch": 2,
        "scores": {
            "test": {
                "top1": 0.867,
                "top1_interval": [0.86, 0.873],
                "top5": 0.99,
                "top5_interval": [0.98, 0.995],
                "per_class": dict.fromkeys("abcdefghij", 0.9),
            }
        },
    }
    return RunRecord(**facts | changes)


@pytest.fixture
def render(tmp_path):
    def render(*cells, record=None, metadata=None):
        nb = new_notebook(cells=list(cells), metadata=metadata or {})
        html = render_page(nb, tmp_path / "notebook.ipynb", record)
        assert not FETCHING.search(html), FETCHING.search(html)[0]
        return BeautifulSoup(html, "html.parser")

    return render


def test_the_page_of_a_run(render):
    page = render(
        new_markdown_cell("# How good?\n\nA question."),
        executed(result(html=FIGURE)),
        new_markdown_cell("## Scores\n\n### By class\n\n## Scores"),
        record=record(),
        metadata={"papermill": {"end_time": "2026-11-21T04:36:00+00:00"}},
    )
    assert page.html["lang"] == "en"
    assert page.select_one("meta[name=viewport]")
    assert page.title.get_text() == page.header.h1.get_text() == "How good?"
    assert len(page.find_all("h1")) == 1
    assert page.select_one(".kicker").get_text() == "cifar10 · cifarnet · 21 November 2026"
    facts = {row.dt.get_text(): row.dd.get_text() for row in page.select(".facts > div")}
    assert facts == {
        "test top-1": "86.7% 86.0 to 87.3%",
        "test top-5": "99.0% 98.0 to 99.5%",
        "parameters": "2.44 M",
        "FLOPs an image": "1.03 G",
        "epochs": "2 best: 2",
        "time": "1 h 52 min",
    }
    assert page.select_one(".note").get_text() == "Kept by <somebody>."
    links = [(a.get_text(), a["href"]) for a in page.nav.find_all("a")]
    assert links == [("Scores", "#scores"), ("By class", "#by-class"), ("Scores", "#scores-")]
    assert all(page.main.find(id=href[1:]).get_text() == text for text, href in links)
    downloads = [a["href"] for a in page.select("a[download]")]
    assert downloads == ["notebook.ipynb", "record.json"]
    figure = page.select_one("main figure.report-figure")
    assert figure.img["alt"] == "Loss falls to 0.2"
    assert figure.figcaption.get_text() == "By epoch."
    code = page.select_one("main details.code")
    assert not code.has_attr("open")
    assert "1 line" in code.summary.get_text()
    assert "draw" in code.select_one(".highlight").get_text()


def test_without_record_and_headings_there_is_still_a_page(render):
    page = render(executed(new_output("stream", text="hello")))
    assert page.header.h1.get_text() == "notebook"
    assert page.nav is None
    assert not page.select(".facts")
    assert page.select_one(".outputs pre").get_text() == "hello"


def test_the_policy_admits_the_page_s_own_script_alone(render):
    page = render(executed(result(html="<script>steal()</script><b>kept</b>")))
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "script-src 'unsafe" not in policy
    assert len(page.find_all("script")) == 1
    assert page.main.b.get_text() == "kept"


def test_what_outputs_would_fetch_is_taken_out(render):
    render(
        new_markdown_cell("![a cat](https://example.org/cat.png) ![](//example.org/x.png)"),
        executed(
            result(
                html='<link href="http://x.org/a.css"><iframe src="//x.org"></iframe>'
                '<style>@import "http://x.org/b.css";</style><object data="http://x.org"></object>'
                '<p style="background: URL(http://x.org/c.png)">text</p>'
                '<video poster="http://x.org/p.png"><source src="http://x.org/v.mp4"></video>'
                '<img srcset="http://x.org/2.png 2x" src="cat.png" alt="a cat">'
            )
        ),
    )


def test_a_picture_left_out_is_named(render):
    page = render(new_markdown_cell("![a cat](https://example.org/cat.png)"), executed())
    assert page.main.em.get_text() == "[picture not in this page: a cat]"


def test_a_picture_beside_the_notebook_is_put_in(render, tmp_path):
    (tmp_path / "dot.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    page = render(new_markdown_cell("![a dot](dot.svg)"), executed())
    assert page.main.img["src"].startswith("data:image/svg+xml;base64,")


def test_each_kind_of_output(render):
    page = render(
        executed(new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <b>")),
        executed(new_output("stream", name="stderr", text="one\ntwo")),
        executed(result(png=PIXEL, text="<Figure>"), result(svg="<svg/>", text="<Figure>")),
        executed(result(markdown="**bold** <script>no()</script>", text="no")),
        executed(result(text="   \n")),
        executed(result(html="<table><tr><td>1</td></tr></table>", text="1")),
    )
    first, second, third, fourth, fifth, sixth = page.select(".cell")
    assert first.select_one(".outputs pre").get_text() == "red <b>"
    messages = second.select_one("details.stderr")
    assert not messages.has_attr("open")
    assert "2 lines" in messages.summary.get_text()
    assert [img["src"].split(";")[0] for img in third.select("figure img")] == [
        "data:image/png",
        "data:image/svg+xml",
    ]
    assert fourth.p.strong.get_text() == "bold"
    assert "<p>" not in fourth.get_text()
    assert not fourth.find("script")
    assert "<script>" in fourth.get_text(), "it shows as text"
    assert not fifth.select(".outputs pre")
    assert "scroll" in sixth.table.parent["class"]
    assert sixth.table.parent["tabindex"] == "0"


def test_columns_of_numbers_are_flush_right(render):
    markdown = (
        "| name | top-1 | size |\n|-|-|-|\n| a | 86.7% (86.0 to 87.3%) | 2.4 M |\n| 5 | – | |"
    )
    frame = (
        '<style scoped>.dataframe {}</style><table class="dataframe"><tr><td>1e-3</td></tr></table>'
    )
    page = render(new_markdown_cell(markdown), executed(result(html=frame)))
    marked = [[*map(is_number, row.find_all(["th", "td"]))] for row in page.select("tr")]
    assert marked == [[False, True, True]] * 3 + [[True]]
    assert not page.main.style


def is_number(cell):
    return "number" in cell.get("class", [])


def test_cells_after_an_error_say_that_they_were_not_executed(render):
    error = new_output("error", ename="ValueError", evalue="<bad>", traceback=["\x1b[1mTrace", "x"])
    banner = new_markdown_cell("papermill", metadata={"tags": ["papermill-error-cell-tag"]})
    page = render(banner, executed(error, source="fail()"), new_code_cell("later()"))
    assert "papermill" not in page.get_text()
    failed, later = page.select(".cell")
    assert failed.select_one("details.code").has_attr("open")
    assert failed.select_one(".error p").get_text() == "ValueError: <bad>"
    assert failed.select_one(".error pre").get_text() == "Trace\nx"
    assert "not executed" in later.summary.get_text()


def test_an_error_that_the_notebook_expects_is_no_failure(render):
    error = new_output("error", ename="ValueError", evalue="bad", traceback=[])
    page = render(executed(error, metadata={"tags": ["raises-exception"]}), executed())
    assert page.select_one(".error")
    assert not page.select(".failed")


TAGGED = {"tags": ["parameters"]}


@settings(max_examples=20, deadline=None)
@given(st.text(), st.text(min_size=1))
def test_any_text_of_a_parameter_or_an_error_shows_as_text(value, message):
    source = 'note: str = ""  # what <b>you</b> like\nepochs: int = 2  # passes'
    error = new_output("error", ename="ValueError", evalue=message, traceback=[message])
    cells = [
        executed(source=source, metadata=TAGGED),
        executed(error, source=f"note = {value!r}", metadata={"tags": ["injected-parameters"]}),
    ]
    metadata = {"papermill": {"parameters": {"note": value}}}
    nb = new_notebook(cells=cells, metadata=metadata)
    page = BeautifulSoup(render_page(nb, nb_path), "html.parser")
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tr")]
    assert rows[1:] == [["note", repr(value), "what <b>you</b> like"], ["epochs", "2", "passes"]]
    assert bool(page.select("tr.changed")) == (value != "")
    assert len(page.find_all("script")) == 1
    assert not page.main.find_all(["b", "i", "img"])


@pytest.fixture(autouse=True)
def _path(tmp_path):
    global nb_path
    nb_path = tmp_path / "notebook.ipynb"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)))
def test_each_heading_has_an_address_of_its_own(headings):
    cells = [new_markdown_cell(f"## {heading}") for heading in headings]
    page = BeautifulSoup(render_page(new_notebook(cells=cells), nb_path), "html.parser")
    ids = [heading["id"] for heading in page.main.find_all(["h2", "h3"])]
    assert len(set(ids)) == len(ids)
    assert [a["href"] for a in page.select("nav a")] == [f"#{id_}" for id_ in ids]


def test_exporting_a_file(tmp_path):
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=[executed(result(text="42"))]), path)
    page = export_page(path, tmp_path / "page.html")
    assert "42" in page.read_text()
    record().write(tmp_path)
    assert "86.7%" in export_page(path, page).read_text()
    (tmp_path / "record.json").write_text("{")
    assert "86.7%" not in export_page(path, page).read_text()


@pytest.mark.parametrize("content", ["", "{}", "no JSON", '{"cells": 3, "nbformat": 4}'])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(InputError, match=r"a\.ipynb can't be read as a notebook"):
        export_page(tmp_path / "a.ipynb", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_a_notebook_that_was_not_executed_is_refused(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "a.ipynb")
    with pytest.raises(InputError, match="has not been executed; run it"):
        export_page(tmp_path / "a.ipynb", tmp_path / "a.html")
