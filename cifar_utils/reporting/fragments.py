"""Pieces of HTML for a page: Markdown, formulas, pictures and tables.

A browser fetches nothing for a piece and runs no code of it. A note stands for each part that is
left out.
"""

import base64
import io
import mimetypes
import re
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import latex2mathml.converter
from bs4 import BeautifulSoup, Tag
from bs4.element import PreformattedString
from bs4.exceptions import ParserRejectedMarkup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath, MathInlineParser
from PIL import Image

from cifar_utils.text import encodable

PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP")  # every browser shows these
LARGE = 10_000  # bytes: a larger PNG is compressed
PHOTOGRAPHIC = 8_000  # colours; a drawing has fewer

SCRIPTED = ("script", "form")
DROPPED = (*SCRIPTED, "link", "base", "meta")
CONTROLS = ("button", "input", "select", "textarea")  # which need a script
FETCHING = ("iframe", "object", "embed", "video", "audio", "img")
ADDRESSES = ("src", "srcset", "poster", "background", "data", "xlink:href", "ping", "formaction")
ELSEWHERE = re.compile(r"@import|url\(\s*['\"]?(?!#|data:)", re.IGNORECASE)
TAG = re.compile("<[A-Za-z/!?]")
HARMLESS = re.compile(r"\s*(https?:|mailto:|[^:]*([/?#]|$))", re.IGNORECASE)  # or relative
NUMBER = re.compile(
    r"[-+−]?\d[\d,.]*(e[-+]?\d+)?\s?[%kMGT]?(\s*\([^()]*\))?|(\d[\d.]* (h|min|s) ?)+"
)
BREAK = re.compile(r"(?<=\S) (?!\()")  # in a number; its interval may go to the next line
HEADINGS = re.compile("^h[1-6]$")
REPORT = re.compile(r"\b[Rr]eport ([A-E])\b")
NOTHING = {"", "NaN", "None", "nan", "–", "—"}
# Number of children of each MathML element. TeX such as \frac{1} makes an element with fewer.
ARITY = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2}
ARITY |= {"msubsup": 3, "munderover": 3}
ALIGNED = "align|aligned|split|gather|gathered|multline|eqnarray"


@dataclass
class Outline:
    """What a page has so far, and where the pictures of its next piece are."""

    folder: Path
    attached: dict[str, Any] = field(default_factory=dict)  # a cell's attachments
    title: str = ""  # HTML
    name: str = ""  # the title's text
    section: str = ""  # the last heading's text
    entries: list[tuple[str, str, str]] = field(default_factory=list)  # level, address, text
    taken: set[str] = field(default_factory=lambda: {"content", "error", "reports"})  # addresses
    reports: list[str] = field(default_factory=list)  # letters


def note(what: str, why: str, address: str = "") -> str:
    """A line (HTML) for an object that a page can't show; an address on the web is linked."""
    shown = escape(address if len(address) < 200 else address[:200] + "…")
    if address.startswith(("http://", "https://")):
        shown = f'<a href="{escape(address)}">{shown}</a>'
    said = ", ".join(part for part in (escape(why), shown) if part)
    return f"<em>[{what} not in this page: {said}]</em>"


class _Inline(MathInlineParser):
    r"""Markdown's inline markup, in which ``costs $5 and $6`` has no formula.

    As in Pandoc, a formula has no space inside its dollar signs, and no digit follows. A formula
    with spaces at both ends, ``$ \epsilon $``, must have a TeX command.
    """

    _INNER = r"(?:\\.|[^$\\])"
    SPECIFICATION = MathInlineParser.SPECIFICATION | {
        "inline_math_tex": rf"(?s:(?<![$\\])\$(?P<math_inline_tex>(?=\S){_INNER}+?(?<!\s)"
        rf"|\s(?=[^$]*\\[A-Za-z]){_INNER}+?\s)\$(?![\d$]))"
    }


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown with formulas as MathML. :func:`clean` embeds the pictures."""

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return super(IPythonRenderer, self).image(text, url, title)

    def inline_math(self, body: str) -> str:
        return _formula(body, "inline")

    def block_math(self, body: str) -> str:
        return _formula(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return _formula(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def block_mermaidjs(self, code: str) -> str:
        return self.block_code(code) + note("diagram", "it needs JavaScript")


def markdown_html(source: str) -> str:
    """Markdown as HTML with MathML, not yet cleaned."""
    renderer = _Renderer(escape=False, exclude_anchor_links=True)
    return MarkdownWithMath(renderer, inline=_Inline()).render(encodable(source))


def _formula(tex: str, display: str) -> str:
    """A formula as MathML, or as code if the TeX can't be read."""
    # The library aligns and breaks lines only in align*, and can't read labels.
    read = re.sub(rf"\\(begin|end)\{{({ALIGNED})\*?\}}", r"\\\1{align*}", tex)
    read = re.sub(r"\\label\s*\{[^}]*\}", "", read)
    try:
        for element in latex2mathml.converter.convert_to_element(read).iter():
            unknown = re.search(r"\\[A-Za-z]|^&$", element.text or "")
            if unknown or len(element) < ARITY.get(element.tag, 0):
                raise ValueError(element.tag)
        html = latex2mathml.converter.convert(read, display=display)
    except Exception:  # a mistake in TeX may raise nearly anything
        return f"<code>{escape(tex)}</code> " + note("formula", "its TeX can't be read")
    return f'<span class="formula" tabindex="0">{html}</span>' if display == "block" else html


def breakable(text: str) -> list[str]:
    """The parts of a text between which a narrow column breaks it: after marks, not in "± 0.1"."""
    kept = re.sub(" ([±=]) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    return re.split(r"(?<=\S[_(=/])(?=\S)|(?<=,)(?=[^\d\s])", kept)


def clean(html: str, outline: Outline) -> str:
    """Clean HTML: nothing for a browser to fetch or run, and pictures are embedded.

    Parameters
    ----------
    html
        Markup of any quality; open elements are closed.
    outline
        The headings above this piece; this function adds its own.

    """
    # Beautiful Soup warns of a line without markup: it could be a file name.
    soup = _parsed(f"{html}\n")
    for hidden in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        hidden.extract()  # a browser may see tags in a comment, or in a section such as CDATA
    tags = soup.find_all(True)
    scripted = any(tag.name in SCRIPTED for tag in tags)
    for tag in tags:
        if tag.decomposed:  # with its parent
            continue
        dead = scripted and (tag.name in CONTROLS or (tag.name == "img" and not tag.get("src")))
        # A scoped style sheet is from pandas, and would override the page's.
        # In a drawing, a browser sees tags in a style sheet.
        text = tag.get_text() if tag.name == "style" else ""
        bad = TAG.search(text) or ELSEWHERE.search(text) or (text and tag.has_attr("scoped"))
        if tag.name in DROPPED or dead or bad:
            tag.decompose()
            continue
        if tag.name in FETCHING:
            _embed(tag, outline)
        for key in [key for key in tag.attrs if _acts(tag, key)]:
            del tag[key]
    if scripted:
        if not soup.get_text(strip=True) and not soup.find(["img", "svg", "table"]):
            soup.clear()  # a script would have filled it
        soup.append(_parsed(note("interactive output", "it needs JavaScript")))
    for heading in soup.find_all(HEADINGS):
        _enter(heading, outline)
    _introduce(soup, outline.reports)
    for pre in soup.find_all("pre"):
        pre["tabindex"] = "0"  # for scrolling by keyboard
    for table in soup.find_all("table"):
        # A table of tables is a layout. Where a cell spans several, columns can't be told.
        if not table.find("table") and not table.select("[colspan], [rowspan]"):
            _align_numbers(table)
            _name_columns(table)
            for text in table.find_all(string=re.compile("[_(,=/±]")):
                if not text.find_parent(["code", "pre"]):  # a reader may copy code
                    first, *rest = breakable(text)
                    breaks = [node for part in rest for node in (soup.new_tag("wbr"), part)]
                    text.replace_with(first, *breaks)
        for head in table.select("thead th:empty"):  # the corner is not a header
            head.name = "td"
        table.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    return str(soup)


def _parsed(html: str) -> BeautifulSoup:
    try:
        return BeautifulSoup(html, "html.parser")
    except ParserRejectedMarkup:  # "<![" that opens no section is text
        return BeautifulSoup(html.replace("<![", "&lt;!["), "html.parser")


def _enter(heading: Tag, outline: Outline) -> None:
    """Give a heading its own address; the first of level 1 becomes the page's title."""
    text = outline.section = heading.get_text(" ", strip=True)
    if heading.name == "h1" and not outline.title:
        outline.title, outline.name = heading.extract().decode_contents(), text
    elif heading.name in ("h2", "h3"):
        slug = re.sub(r"\W+", "-", text.lower()).strip("-") or "section"
        while slug in outline.taken:
            slug += "-"
        outline.taken.add(slug)
        heading["id"] = slug
        outline.entries.append((heading.name, slug, text))


def _introduce(soup: BeautifulSoup, reports: list[str]) -> None:
    """Link the first mention of each report to the page's sentence about it."""

    def link(found: re.Match) -> str:
        if found[1] in reports:
            return found[0]
        reports.append(found[1])
        return f'<a href="#report-{found[1]}">{found[0]}</a>'

    for text in soup.find_all(string=REPORT):
        if not text.find_parent(["a", "code", "pre", "style", HEADINGS]):
            text.replace_with(_parsed(REPORT.sub(link, escape(text))))


def _acts(tag: Tag, key: str) -> bool:
    """Whether a browser fetches or runs an attribute's value."""
    value = str(tag[key])
    if key == "href" and tag.name in ("a", "area"):
        return not HARMLESS.match(value)
    if key == "style":
        return bool(ELSEWHERE.search(value))
    fetches = key == "href" or key in ADDRESSES
    return key.startswith("on") or (fetches and not value.startswith(("#", "data:")))


def _embed(tag: Tag, outline: Outline) -> None:
    """Embed a picture in its tag; replace a picture that can't be embedded by a note."""
    inner = tag.find("source")
    address = str(tag.get("src") or tag.get("data") or (inner and inner.get("src")) or "")
    said = str(tag.get("alt") or tag.get("title") or "")
    if tag.name == "img":
        with suppress(Exception):  # an address of any text, a file of any bytes
            tag["src"] = _picture(*_content(address, outline))
            section = f" in section '{outline.section}'" if outline.section else ""
            tag["alt"] = said or f"Figure{section}"
            if tag.parent.name == "figure":
                tag.wrap(Tag(name="div", attrs={"class": "frame"}))
            return
    inline = address.startswith("data:")
    reason = "it can't be read" if inline else "" if address else "it has no address"
    what = "picture" if tag.name == "img" else tag.name
    tag.replace_with(_parsed(note(what, said or reason, "" if inline else address)))


def _content(address: str, outline: Outline) -> tuple[str, bytes]:
    """Type and bytes of a picture: attached, in the notebook's folder, or a data URI."""
    if address.startswith("attachment:"):
        forms = outline.attached[unquote(address.removeprefix("attachment:"))]
        kind = next(kind for kind in forms if kind.startswith("image/"))
        return kind, base64.b64decode(forms[kind])
    if address.startswith("data:"):
        with urlopen(address) as response:
            return response.headers.get_content_type(), response.read()
    file = (outline.folder / unquote(address)).resolve()
    if not file.is_relative_to(outline.folder.resolve()):
        raise ValueError(f"{address} is outside of the notebook's folder")
    return mimetypes.guess_type(file)[0] or "", file.read_bytes()


def _picture(kind: str, content: bytes) -> str:
    """A picture as a data URI; a large PNG becomes WebP, a drawing with at most 256 colours.

    Raises
    ------
    OSError
        Where a browser could not show it.

    """
    if kind != "image/svg+xml":
        with Image.open(io.BytesIO(content), formats=PICTURES) as image:
            kind = Image.MIME[image.format]
            if len(content) > LARGE and image.format == "PNG" and not image.is_animated:
                smaller = io.BytesIO()
                with suppress(OSError, ValueError):  # it has 16 bits, or is too wide for WebP
                    _write_webp(image, smaller)
                    if smaller.tell() < len(content):
                        kind, content = "image/webp", smaller.getvalue()
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _write_webp(image: Image.Image, file: io.BytesIO) -> None:
    if image.getcolors(PHOTOGRAPHIC) is None:
        return image.save(file, "WEBP", quality=75, method=2)
    if image.mode == "RGBA" and image.getextrema()[3][0] == 255:
        image = image.convert("RGB")  # a palette loses less of RGB
    few = image.quantize(256, dither=Image.Dither.NONE)
    # Low effort: a high one takes ten times as long and saves a tenth of the bytes.
    return few.save(file, "WEBP", lossless=True, quality=0, method=1)


def _mark(tag: Tag, name: str) -> None:
    tag["class"] = [*tag.get("class", []), name]


def _align_numbers(table: Tag) -> None:
    """Mark the columns of a table that have only numbers, for alignment at the right."""
    rows = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    body = [row for row in rows if any(cell.name == "td" for cell in row)]
    for column in range(max(map(len, rows), default=0)):
        texts = {row[column].get_text(strip=True) for row in body if len(row) > column}
        if texts - NOTHING and all(NUMBER.fullmatch(text) for text in texts - NOTHING):
            for cell in (row[column] for row in rows if len(row) > column):
                _mark(cell, "number")
                if cell.name == "td":  # 13.3 % stays on one line
                    for text in cell.find_all(string=True):
                        text.replace_with(BREAK.sub("\N{NO-BREAK SPACE}", text))


def _name_columns(table: Tag) -> None:
    """Give the cells of a wide, short table their column's name: a phone stacks the cells."""
    lines = [
        [head.get_text(" ", strip=True) for head in line.find_all(["th", "td"])]
        for line in table.select("thead tr")
    ]
    # pandas names an index in a line of its own, which is empty above the columns.
    heads = [next(filter(None, column), "") for column in zip(*reversed(lines), strict=False)]
    rows = table.select("tbody tr")
    if len(heads) > 3 and len(rows) <= 8:
        _mark(table, "stack")
        for row in rows:
            for cell, head in zip(row.find_all(["th", "td"]), heads, strict=False):
                if cell.get_text(strip=True) in NOTHING:
                    _mark(cell, "nothing")
                elif head:
                    cell["data-column"] = head
