"""An executed notebook as a page of HTML that stands alone: it asks the network for nothing."""

import base64
import hashlib
import logging
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import bleach
import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter
from traitlets.config import Config

from cifar_utils.files import write_atomically
from cifar_utils.parameters import InputError, parse_parameters
from cifar_utils.record import RunRecord, read_record
from cifar_utils.reports.facts import record_facts

TEMPLATE = Path(__file__).parent / "template"
# No widgets and no JavaScript: a page shows what there is to see without running a cell's code.
SHOWN = [
    "text/html",
    "text/markdown",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/latex",
    "text/plain",
]
EMBEDDING = ("script", "link", "iframe", "object", "embed", "base", "meta", "form")
ADDRESSES = ("src", "srcset", "poster", "background", "xlink:href")
# What Markdown makes, beside what bleach admits by itself. (nbconvert's own list has no paragraph.)
TAGS = {*bleach.ALLOWED_TAGS, "p", "br", "hr", "pre", "div", "span", "h1", "h2", "h3", "h4", "h5", "h6"}
TAGS |= {"del", "table", "thead", "tbody", "tr", "th", "td"}
NUMBER = re.compile(r"[-+−]?\d[\d,.]*(e[-+]?\d+)?\s?[%kMGT]?(\s*\([^()]*\))?")
NOTHING = {"", "NaN", "None", "nan", "–", "—"}
LINKS = re.compile("<!--links-->.*?<!--/links-->", re.DOTALL)
ELSEWHERE = re.compile(r"@import|url\(\s*['\"]?(?!#|data:)", re.IGNORECASE)


def export_page(notebook: Path, page: Path) -> Path:
    """Write a notebook's page; the facts at its top are of the ``record.json`` beside it, if any.

    Parameters
    ----------
    notebook
        An executed notebook, wholly or up to an error.
    page
        The HTML file to write.

    Raises
    ------
    InputError
        Where the file is no notebook, or none of its cells has been executed.

    """
    try:
        nb = nbformat.read(notebook, as_version=4)
    except Exception as error:  # each way of being no notebook raises another one
        reason = str(error).partition("\n")[0]
        raise InputError(f"{notebook} can't be read as a notebook ({reason})") from error
    if not any(cell.get("execution_count") or cell.get("outputs") for cell in nb.cells):
        raise InputError(f"{notebook} has not been executed; run it: cifar-reports run {notebook}")
    try:
        record = read_record(notebook.with_name("record.json"))
    except InputError:  # none, or one that says nothing; the page shows what the cells say
        record = None
    write_atomically(page, render_page(nb, notebook, record, page_digest(notebook)))
    return page


def page_digest(notebook: Path) -> str:
    """Hash of all that a notebook's page is made of: itself, its record, the template, this code.

    A page tells its own, so that one of an earlier template is known whatever its date.
    """
    sources = [TEMPLATE / name for name in ("page.html.j2", "head.html.j2", "style.css", "script.js")]
    sources += [Path(__file__), Path(__file__).with_name("facts.py")]
    files = [*sources, notebook, notebook.with_name("record.json")]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()[:16]


def is_current(page: Path, notebook: Path) -> bool:
    """Whether a page is the one that :func:`export_page` would write, links apart."""
    if not page.exists():
        return False
    with page.open("rb") as file:
        return f'content="cifar-reports {page_digest(notebook)}"'.encode() in file.read(2000)


def write_links(page: Path, links: str) -> None:
    """Put links to other pages (HTML) into the bar of an exported one, in place of those there."""
    old = page.read_text("utf-8")
    new = LINKS.sub(lambda _: f"<!--links-->{links}<!--/links-->", old, count=1)
    if new != old:
        write_atomically(page, new)


@cache
def page_look() -> dict[str, str]:
    """What all pages share: ``style``, ``script``, and the ``policy`` that admits no other."""
    script = (TEMPLATE / "script.js").read_text("utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "style": (TEMPLATE / "style.css").read_text("utf-8"),
        "script": script,
        # The browser too is told to fetch nothing, and to run no script but the page's own.
        "policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",
    }


def render_page(
    nb: nbformat.NotebookNode,
    notebook: Path,
    record: RunRecord | None = None,
    digest: str = "",
) -> str:
    """The page's HTML; pictures that a Markdown cell names are looked for beside ``notebook``."""
    # Papermill marks an error with cells of its own; the page does it in its own way.
    nb.cells = [cell for cell in nb.cells if "papermill-error-cell-tag" not in _tags(cell)]
    page = {
        "name": notebook.name,
        "record": record,
        "facts": record_facts(record) if record else [],
        "date": _date(nb),
        "failed": _mark_failed(nb),
        "parameters": _parameter_rows(nb),
        "look": page_look(),
        "digest": digest,
    }
    quiet = logging.getLogger("cifar_utils.export")
    quiet.setLevel(logging.CRITICAL)
    exporter = HTMLExporter(
        template_name=TEMPLATE.name,
        template_file="page.html.j2",
        extra_template_basedirs=[str(TEMPLATE.parent)],
        filters={"lines": _lines, "cleaned": _cleaned},
        exclude_anchor_links=True,
        embed_images=True,
        config=Config(NbConvertBase={"display_data_priority": SHOWN}),
        log=quiet,
    )
    resources = {"page": page, "metadata": {"path": str(notebook.parent)}}
    html, _ = exporter.from_notebook_node(nb, resources)
    return _finished(BeautifulSoup(html, "html.parser"), notebook.stem)


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _cleaned(html: str) -> str:
    """HTML of Markdown that code wrote: tags other than Markdown's own become text."""
    attributes = {**bleach.ALLOWED_ATTRIBUTES, "*": ["class", "id"]}
    return bleach.clean(str(html), tags=TAGS, attributes=attributes)


def _lines(text: str) -> str:
    count = len(text.splitlines())
    return f"{count} line{'s' * (count != 1)}"


def _mark_failed(nb: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Mark the cell whose error ended the notebook, and return that error."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in _tags(cell):
                cell.metadata["failed"] = True
                return output
    return None


def _date(nb: nbformat.NotebookNode) -> str:
    end = nb.metadata.get("papermill", {}).get("end_time")
    when = datetime.fromisoformat(end) if end else None
    return f"{when.day} {when:%B %Y}" if when else ""


def _parameter_rows(nb: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """Name, value and meaning of each parameter, and whether the value is not the default."""
    source = next((cell.source for cell in nb.cells if "parameters" in _tags(cell)), "")
    given = nb.metadata.get("papermill", {}).get("parameters", {})
    try:
        known = parse_parameters(source)
    except (InputError, SyntaxError, ValueError):
        known = {}  # a notebook of another kind; its cell is shown as it is
    return [
        {
            "name": row.name,
            "value": repr(given.get(row.name, row.default)),
            "meaning": row.meaning,
            "changed": given.get(row.name, row.default) != row.default,
        }
        for row in known.values()
        if row.name != "output"  # where the files went says nothing of the run
    ]


def _finished(page: BeautifulSoup, name: str) -> str:
    """The exported page with its title, table of contents, and tables that scroll by themselves."""
    main = page.main
    _remove_requests(page, main)
    title = main.h1.extract() if main.h1 else page.new_tag("h1", string=name)
    page.header.h1.replace_with(title)
    page.title.string = title.get_text(" ", strip=True)
    _add_contents(page, main)
    for code in main.select(".highlight > pre"):  # the keyboard scrolls what has the focus
        code["tabindex"] = "0"
    for picture in main.select("figure.report-figure > img"):
        picture.wrap(page.new_tag("div", attrs={"class": "frame"}))
    for table in main.find_all("table"):
        _align_numbers(table)
        _name_columns(table)
        for head in table.select("thead th:empty"):  # the corner, which heads nothing
            head.name = "td"
        table.wrap(page.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(page)


def _align_numbers(table: Tag) -> None:
    """Mark the columns of a table that hold numbers alone, to be set flush right."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    body = [row for row in rows if any(cell.name == "td" for cell in row)]
    for column in range(max(map(len, rows), default=0)):
        texts = {row[column].get_text(strip=True) for row in body if len(row) > column}
        if texts - NOTHING and all(NUMBER.fullmatch(text) for text in texts - NOTHING):
            for row in rows:
                if len(row) > column:
                    row[column]["class"] = [*row[column].get("class", []), "number"]


def _name_columns(table: Tag) -> None:
    """Give the cells of a wide, short table their column's name, for a phone to stack them."""
    heads = [head.get_text(" ", strip=True) for head in table.select("thead tr:last-child > *")]
    rows = table.select("tbody tr")
    if len(heads) > 3 and len(rows) <= 8:
        table["class"] = [*table.get("class", []), "stack"]
        for row in rows:
            for cell, head in zip(row.find_all(["th", "td"]), heads, strict=False):
                if cell.get_text(strip=True) in NOTHING:
                    cell["class"] = [*cell.get("class", []), "nothing"]
                elif head:
                    cell["data-column"] = head


def _add_contents(page: BeautifulSoup, main: Tag) -> None:
    """Give each heading an address of its own, and list them in the page's contents."""
    nav = page.select_one("nav.contents")
    taken = {tag["id"] for tag in page.find_all(id=True)}
    for heading in main.find_all(["h2", "h3"]):
        text = heading.get_text(" ", strip=True)
        slug = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
        while slug in taken:
            slug += "-"
        taken.add(slug)
        heading["id"] = slug
        item = page.new_tag("li", attrs={"class": f"level-{heading.name}"})
        item.append(page.new_tag("a", href=f"#{slug}", string=text))
        nav.ol.append(item)
    if not nav.ol.li:
        nav.extract()


def _remove_requests(page: BeautifulSoup, main: Tag) -> None:
    """Take out of the cells' HTML what a browser would fetch or run; name pictures instead."""
    for tag in main.find_all(EMBEDDING):
        tag.decompose()
    for tag in main.find_all("style"):
        if tag.has_attr("scoped") or ELSEWHERE.search(tag.get_text()):  # scoped: pandas' own looks
            tag.decompose()
    for tag in main.find_all(True):
        if ELSEWHERE.search(tag.get("style", "")):
            del tag["style"]
        fetched = [key for key in ADDRESSES if not tag.get(key, "#").startswith(("#", "data:"))]
        if fetched and tag.name == "img":
            named = f"[picture not in this page: {tag.get('alt') or tag.get('src')}]"
            tag.replace_with(page.new_tag("em", string=named))
        for key in fetched:
            del tag[key]
