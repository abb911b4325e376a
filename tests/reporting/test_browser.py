"""The site in a real browser, without a network."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cifar_utils.reporting.export import export_page
from cifar_utils.reporting.site import build_index
from cifar_utils.runs.compare import OF_SEEDS, OF_TESTS, compare_runs

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="no Playwright; pip install -e '.[test]' brings it"
)
axe = pytest.importorskip(
    "axe_playwright_python", reason="no axe-core; pip install -e '.[test]' brings it"
)
AXE = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
PUBLISHED = Path(__file__).parents[2] / "reports" / "published"
EVIL = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>"
PAGES = ["index.html", "second/report.html", "deep/first/report.html"]
LONG = "varied-" + 78 * "x"  # 85 characters
A4 = 673, 1001  # px at 96 dpi within margins of 16 mm


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser; apt-get install chromium brings it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory, write_run, write_predicted, report_cells):
    """Five runs of two datasets: one varies the first, one failed with markup in its error."""
    folder = tmp_path_factory.mktemp("site")
    write_run(folder / "deep/first", *report_cells(), top1=0.9, train=300.0)
    given = {"note": EVIL}
    write_run(folder / LONG, top1=0.85, validation=(0.4, 0.3), parameters=given)
    longer = {"validation": (0.3, 0.4, 0.5), "parameters": given}
    write_run(folder / "second", *report_cells(EVIL), top1=0.8, **longer)
    write_run(folder / "third", dataset="cifar10", architecture="resnet20", notebook="02_resnet")
    labels = [place % 6 for place in range(1200)]
    for name, missed in (("deep/first", range(120)), (LONG, range(100, 270))):
        said = [(label + (i in missed)) % 6 for i, label in enumerate(labels)]
        write_predicted(folder / name, labels, said)
    write_run(folder / "failed", outcome="failed", error=EVIL)
    build_index(folder)
    return folder


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A published run of each notebook, as it would be published now."""
    folder = tmp_path_factory.mktemp("published")
    records = {
        json.loads(record.read_text("utf-8"))["notebook"]: record
        for record in sorted(PUBLISHED.glob("*/record.json"))
        if record.with_name("report.html").exists()
    }
    for record in records.values():
        (folder / record.parent.name).mkdir()
        for name in ("record.json", "run.json", "notebook.ipynb"):
            shutil.copy(record.with_name(name), folder / record.parent.name)
    build_index(folder)
    return folder


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    """The page of a notebook with formulas and with outputs that need a script or the network."""
    long = " + ".join(rf"\frac{{{i}}}{{n}}" for i in range(60))
    html = [
        '<div style="height: 500px"></div><script>plot()</script>',
        f'<p onclick="x()">{EVIL}</p>',
    ]
    html += [
        '<iframe src="https://example.org/"></iframe>',
        '<img src="https://example.org/a.png">',
    ]
    outputs = [new_output("display_data", {"text/html": piece}) for piece in html]
    outputs += [new_output("display_data", {"text/latex": r"$\displaystyle \sqrt{\epsilon}$"})]
    cells = [
        new_markdown_cell(
            rf"# On $\epsilon$"
            "\n\n"
            rf"Costs $5 and $6. $\mathbf{{w}}$ $$\frac{{1}}{{2}}$$ $${long}$$"
        ),
        new_code_cell("draw()", outputs=outputs, execution_count=1),
    ]
    folder = tmp_path_factory.mktemp("others")
    nbformat.write(new_notebook(cells=cells), folder / "notebook.ipynb")
    return export_page(folder / "notebook.ipynb", folder / "page.html")


@pytest.fixture
def visit(browser):
    """Open a file in a window of its own; what leaves for the network is stopped and recorded."""
    contexts, wrong = [], []

    def stop(route):
        if urlsplit(route.request.url).scheme in {"file", "data"}:
            route.continue_()
        else:
            wrong.append(route.request.url)
            route.abort()

    def visit(file, width=1280, **options):
        options = {"viewport": {"width": width, "height": 800}} | options
        context = browser.new_context(**options)
        contexts.append(context)
        context.route("**/*", stop)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: m.type in {"error", "warning"} and wrong.append(m.text))
        page.goto(file.as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(visit, site):
    """The list of all runs."""
    return visit(site / "index.html")


def unfold(page):
    switch = page.get_by_role("button", name="Show all code")
    if switch.count():
        switch.click()


def shown(page, selector=".runs tbody tr:not([hidden]) th"):
    return page.locator(selector).all_inner_texts()


def names(page):
    return [text.split()[0] for text in shown(page)]


def test_numbers_in_names_sort_by_value(page):
    ordered = [*map("a".__add__, ["", "-1e-05", "-0.003", "-0.01", "-0.25", "-0.5", "-2", "-10"])]
    ordered += ["a-10-s1", "a-1e3", "b"]
    assert page.evaluate("names => names.toSorted(byText)", ordered[::-1]) == ordered


def test_heads_sort_by_click_and_by_key(page):
    arrow = "head => getComputedStyle(head.querySelector('button'), '::after').content"
    assert names(page) == ["third", "first", "second"]
    accuracy, run = (page.locator(".runs thead th", has_text=text) for text in ("accuracy", "run"))
    assert accuracy.evaluate(arrow) == '" ↕"'
    accuracy.get_by_role("button").click()
    assert names(page) == ["first", "second", "third"]
    assert accuracy.get_attribute("aria-sort") == "descending"
    assert accuracy.evaluate(arrow) == '" ↓"'
    accuracy.get_by_role("button").press("Enter")
    assert names(page) == ["third", "second", "first"]
    assert accuracy.get_attribute("aria-sort") == "ascending"
    assert accuracy.evaluate(arrow) == '" ↑"'
    run.get_by_role("button").press("Space")
    assert names(page) == ["first", "second", "third"]
    assert accuracy.get_attribute("aria-sort") is None
    reported = page.locator(".runs thead th", has_text="reported").get_by_role("button")
    for _ in range(2):  # what was not reported comes last either way
        reported.click()
        assert names(page) == ["third", "first", "second"]


def test_a_search_and_a_dataset_leave_the_runs_that_fit(page):
    status, search = page.get_by_role("status"), page.get_by_label("search")
    assert status.inner_text() == "4 of 4 runs"
    page.get_by_label("dataset").select_option("digits")
    assert names(page) == ["first", "second"]
    assert status.inner_text() == "3 of 4 runs"
    search.fill("02_RESNET")
    assert names(page) == []
    page.get_by_label("dataset").select_option("")
    assert names(page) == ["third"]
    search.fill("xxx tiny")  # a variant is found in its fold
    assert names(page) == [LONG]
    assert status.inner_text() == "1 of 4 runs"
    search.fill("epochs")  # a parameter that all have
    assert names(page) == []


def test_variants_unfold_below_the_run_that_they_vary(page):
    fold = page.get_by_role("button", name="1 variant")
    assert fold.get_attribute("aria-expanded") == "false"
    fold.press("Enter")
    assert fold.get_attribute("aria-expanded") == "true"
    assert names(page) == ["third", "first", LONG, "second"]
    page.locator(".runs thead th", has_text="accuracy").get_by_role("button").click()
    assert names(page) == ["first", LONG, "second", "third"]
    fold.click()
    assert names(page) == ["first", "second", "third"]


def test_chosen_runs_are_drawn_and_compared(page, site):
    chosen = page.locator("#chosen")
    drawn = chosen.get_by_role("img", name="validation accuracy")
    assert f"Best epoch: first 50.0%, {LONG} 40.0%" in drawn.get_attribute("aria-label")
    assert drawn.locator("circle").count() == 2 + 2
    table = [row.split("\t") for row in chosen.locator("tr").all_inner_texts()]
    assert table == [["", "first", LONG], ["top-1", "90.00%", "85.00%"], ["note", "–", EVIL]]
    known = "as far as their records tell: backend, computed in, processor, commit not known"
    assert chosen.get_by_text(f"they differ in nothing but note, {known}.").is_visible()
    (test,) = compare_runs([site / "deep/first", site / LONG]).tests
    assert chosen.locator("li", has_text="McNemar").all_inner_texts() == [str(test)]
    assert chosen.get_by_text(f"{OF_SEEDS} {OF_TESTS}").is_visible()
    page.get_by_role("checkbox", name="Choose third").check()
    assert "third 50.0%" in drawn.get_attribute("aria-label")
    assert chosen.get_by_text("things, so no single one explains the result").is_visible()
    page.get_by_role("button", name=f"Leave out {LONG}").click()
    assert not page.get_by_label(f"Choose {LONG}").is_checked()
    assert chosen.get_by_text("No test against").is_visible()
    page.get_by_role("button", name="Clear").press("Enter")
    assert drawn.count() == 0


def test_mean_accuracies_of_seeds_are_compared_in_the_same_words(visit, write_run, tmp_path):
    for name, epochs, found in (("few", 3, (0.8, 0.81)), ("many", 9, (0.9, 0.93))):
        for seed, top1 in enumerate(found):
            given = {"epochs": epochs, "seed": seed}
            write_run(tmp_path / f"{name}-s{seed}", top1=top1, parameters=given)
    page = visit(build_index(tmp_path))
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("button", name="1 variant").click()
    for first, second in (("few", "many"), ("many", "few")):
        page.get_by_label(f"Choose {first}").check()
        page.get_by_label(f"Choose {second}").check()
        told = page.locator("#chosen li", has_text="with the same seed:").all_inner_texts()
        both = [tmp_path / f"{name}-s{seed}" for name in (first, second) for seed in (0, 1)]
        assert told == [note for note in compare_runs(both).notes if "with the same seed:" in note]
        assert len(told) == 1
        drawn = page.get_by_role("img", name="validation accuracy").get_attribute("aria-label")
        assert "Best epoch, mean over seeds: " in drawn
        page.get_by_role("button", name="Clear").click()


def test_accuracy_is_drawn_against_cost(page):
    cost = page.locator("#cost")
    drawn = cost.get_by_role("img", name="test accuracy by training time").last
    best = f"The best for their cost, from the cheapest: {LONG} 85.0%, first 90.0%."
    assert best in drawn.get_attribute("aria-label")
    points = drawn.locator("g:not(.frontier) circle").all()
    assert len(points) == 3
    last = points[-1].text_content()
    assert last.startswith("first: 90.00%, "), "then its training time"
    assert last.endswith((" s", " min", " h"))
    assert not page.locator("#labels").is_visible(), "all have as many"


def test_accuracy_is_drawn_against_labelled_images_too(visit, write_run, tmp_path):
    runs = {"few": (100, 0.6), "fair": (9000, 0.8), "worse": (9900, 0.7), "many": (50_000, 0.9)}
    for name, (images, top1) in runs.items():
        write_run(tmp_path / name, top1=top1, data={"train": images})
    page = visit(build_index(tmp_path))
    drawn = page.locator("#labels").get_by_role("img", name="test accuracy by labelled training")
    told = "60.0% from 100 images, 80.0% from 9,000 images, 90.0% from 50,000 images."
    assert told in drawn.get_attribute("aria-label")
    few, _, many = drawn.locator("circle").all()
    assert few.text_content() == "few: 60.00%, 100 images"
    assert many.text_content() == "many: 90.00%, 50,000 images"
    drawn = page.locator("#cost").get_by_role("img", name="test accuracy by training time")
    assert "Not drawn: 2 below 75.0%." in drawn.get_attribute("aria-label")
    for name, (images, top1) in runs.items():
        given = {"weights": "runs/base"}
        write_run(tmp_path / f"{name}-on", top1=top1, data={"train": images}, parameters=given)
    page = visit(build_index(tmp_path))
    first, second = page.locator("#labels .legend li").all_inner_texts()
    assert first.endswith(", random weights")
    assert second.endswith(", weights of base")


def test_one_switch_unfolds_all_code(visit, site):
    page = visit(site / "second/report.html")
    code = page.locator("details.code")
    switch = page.get_by_role("button", name="Show all code")
    assert not code.locator("pre").first.is_visible()
    switch.press("Enter")
    assert all(pre.is_visible() for pre in code.locator("pre").all())
    page.get_by_role("button", name="Hide all code").wait_for()
    code.first.locator("summary").click()
    page.get_by_role("button", name="Show all code").wait_for()


def test_a_figure_enlarges_by_key_and_by_click(visit, site):
    page = visit(site / "second/report.html", width=360)
    dialog, button = page.get_by_role("dialog"), page.locator(".enlarge").first
    assert dialog.count() == 0
    small = page.locator(".report-figure .frame > img").first
    before = small.bounding_box()["width"]
    button.focus()
    page.keyboard.press("Enter")
    assert dialog.locator("img").bounding_box()["width"] > 2 * before
    page.keyboard.press("Escape")
    assert dialog.count() == 0
    assert button.evaluate("button => button === document.activeElement")
    small.click()
    dialog.get_by_role("button", name="Close").click()
    assert dialog.count() == 0


def brightness(page):
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, colour.strip("rgb()").split(", ")))


def test_dark_mode_follows_the_system_until_it_is_switched(visit, site):
    page = visit(site / "index.html", color_scheme="dark")
    assert brightness(page) < 150
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 600
    page.get_by_role("button", name="Dark mode").press("Enter")
    assert brightness(page) < 150
    keeps = "localStorage.setItem('a', '1'), localStorage.getItem('a') === '1'"
    kept = page.evaluate(f"(() => {{ try {{ return ({keeps}) }} catch {{ return false }} }})()")
    other = (site / "second/report.html").as_uri()
    page.goto(other)
    if kept:  # where files may
        for _ in range(50):  # a browser under load keeps it a moment later
            if brightness(page) > 150:
                page.goto(other)
        assert brightness(page) < 150
        page.get_by_role("button", name="Light mode").click()
        assert brightness(page) > 600


def test_no_page_scrolls_sideways(visit, site, published, others):
    page = visit(site / "index.html")
    for file in [*(site / name for name in PAGES), *published.rglob("*.html"), others]:
        page.goto(file.as_uri())
        unfold(page)
        for width in (360, 768, 1920):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, file


def test_no_column_of_the_leaderboard_is_cut_off_on_a_desktop(visit, site):
    for folder in (site, PUBLISHED):
        table = visit(folder / "index.html", width=1280).locator(".scroll").first
        assert table.evaluate("table => table.scrollWidth - table.clientWidth") <= 0


def test_on_a_phone_reported_and_measured_stand_below_each_other(visit, site):
    page = visit(site / "second/report.html", width=360)
    cells = page.locator(".stack tbody td:not(.nothing)")
    boxes = [cell.bounding_box() for cell in cells.all()]
    assert len(boxes) == 3
    assert min(box["width"] for box in boxes) > 280
    assert [box["x"] for box in boxes] == [boxes[0]["x"]] * 3
    names = "cell => getComputedStyle(cell, '::before').content"
    assert cells.first.evaluate(names) == '"top-1"'
    assert not page.locator(".stack .nothing").is_visible()


@pytest.mark.parametrize("name", ["index.html", "second/report.html"])
def test_a_page_prints_whole_figures_on_white(visit, site, name):
    page = visit(site / name, color_scheme="dark")
    for summary in page.locator("details.code summary").all()[:1]:
        summary.click()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.set_viewport_size({"width": A4[0], "height": A4[1]})
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(page) == 3 * 255
    assert not page.locator(".bar").is_visible()
    assert not page.locator(".enlarge").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= A4[0]
    figures = page.locator("figure").all()
    assert figures
    for figure in figures:
        assert figure.evaluate("figure => getComputedStyle(figure).breakInside") == "avoid"
        assert figure.bounding_box()["height"] < A4[1]
    opened = [code.is_visible() for code in page.locator("details.code").all()]
    assert sum(opened) == bool(opened)  # folded code is left out


def test_links_lead_to_files_and_to_places_in_them(visit, site, published):
    page = visit(site / "index.html")
    for file in [*site.rglob("*.html"), *published.rglob("*.html")]:
        page.goto(file.as_uri())
        for href in page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)"):
            url = urlsplit(href)
            if url.scheme == "https":
                continue  # a source that a reader may follow
            target = Path(unquote(url.path))
            assert url.scheme == "file"
            assert target.is_file(), (file, href)
            if url.fragment and target == file:
                there = "id => document.getElementById(id) !== null"
                assert page.evaluate(there, unquote(url.fragment)), (file, href)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, site, published, others, scheme):
    runs = sorted(published.glob("*/report.html"))
    runs = runs if scheme == "light" else runs[:1]  # in the dark only colours are others
    page = visit(site / "index.html", color_scheme=scheme)
    for file in [*(site / name for name in PAGES[:2]), *runs, others]:
        page.goto(file.as_uri())
        unfold(page)
        page.evaluate(AXE)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
            grave = [each for each in found if each["impact"] in {"serious", "critical"}]
            assert [(each["id"], each["nodes"][0]["html"]) for each in grave] == [], file


def test_the_keyboard_begins_at_a_link_past_the_controls_and_the_focus_is_seen(page):
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.textContent") == "Skip to the content"
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**#content")  # the browser tells its address a moment later
    assert page.url.endswith("#content")


def test_without_scripts_everything_is_read_and_no_switch_is_dead(visit, site):
    page = visit(site / "index.html", java_script_enabled=False)
    for name in PAGES:
        page.goto((site / name).as_uri())
        assert page.locator("h1").is_visible()
        assert page.locator("main").is_visible()
        buttons = page.locator("button, select, input").all()
        assert not any(button.is_visible() for button in buttons)
