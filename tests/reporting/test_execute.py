import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from rich.console import Console

from cifar_utils.errors import InputError
from cifar_utils.reporting.execute import UnwantedError, execute
from cifar_utils.reporting.runs import plan_run
from cifar_utils.runs.folder import visible

PATH = "from pathlib import Path"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def texts(run):
    cells = nbformat.read(run.folder / "notebook.ipynb", as_version=4).cells
    return [o.text for cell in cells for o in cell.get("outputs", []) if o.output_type == "stream"]


def content(folder):
    return {path: path.read_bytes() for path in visible(folder) if path.is_file()}


def page(run):
    return BeautifulSoup(run.page.read_text(), "html.parser")


@pytest.fixture(scope="module")
def first(tmp_path_factory, write_notebook):
    """A finished run, and what was shown of it; to be looked at, not changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        notebook = write_notebook("print('epochs:', epochs, 'in', output)")
        run = plan_run(notebook, {"epochs": "3", "note": "it's {odd}"})
        console = Console(file=io.StringIO(), width=200)
        assert execute(run, console=console).word == "finished"
    return run, console.file.getvalue()


@pytest.fixture
def done(project, first):
    """A copy of the finished run, in a project of its own."""
    shutil.copytree(first[0].notebook.parent, project / "notebooks", dirs_exist_ok=True)
    folder = shutil.copytree(first[0].folder, project / "reports" / first[0].name)
    return replace(first[0], folder=folder, notebook=project / "notebooks" / "01_tiny.ipynb")


def test_a_run_leaves_notebook_page_and_record(first):
    run, shown = first
    left = {path.name for path in run.folder.iterdir()}
    assert left == {"run.json", "notebook.ipynb", "report.html", "record.json", "events.jsonl"}
    assert texts(run) == ["epochs: 3 in reports/01_tiny-digits\n"]
    assert "01_tiny-digits: epoch 3/3" in shown
    identity = json.loads((run.folder / "run.json").read_text())
    assert identity["parameters"] == {"epochs": 3, "dataset": "digits", "note": "it's {odd}"}
    assert identity["outcome"] == "finished"


def test_what_is_published_does_not_tell_of_this_machine(first):
    run, _ = first
    for path in run.folder.iterdir():
        assert str(run.folder.parents[1]) not in path.read_text()


def test_only_what_differs_from_the_defaults_is_injected(first):
    cells = nbformat.read(first[0].folder / "notebook.ipynb", as_version=4).cells
    injected = next(cell for cell in cells if "injected-parameters" in cell.metadata.tags)
    assert "dataset" not in injected.source
    assert {"epochs = 3", 'note = "it\'s {odd}"'} < set(injected.source.splitlines())


def test_a_done_run_is_left_alone(done, console):
    before = content(done.folder)
    assert execute(done, console=console).word == "done"
    assert content(done.folder) == before
    done.page.unlink()
    assert execute(done, console=console).word == "done"
    assert done.page.exists()


def test_forcing_replaces_a_run_but_nothing_else(done, console, project):
    (done.folder / "checkpoint").mkdir()
    other = plan_run(done.notebook, {"epochs": 1}, done.folder)
    with pytest.raises(InputError, match="another run"):
        execute(other, console=console)
    assert execute(other, force=True, console=console).word == "finished"
    assert texts(other)[0].startswith("epochs: 1 in")
    assert not (done.folder / "checkpoint").exists()
    mine = project / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="no run"):
        execute(plan_run(done.notebook, {}, mine), force=True, console=console)


def test_a_failed_notebook_keeps_its_part_and_goes_on(project, write_notebook, console):
    fail_once = (
        'mark = Path(output, "checkpoint")\nif not mark.exists():\n    mark.mkdir()\n    1 / 0'
    )
    run = plan_run(write_notebook("print('before')", PATH, fail_once, "print('after')"), {})
    outcome = execute(run, console=console)
    assert (outcome.word, outcome.why) == ("failed", "ZeroDivisionError: division by zero")
    assert texts(run) == ["before\n"]
    assert "papermill" not in page(run).get_text().lower()
    box = page(run).select_one(".cell .error#error")
    assert box.p.get_text() == "ZeroDivisionError: division by zero"
    assert "1 / 0" in box.find_parent(class_="cell").select_one(".highlight").get_text()
    assert page(run).select_one("header .failed a")["href"] == "#error"
    assert run.status().word == "unfinished"
    assert execute(run, console=console).word == "finished"
    assert texts(run) == ["before\n", "after\n"]
    assert not page(run).select(".error")


def test_a_kernel_that_dies_is_shown_at_its_cell(project, write_notebook, console):
    die = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    run = plan_run(write_notebook("print('before')", die), {})
    outcome = execute(run, console=console)
    assert outcome.word == "failed"
    assert "the kernel died" in outcome.why
    box = page(run).select_one("#error")
    assert "os.kill" in box.find_parent(class_="cell").select_one(".highlight").get_text()


def test_the_last_lines_of_an_error_are_kept(project, write_notebook, console):
    run = plan_run(write_notebook("def f():\n    return {}['a key']\nf()"), {})
    outcome = execute(run, console=console)
    assert not outcome.transient
    assert outcome.details[-1] == "KeyError: 'a key'"
    assert any("return {}['a key']" in line for line in outcome.details)
    assert not any("\x1b" in line for line in outcome.details)


CHILD = """\
import subprocess, time
from pathlib import Path

child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(output, "child").write_text(str(child.pid))
time.sleep(600)"""


def test_a_run_ends_at_its_timeout_with_all_that_it_has_started(
    project, write_notebook, console, alive
):
    run = plan_run(write_notebook(CHILD), {})
    status = execute(replace(run, timeout=5.0), console=console)
    assert (status.word, status.transient) == ("failed", True)
    assert status.why == "TimeoutError: not done within its timeout of 5.0 s"
    assert "not done within" in page(run).select_one("#error").get_text()
    assert run.status().word == "unfinished"
    assert not alive(int((run.folder / "child").read_text()))


def test_a_run_that_nobody_wants_any_more_ends_and_can_go_on(project, write_notebook, console):
    mark = 'from pathlib import Path\nPath(output, "mark").write_text("")'
    run = plan_run(write_notebook(mark, "import time\ntime.sleep(600)"), {})
    with pytest.raises(UnwantedError):
        execute(run, console=console, wanted=lambda: not (run.folder / "mark").exists())
    assert run.status().word == "unfinished"
    nbformat.validate(nbformat.read(run.folder / "notebook.ipynb", as_version=4))


def test_what_a_series_has_begun_afresh_it_goes_on_with(done, console):
    (done.folder / "mark").write_text("")
    assert execute(done, force=True, series="this", console=console).word == "finished"
    assert not (done.folder / "mark").exists()
    assert execute(done, force=True, series="this", console=console).word == "done"


SLEEP = """\
import os, sys, time
from pathlib import Path

first = not Path(output, "pid").exists()
Path(output, "pid").write_text(str(os.getpid()))
if first:
    time.sleep(600)"""
EXECUTE = """\
from pathlib import Path
from cifar_utils.reporting.execute import execute
from cifar_utils.reporting.runs import plan_run

execute(plan_run(Path("notebooks/01_tiny.ipynb"), {}))"""


@pytest.fixture
def other(project, write_notebook):
    """A run that another process executes, that process, and its kernel."""
    run = plan_run(write_notebook(SLEEP), {})
    pid = run.folder / "pid"
    with subprocess.Popen([sys.executable, "-c", EXECUTE], stdout=subprocess.DEVNULL) as other:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.05)
        yield run, other, psutil.Process(int(pid.read_text()))
        other.kill()


def test_a_run_of_another_process_is_left_to_it_and_its_kernel_keeps_the_folder(
    other, console, monkeypatch
):
    run, process, kernel = other
    monkeypatch.setattr("cifar_utils.reporting.execute.LOCK_SECONDS", 0)
    assert f"process {process.pid}" in execute(run, console=console).why
    kernel.suspend()  # so that it can't notice that the process has gone
    process.kill()
    process.wait()
    assert execute(run, console=console).word == "running"
    kernel.resume()
    kernel.wait(60)
    assert execute(run, console=console).word == "finished"
    assert int((run.folder / "pid").read_text()) != kernel.pid


def test_a_kernel_whose_process_is_killed_ends_before_another_gets_the_folder(
    other, console, alive
):
    run, process, kernel = other
    process.kill()
    assert execute(run, console=console).word == "finished"
    assert not alive(kernel.pid)


@pytest.mark.parametrize(("stopped_at", "word"), [("its page", "done"), ("training", "finished")])
def test_what_a_killed_process_left_is_gone_in_the_end(done, console, stopped_at, word):
    done.page.write_text("the page of an earlier try")
    (done.folder / ".before").mkdir()
    (done.folder / "checkpoint").mkdir()
    for name in (".lock", ".kernel.lock", ".before/run.json", "checkpoint/.state.json.x.part"):
        (done.folder / name).touch()
    if stopped_at == "training":
        done.write_facts(done.identity())
    assert execute(done, console=console).word == word
    assert "an earlier try" not in done.page.read_text()
    assert list(done.folder.rglob(".*")) == []


DIE = """\
import os

rename = Path.rename

def rename_and_die(path, target):
    rename(path, target)
    if path.name == "run.json":
        os.kill(os.getpid(), 9)

Path.rename = rename_and_die
"""


def test_a_run_whose_folder_was_being_cleared_begins_again(done, write_notebook, console):
    notebook = write_notebook("print('another cell')")
    (done.folder / "checkpoint").mkdir()
    (done.folder / "checkpoint" / "old").touch()
    script = EXECUTE.replace("\n\n", f"\n{DIE}\n").replace(
        "{})", "{'epochs': '3', 'note': \"it's {odd}\"})"
    )
    subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False)
    assert (done.folder / ".before" / "run.json").exists()
    assert execute(replace(done, notebook=notebook), console=console).word == "finished"
    assert not (done.folder / "checkpoint").exists()


def test_sockets_need_no_short_folder(project, write_notebook, console, monkeypatch):
    deep = project / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    assert execute(plan_run(write_notebook(), {}), console=console).word == "finished"
    assert not any(deep.iterdir())


FILL = """\
from pathlib import Path

Path(output, "checkpoint").mkdir()
raise OSError(28, "No space left on device", str(Path(output, "checkpoint")))"""


def test_a_disk_that_is_full_in_training_costs_no_hours(project, write_notebook, console):
    run = plan_run(write_notebook(FILL), {})
    status = execute(run, console=console)
    assert status.word == "failed"
    assert "[Errno 28]" in status.why
    assert str(run.folder.relative_to(project)) in status.why
    assert status.why.endswith("make room; the same command goes on")
    assert (run.folder / "checkpoint").exists()


def test_a_folder_of_pictures_goes_by_its_name(project, write_notebook, console):
    notebook = write_notebook("print(dataset)")
    run = plan_run(notebook, {})
    private = project / 'some "home"' / "pics"
    run = replace(run, parameters=run.parameters | {"dataset": f"folder:{private}"})
    assert execute(run, console=console).word == "finished"
    assert texts(run) == ["folder:pics\n"]
    cells = nbformat.read(run.folder / "notebook.ipynb", as_version=4)
    assert cells.metadata.papermill.parameters.dataset == "folder:pics"
    for file in ("notebook.ipynb", "report.html"):
        assert "home" not in (run.folder / file).read_text()
    assert run.facts["parameters"]["dataset"] == f"folder:{private}"


def test_a_notebook_without_a_record_has_failed(project, write_notebook, console):
    run = plan_run(write_notebook("print('nothing')", record=False), {})
    assert execute(run, console=console).why == "the notebook ended without writing a record"
    broken = 'from pathlib import Path\nPath(output, "record.json").write_text("{}")'
    run = plan_run(write_notebook(broken, record=False), {})
    outcome = execute(run, console=console)
    assert outcome.word == "failed"
    assert "schema" in outcome.why


REFUSE = """\
from cifar_utils.errors import InputError
raise InputError("weights 'x' are not there; give a path\\nsecond line")"""


def test_an_input_error_of_the_notebook_leaves_nothing(project, write_notebook, console):
    run = plan_run(write_notebook(REFUSE), {}, project / "some" / "where" / "run")
    with pytest.raises(InputError, match=r"^weights 'x' are not there; give a path$"):
        execute(run, console=console)
    assert {path.name for path in project.iterdir()} == {"notebooks"}
    run.folder.mkdir(parents=True)
    with pytest.raises(InputError):
        execute(run, console=console)
    assert list(run.folder.iterdir()) == []


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_an_input_error_leaves_an_existing_run_as_it_was(done, write_notebook, console, outcome):
    identity = json.loads((done.folder / "run.json").read_text())
    (done.folder / "run.json").write_text(json.dumps(identity | {"outcome": outcome}))
    write_notebook(REFUSE)  # so that the finished one is stale, and would be run afresh
    before = content(done.folder)
    with pytest.raises(InputError, match="weights 'x'"):
        execute(done, console=console)
    assert content(done.folder) == before


def test_the_kernel_is_this_interpreter(project, write_notebook, console, monkeypatch):
    spec = project / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = ["/bin/false", "-f", "{connection_file}"]
    spec.joinpath("kernel.json").write_text(json.dumps({"argv": argv, "display_name": "other"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    run = plan_run(write_notebook("import sys\nprint(sys.executable)"), {})
    assert execute(run, console=console).word == "finished"
    assert texts(run) == [f"{sys.executable}\n"]


def test_odd_names_are_no_trouble(project, write_notebook, console):
    notebook = write_notebook(name="01 {tiny} [b]", folder=project / "a {b}")
    run = plan_run(notebook, {}, project / "out {epochs} <i>")
    assert execute(run, console=console).word == "finished"
    assert "out {epochs} <i>: epoch 2/2" in console.file.getvalue()


def refused(run, console):
    with pytest.raises(InputError) as raised:
        execute(run, console=console)
    message = str(raised.value)
    assert str(run.folder) in message
    assert "\n" not in message
    return message


def test_a_folder_below_a_file_is_refused(project, write_notebook, console):
    (project / "file").write_text("")
    refused(plan_run(write_notebook(), {}, project / "file" / "run"), console)


def test_a_read_only_folder_is_refused(project, write_notebook, console):
    folder = project / "kept"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        if not Path("/sys/kernel").is_dir():
            pytest.skip("this user may write anywhere")
        folder = Path("/sys/kernel")  # not even by root
    message = refused(plan_run(write_notebook(), {}, folder / "run"), console)
    assert "can't be written" in message
    assert "--output" in message
    assert not (folder / "run").exists()


def test_a_full_disk_is_refused(project, write_notebook, console):
    disk = project / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    try:
        message = refused(plan_run(write_notebook(), {}, disk / "run"), console)
        assert "No space left on device (errno 28)); make room" in message
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
