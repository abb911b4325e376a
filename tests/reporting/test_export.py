import base64
import io
import json
import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from cifar_utils.reporting.export import export_page, is_current, write_links
from cifar_utils.reporting.fragments import Outline, clean

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


def display(data, **changes):
    return {"output_type": "display_data", "data": data, "metadata": {}} | changes


def result(**data):
    names = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}
    names |= {"png": "image/png", "svg": "image/svg+xml"}
    return display({names[key]: value for key, value in data.items()})


def code(*outputs, **changes):
    """An executed code cell."""
    cell = {"cell_type": "code", "source": "draw()", "execution_count": 1, "metadata": {}}
    return cell | {"outputs": list(outputs)} | changes


def exported(folder, *cells, metadata=None):
    """The page of a notebook of these cells and an executed one."""
    content = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata or {}}
    content["cells"] = [*cells, code(source="last()")]
    (folder / "notebook.ipynb").write_text(json.dumps(content))
    html = export_page(folder / "notebook.ipynb", folder / "page.html").read_text("utf-8")
    assert not FETCHING.search(html), FETCHING.search(html)[0]
    return BeautifulSoup(html, "html.parser")


@pytest.fixture
def render(tmp_path):
    def render(*cells, record=None, metadata=None):
        if record:
            record.write(tmp_path)
        return exported(tmp_path, *cells, metadata=metadata)

    return render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("notebooks")


def test_a_page_has_the_notes_on_its_run_and_is_made_again_for_new_ones(tmp_path):
    folder = tmp_path / "one-s0"
    folder.mkdir()
    notes, notebook = tmp_path / "notes.yaml", folder / "notebook.ipynb"
    notes.write_text("one-*: It was <b>chosen</b> late.\nother: Of another run.\n")
    words = exported(folder).header.get_text()
    assert "It was <b>chosen</b> late." in words
    assert "another run" not in words
    assert is_current(folder / "page.html", notebook)
    notes.write_text("one-*: It was chosen early.\n")
    assert not is_current(folder / "page.html", notebook)
    notes.write_text("no notes")
    assert "early" not in exported(folder).header.get_text()


def test_a_page_made_again_keeps_its_links(render, tmp_path):
    render()
    write_links(tmp_path / "page.html", '<nav><a href="../index.html">all runs</a></nav>')
    assert render(code(source="more()")).nav.a["href"] == "../index.html"


def test_the_page_of_a_run(render, make_record):
    record = make_record(
        dataset={"name": "cifar10", "note": "Kept by <somebody>."},
        model={"architecture": "cifarnet", "flops": 1.03e9},
        seconds={"total": 6720.0},
        history=[{"epoch": 1, "val_accuracy": 0.8}, {"epoch": 2, "val_accuracy": 0.9}],
        best_epoch=2,
    )
    page = render(
        new_markdown_cell("# How good?\n\nA question."),
        code(result(html=FIGURE)),
        new_markdown_cell("## Scores\n\n### By class\n\n## Scores"),
        record=record,
        metadata={"papermill": {"end_time": "2026-11-21T04:36:00+00:00"}},
    )
    assert page.html["lang"] == "en"
    assert page.select_one("meta[name=viewport]")
    assert page.title.get_text() == page.header.h1.get_text() == "How good?"
    assert len(page.find_all("h1")) == 1
    assert page.select_one(".kicker").get_text() == "cifar10 · cifarnet · 21 November 2026"
    facts = {row.dt.get_text(): row.dd.get_text() for row in page.select(".facts > div")}
    assert facts == {
        "test top-1": "87.5% 86.0 to 89.0%",
        "test top-5": "99.1% 98.0 to 99.5%",
        "parameters": "2.44 M",
        "FLOPs a test image": "1.03 G",
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
    cell = page.select_one("main details.code")
    assert not cell.has_attr("open")
    assert "1 line" in cell.summary.get_text()
    assert "draw" in cell.select_one(".highlight").get_text()


def test_the_policy_admits_the_page_s_own_script_alone(render):
    page = render(code(result(html="<script>steal()</script><b>kept</b>")))
    policy = page.select_one("meta[http-equiv=Content-Security-Policy]")["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "script-src 'unsafe" not in policy
    assert len(page.find_all("script")) == 1
    assert page.main.b.get_text() == "kept"


REFRESH = "<meta http-equiv='refresh' content='0;url=https://evil.org'>"


@pytest.mark.parametrize(
    "html",
    [
        f"<!-->{REFRESH}-->",  # tags that only a browser sees
        f"<![CDATA[>{REFRESH}]]>",
        f"<svg><style>{REFRESH}</style></svg>",
        '<b onclick="evil()">b</b>',
        '<a href="javascript:evil()">a</a>',
        '<a href="java&#10;script:evil()">a</a>',
        '<a href="data:text/html,evil">a</a>',
        '<a href="tel:evil">a</a>',
    ],
)
def test_what_would_run_or_lead_to_an_unknown_scheme_is_taken_out(html, tmp_path):
    cleaned = clean(f"{html}<b>kept</b>", Outline(tmp_path))
    assert cleaned.strip().endswith("<b>kept</b>")
    assert "evil" not in cleaned


@pytest.mark.parametrize("address", ["https://a.org/b:c", "mailto:a@b.org", "other.html?a:b", "#x"])
def test_a_link_keeps_an_address_of_a_known_scheme_or_a_relative_one(address, tmp_path):
    link = f'<a href="{address}">a</a>'
    assert clean(link, Outline(tmp_path)).strip() == link


def test_what_outputs_would_fetch_is_taken_out(render):
    render(
        new_markdown_cell("![a cat](https://example.org/cat.png) ![](//example.org/x.png)"),
        code(
            result(
                html='<link href="http://x.org/a.css"><iframe src="//x.org"></iframe>'
                '<style>@import "http://x.org/b.css";</style><object data="http://x.org"></object>'
                '<p style="background: URL(http://x.org/c.png)">text</p>'
                '<video poster="http://x.org/p.png"><source src="http://x.org/v.mp4"></video>'
                '<img srcset="http://x.org/2.png 2x" src="cat.png" alt="a cat">'
            )
        ),
    )


def test_each_kind_of_output(render):
    page = render(
        code(new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <b>")),
        code(new_output("stream", name="stderr", text="one\ntwo")),
        code(result(png=PIXEL, text="<Figure>"), result(svg="<svg/>", text="<Figure>")),
        code(result(markdown="**bold** <script>no()</script>", text="no")),
        code(result(text="   \n")),
        code(result(html="<table><tr><td>1</td></tr></table>", text="1")),
    )
    first, second, third, fourth, fifth, sixth, _ = page.select(".cell")
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
    assert not fifth.select(".outputs pre")
    assert "scroll" in sixth.table.parent["class"]
    assert sixth.table.parent["tabindex"] == "0"


def test_columns_of_numbers_are_flush_right(render):
    markdown = (
        "| name | top 1 | time |\n|-|-|-|\n| a | 86.7 % (86.0 to 87.3%) | 2 min 5 s |\n| 5 | – | |"
    )
    frame = (
        '<style scoped>.dataframe {}</style><table class="dataframe"><tr><td>1e-3</td></tr></table>'
    )
    page = render(new_markdown_cell(markdown), code(result(html=frame)))
    marked = [[*map(is_number, row.find_all(["th", "td"]))] for row in page.select("tr")]
    assert marked == [[False, True, True]] * 3 + [[True]]
    assert not page.main.style
    assert page.select("td")[1].get_text() == "86.7\xa0% (86.0\xa0to\xa087.3%)"
    assert page.select("th")[1].get_text() == "top 1", "a heading may be broken"


def test_a_narrow_column_breaks_names_after_a_mark_and_numbers_nowhere(render):
    markdown = "| run |\n|-|\n| vgg19(batch_norm=False,width=0.25) 274,042 (a) 10.0% ± 0.1, n = 3 |"
    (cell,) = render(new_markdown_cell(markdown)).select("td")
    assert cell.decode_contents().split("<wbr/>") == [
        *("vgg19(", "batch_", "norm=", "False,", "width="),
        "0.25) 274,042 (a) 10.0%\xa0±\xa00.1, n\xa0=\xa03",
    ]


def is_number(cell):
    return "number" in cell.get("class", [])


def test_on_a_phone_a_cell_has_the_name_of_its_column(render):
    columns = {"accuracy": [0.5], "epochs": [3], "time": ["2 s"]}
    named = pd.DataFrame(columns, pd.Index(["first"], name="trial"))
    grouped = pd.DataFrame(columns, pd.MultiIndex.from_tuples([("one", "two")]))
    page = render(code(*(result(html=frame.to_html()) for frame in (named, grouped))))
    first, second = page.select("table.dataframe")
    assert [cell["data-column"] for cell in first.select("tbody > tr > *")] == ["trial", *columns]
    spread = pd.concat([grouped, grouped.rename({"two": "three"})])
    (table,) = render(code(result(html=spread.to_html()))).select("table.dataframe")
    assert "stack" in second["class"]
    assert "stack" not in table["class"], "a cell that spans rows shifts the others"


def test_cells_after_an_error_say_that_they_were_not_code(render):
    error = new_output("error", ename="ValueError", evalue="<bad>", traceback=["\x1b[1mTrace", "x"])
    banner = new_markdown_cell("papermill", metadata={"tags": ["papermill-error-cell-tag"]})
    page = render(banner, code(error, source="fail()"), new_code_cell("later()"))
    assert "papermill" not in page.get_text()
    failed, later, _ = page.select(".cell")
    assert failed.select_one("details.code").has_attr("open")
    assert failed.select_one(".error p").get_text() == "ValueError: <bad>"
    assert failed.select_one(".error pre").get_text() == "Trace\nx"
    assert "not executed" in later.summary.get_text()


def test_an_error_that_the_notebook_expects_is_no_failure(render):
    error = new_output("error", ename="ValueError", evalue="bad", traceback=[])
    page = render(code(error, metadata={"tags": ["raises-exception"]}), code())
    assert page.select_one(".error")
    assert not page.select(".failed")


TAGGED = {"tags": ["parameters"]}


@settings(max_examples=20, deadline=None)
@given(st.text(), st.text(min_size=1))
def test_any_text_of_a_parameter_or_an_error_shows_as_text(folder, value, message):
    source = 'note: str = ""  # what <b>you</b> like\nepochs: int = 2  # passes'
    older = {"papermill": {"parameters": {"epochs": 9}}}  # the reader changed the cell since
    error = new_output("error", ename="ValueError", evalue=message, traceback=[message])
    cells = [
        code(source=source, metadata=TAGGED),
        code(
            error,
            source=f"rate = float('inf')\nnote = {value!r}",
            metadata={"tags": ["injected-parameters"]},
        ),
    ]
    page = exported(folder, *cells, metadata=older)
    rows = [[cell.get_text() for cell in row.find_all(["th", "td"])] for row in page.select("tr")]
    changed = f"{value!r} default ''" if value else "''"
    assert rows[1:] == [["note", changed, "what <b>you</b> like"], ["epochs", "2", "passes"]]
    assert bool(page.select("tr.changed")) == (value != "")
    assert len(page.find_all("script")) == 1
    assert not page.main.find_all(["b", "i", "img"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)))
def test_each_heading_has_an_address_of_its_own(folder, headings):
    cells = [new_markdown_cell(f"## {heading}") for heading in headings]
    page = exported(folder, *cells)
    ids = [heading["id"] for heading in page.main.find_all(["h2", "h3"])]
    assert len(set(ids)) == len(ids)
    assert [a["href"] for a in page.select("nav a")] == [f"#{id_}" for id_ in ids]


def test_a_page_without_a_record_has_no_facts_and_says_if_it_is_broken(render, tmp_path):
    assert not render().select(".facts, .failed, .answer")
    (tmp_path / "record.json").write_text("{")
    page = render()
    assert "broken" in page.select_one("header .failed").text
    assert not page.select(".facts")


NOT_EXECUTED = nbformat.writes(new_notebook(cells=[new_code_cell("1")]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "can't be read as a notebook"),
        ('{"cells": 3, "nbformat": 4}', "can't be read as a notebook"),
        (NOT_EXECUTED, "has not been executed; run it"),
    ],
)
def test_what_is_no_executed_notebook_is_refused(tmp_path, refused, content, words):
    (tmp_path / "a.ipynb").write_text(content)
    with refused(f"{tmp_path / 'a.ipynb'} {words}"):
        export_page(tmp_path / "a.ipynb", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def encoded(form, image):
    """A picture's file as text."""
    file = io.BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


PIECES = [
    "$", "$$", "\\frac", "{", "}", "<b", ">", "</div>", "<![", "<!--", "![a](", ")", "`", "|-|",
    "# ", "\n", "\r\b", "\ud800",
]  # fmt: skip
MARKUP = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join)


@settings(max_examples=40, deadline=None)
@given(MARKUP, st.sampled_from(["text/html", "text/markdown", "text/latex", "image/png"]))
@example("<![", "text/html")
@example("![a](\ud800)", "text/markdown")
def test_any_markup_makes_a_page(folder, markup, kind):
    page = exported(
        folder,
        new_markdown_cell(markup),
        code(display({kind: markup})),
        code(display({"text/html": "<b>after</b>"})),
    )
    after = page.select(".cell")[-2]
    assert after.parent is page.main, "no markup opens what it does not close"
    assert after.b.get_text() == "after"


def test_attachments_are_put_in_and_pictures_left_out_are_named(render):
    page = render(
        new_markdown_cell(
            "![net](attachment:net.png) ![gone](attachment:gone.png) ![a](.) "
            "![](data:image/png;base64,bm8gcGljdHVyZQ==) ![a cat](https://example.org/cat.png)",
            attachments={"net.png": {"image/png": PIXEL}},
        )
    )
    assert page.main.img["src"] == f"data:image/png;base64,{PIXEL}"
    assert [em.get_text() for em in page.main.find_all("em")] == [
        "[picture not in this page: gone, attachment:gone.png]",
        "[picture not in this page: a, .]",
        "[picture not in this page: it can't be read]",
        "[picture not in this page: a cat, https://example.org/cat.png]",
    ]


def test_a_picture_is_put_in_if_it_lies_in_the_notebook_s_folder(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    for file in (tmp_path / "secret.svg", inner / "dot.svg"):
        file.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (inner / "link.svg").symlink_to(tmp_path / "secret.svg")
    source = "![a dot](dot.svg) ![up](../secret.svg) ![link](link.svg)"
    page = exported(inner, new_markdown_cell(source))
    assert [img["alt"] for img in page.main.find_all("img")] == ["a dot"]
    assert page.main.img["src"].startswith("data:image/svg+xml;base64,")
    assert len(page.main.find_all("em")) == 2


@pytest.mark.parametrize("form", ["gif", "webp", "png", "jpeg"])
def test_a_picture_of_each_form_is_put_in(render, form):
    content = encoded(form, Image.effect_noise((8, 8), 50))
    page = render(code(display({f"image/{form}": content, "text/plain": "<IPython object>"})))
    assert page.main.img["src"] == f"data:image/{form};base64,{content}"
    assert "IPython" not in page.main.get_text()


SCRIPT = "<div style='height: 500px'></div><script>plot()</script>"
INTERACTIVE = "[interactive output not in this page: it needs JavaScript]"


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": SCRIPT, "text/plain": "Figure()"},
        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider()"},
    ],
    ids=lambda data: next(iter(data)),
)
def test_what_needs_a_script_is_named_and_leaves_no_empty_box(render, data):
    page = render(code(display(data)))
    assert page.select_one(".outputs").get_text(strip=True) == INTERACTIVE
    assert not page.select("[style]")


@pytest.mark.parametrize(
    ("html", "named"),
    [
        ("<iframe src='https://example.org/a?b&c'></iframe>", "iframe"),
        ("<video controls><source src='https://example.org/a?b&c'></video>", "video"),
        ("<img src='https://example.org/a?b&c'>", "picture"),
    ],
)
def test_what_lies_elsewhere_keeps_its_address(render, html, named):
    page = render(code(display({"text/html": html})))
    address = "https://example.org/a?b&c"
    assert page.main.em.get_text() == f"[{named} not in this page: {address}]"
    assert page.main.em.a["href"] == address


def test_updates_of_a_progress_bar_are_one_line(render):
    bars = [f"\r{i}0%|{'█' * i}" for i in range(1, 4)]
    stream = {"output_type": "stream", "name": "stderr"}
    page = render(code(*[stream | {"text": bar} for bar in bars]))
    assert [fold.pre.get_text() for fold in page.select("details.stderr")] == ["30%|███"]


def test_a_figure_without_a_text_is_told_by_its_section(render):
    figure = display({"image/png": PIXEL, "text/plain": "<Figure size 640x480 with 1 Axes>"})
    page = render(
        new_markdown_cell("# Title\n\n## Which classes are *hard*"),
        code(figure),
        code(figure | {"metadata": {"image/png": {"alt": "Cats are hard"}}}),
        code(display({"text/html": f'<img src="data:image/png;base64,{PIXEL}">'})),
        new_markdown_cell(f"![](data:image/png;base64,{PIXEL})"),
    )
    assert [img["alt"] for img in page.main.find_all("img")] == [
        "Figure in section 'Which classes are hard'",
        "Cats are hard",
        "Figure in section 'Which classes are hard'",
        "Figure in section 'Which classes are hard'",
    ]


@pytest.mark.parametrize(
    ("source", "tex"),
    [
        (r"so $\epsilon$ is", "ϵ"),
        (r"$$\frac{1}{2}$$", "12"),
        ("\\begin{equation}\nx^2\n\\label{eq:a}\n\\end{equation}", "x2"),
    ],
)
def test_tex_becomes_mathml(render, source, tex):
    page = render(new_markdown_cell(source), code(display({"text/markdown": source})))
    assert [math.get_text().strip() for math in page.main.find_all("math")] == [tex, tex]
    assert "$" not in page.main.get_text()


def test_what_ipython_displays_as_tex_becomes_mathml(render):
    from IPython.display import Latex, Math

    outputs = [
        display({"text/latex": shown._repr_latex_(), "text/plain": "<IPython object>"})
        for shown in (
            Math(r"\epsilon"),
            Latex("\n    where $x$ is\n    \\begin{align} y \\end{align}"),
        )
    ]
    page = render(code(*outputs))
    assert page.main.math.get_text() == "ϵ"
    assert len(page.main.find_all("math")) == 3
    assert "where" in page.main.get_text()


@pytest.mark.parametrize(
    "text",
    ["from $5 to CA$6", "$HOME and $PATH", r"\$x\$"],
)
def test_plain_dollar_signs_stay(render, text):
    page = render(new_markdown_cell(text))
    assert page.select_one(".markdown").get_text(strip=True) == text.replace("\\", "")


@pytest.mark.parametrize(
    "tex",
    [
        r"\nosuchcommand{x}",
        r"\begin{tabular}{cc} a & b \end{tabular}",
        r"\sqrt" * 2000,
    ],
)
def test_tex_that_can_t_be_read_stays_as_code(render, tex):
    page = render(new_markdown_cell(f"${tex}$"))
    assert page.main.code.get_text() == tex
    assert page.main.em.get_text() == "[formula not in this page: its TeX can't be read]"


GREY = [Image.effect_noise((300, 300), spread) for spread in (40, 50, 60)]


@pytest.mark.parametrize(
    ("image", "lossless"), [(GREY[0], True), (Image.merge("RGB", GREY), False)]
)
def test_a_large_picture_becomes_smaller_and_a_drawing_loses_nothing(render, image, lossless):
    content = encoded("png", image)
    page = render(code(display({"image/png": content})))
    head, _, shown = page.main.img["src"].partition(",")
    assert head == "data:image/webp;base64"
    assert len(shown) < len(content) * (1 if lossless else 0.3)
    with Image.open(io.BytesIO(base64.b64decode(shown))) as smaller:
        assert (smaller.convert(image.mode).tobytes() == image.tobytes()) == lossless


def test_a_page_near_chance_says_so_at_its_top_and_links_its_published_twin(project, make_record):
    published, mine = project / "reports/published/good", project / "reports/mine"
    for folder in (published, mine):
        folder.mkdir(parents=True)
    make_record().write(published)
    make_record(scores={"test": {"top1": 0.12, "top1_interval": [0.1, 0.14]}}).write(mine)
    assert not exported(published).select(".failed")
    (published / "page.html").rename(published / "report.html")
    warning = exported(mine).header.select_one(".failed")
    assert "too small to tell" in warning.get_text()
    assert warning.a["href"] == "../published/good/report.html"
    (project / "deep").mkdir()
    moved = mine.rename(project / "deep/mine")
    assert not is_current(moved / "page.html", moved / "notebook.ipynb"), "its link leads nowhere"


@pytest.mark.parametrize("source", ["Markdown(answer(record))", "answer(record)"])
def test_what_a_cell_told_of_the_record_agrees_with_the_top(render, make_record, source):
    def executed(source, html):
        return code(
            display({"text/html": html}, output_type="execute_result", execution_count=1),
            source=source,
        )

    record = make_record(model={"architecture": "cifarnet"}, dataset={"name": "cifar10"})
    page = render(
        executed(f"record = record_run(1)\n{source}", "<p>An answer of an older version.</p>"),
        executed("compare_with_reported(record)", "<p>An older table.</p>"),
        executed("answer(another)", "<p>Of another record.</p>"),
        executed("record = load_run('b').record\nanswer(record)", "<p>Of run b.</p>"),
        executed("history.best_epoch  # answer(record)", "<p>Epoch 17.</p>"),
        record=record,
    )
    words = page.main.get_text()
    assert "older" not in words
    assert all(told in words for told in ("Of another record.", "Of run b.", "Epoch 17."))
    top = page.header.select_one(".answer").get_text().strip()
    assert "87.5%" in top
    assert page.main.select_one(".outputs").get_text().strip().startswith(top)
    rows = [row.get_text() for row in page.main.select("tbody th")]
    assert rows[-1] == "this run"
    assert any("Report E" in row or "report E" in row for row in rows)


def test_a_report_is_introduced_where_it_is_first_named(render):
    page = render(
        new_markdown_cell("## Report A\n\nReport E asks; `report B` and report E, too."),
        code(result(html="<table><tr><td>report C: ResNet-20, 2&lt;3</td></tr></table>")),
    )
    links = [(a.get_text(), a["href"]) for a in page.main.select("a[href^='#report-']")]
    assert links == [("Report E", "#report-E"), ("report C", "#report-C")]
    told = [page.find(id=href[1:]).get_text() for _, href in links]
    assert "CifarNet" in told[0]
    assert "VGG-19" in told[1]
    assert not page.find(id="report-A")
