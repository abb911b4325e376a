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
import pytest
from bs4 import BeautifulSoup
from rich.console import Console

from cifar_utils.errors import InputError
from cifar_utils.reporting.execute import execute
from cifar_utils.reporting.runs import UnwantedError, plan_run, run_status

PATH = "from pathlib import Path"


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def texts(run):
    cells = nbformat.read(run.folder / "notebook.ipynb", as_version=4).cells
    return [o.text for cell in cells for o in cell.get("outputs", []) if o.output_type == "stream"]


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
        assert execute(run, console=console).status == "finished"
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
    assert execute(done, console=console).status == "done"
    assert content(done.folder) == before
    done.page.unlink()
    assert execute(done, console=console).status == "done"
    assert done.page.exists()


def test_forcing_replaces_a_run_but_nothing_else(done, console, project):
    (done.folder / "checkpoint").mkdir()
    other = plan_run(done.notebook, {"epochs": 1}, done.folder)
    with pytest.raises(InputError, match="another run"):
        execute(other, console=console)
    assert execute(other, force=True, console=console).status == "finished"
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
    assert (outcome.status, outcome.error) == ("failed", "ZeroDivisionError: division by zero")
    assert texts(run) == ["before\n"]
    assert "papermill" not in page(run).get_text().lower()
    box = page(run).select_one(".cell .error#error")
    assert box.p.get_text() == "ZeroDivisionError: division by zero"
    assert "1 / 0" in box.find_parent(class_="cell").select_one(".highlight").get_text()
    assert page(run).select_one("header .failed a")["href"] == "#error"
    assert run_status(run) == "unfinished"
    assert execute(run, console=console).status == "finished"
    assert texts(run) == ["before\n", "after\n"]
    assert not page(run).select(".error")


def test_a_kernel_that_dies_is_shown_at_its_cell(project, write_notebook, console):
    die = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    run = plan_run(write_notebook("print('before')", die), {})
    outcome = execute(run, console=console)
    assert outcome.status == "failed"
    assert "the kernel died" in outcome.error
    box = page(run).select_one("#error")
    assert "os.kill" in box.find_parent(class_="cell").select_one(".highlight").get_text()


def test_the_last_lines_of_an_error_are_kept(project, write_notebook, console):
    run = plan_run(write_notebook("def f():\n    return {}['a key']\nf()"), {})
    outcome = execute(run, console=console)
    assert not outcome.transient
    assert outcome.details[-1] == "KeyError: 'a key'"
    assert any("return {}['a key']" in line for line in outcome.details)
    assert not any("\x1b" in line for line in outcome.details)


def test_a_run_ends_at_its_timeout(project, write_notebook, console):
    run = plan_run(write_notebook("import time\ntime.sleep(600)"), {})
    outcome = execute(replace(run, timeout=3.0), console=console)
    assert (outcome.status, outcome.transient) == ("failed", True)
    assert outcome.error == "TimeoutError: not done within its timeout of 3.0 s"
    assert "not done within" in page(run).select_one("#error").get_text()
    assert run_status(run) == "unfinished"


def test_a_run_that_nobody_wants_any_more_ends_and_can_go_on(project, write_notebook, console):
    mark = 'from pathlib import Path\nPath(output, "mark").write_text("")'
    run = plan_run(write_notebook(mark, "import time\ntime.sleep(600)"), {})
    with pytest.raises(UnwantedError):
        execute(run, console=console, wanted=lambda: not (run.folder / "mark").exists())
    assert run_status(run) == "unfinished"
    nbformat.validate(nbformat.read(run.folder / "notebook.ipynb", as_version=4))


def test_what_a_series_has_begun_afresh_it_goes_on_with(done, console):
    (done.folder / "mark").write_text("")
    assert execute(done, force=True, series="this", console=console).status == "finished"
    assert not (done.folder / "mark").exists()
    assert execute(done, force=True, series="this", console=console).status == "done"


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


def test_a_kernel_whose_process_is_killed_ends_before_another_gets_the_folder(
    project, write_notebook, console, alive
):
    run = plan_run(write_notebook(SLEEP), {})
    pid = run.folder / "pid"
    with subprocess.Popen([sys.executable, "-c", EXECUTE], stdout=subprocess.DEVNULL) as other:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.05)
        kernel = int(pid.read_text())
        other.kill()
    assert execute(run, console=console).status == "finished"
    assert int(pid.read_text()) != kernel
    assert not alive(kernel)


def test_a_notebook_without_a_record_has_failed(project, write_notebook, console):
    run = plan_run(write_notebook("print('nothing')", record=False), {})
    assert execute(run, console=console).error == "the notebook ended without writing a record"
    broken = 'from pathlib import Path\nPath(output, "record.json").write_text("{}")'
    run = plan_run(write_notebook(broken, record=False), {})
    outcome = execute(run, console=console)
    assert outcome.status == "failed"
    assert "schema" in outcome.error


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
    assert execute(run, console=console).status == "finished"
    assert texts(run) == [f"{sys.executable}\n"]


def test_odd_names_are_no_trouble(project, write_notebook, console):
    notebook = write_notebook(name="01 {tiny} [b]", folder=project / "a {b}")
    run = plan_run(notebook, {}, project / "out {epochs} <i>")
    assert execute(run, console=console).status == "finished"
    assert "out {epochs} <i>: epoch 2/2" in console.file.getvalue()


def refused(run, console):
    with pytest.raises(InputError) as raised:
        execute(run, console=console)
    message = str(raised.value)
    assert str(run.folder) in message
    assert "--output" in message
    assert "\n" not in message
    return message


def test_a_folder_that_another_process_works_in_is_refused(
    project, write_notebook, console, monkeypatch
):
    monkeypatch.setattr("cifar_utils.reporting.execute.LOCK_SECONDS", 0)
    run = plan_run(write_notebook(), {}, project / "out")
    run.folder.mkdir()
    lock = "import fcntl, os, sys; fcntl.flock(os.open('out', os.O_RDONLY), fcntl.LOCK_EX)"
    command = [sys.executable, "-c", f"{lock}; print('locked', flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout.readline() == b"locked\n"
        assert "another process" in refused(run, console)
        other.communicate()
    assert list(run.folder.iterdir()) == []


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
        assert "No space left" in message
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
