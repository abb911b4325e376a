import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

from cifar_utils.reporting.execute import execute as execute_run
from cifar_utils.reporting.notebooks import plan_run
from cifar_utils.runs.folder import REPLACEABLE, visible

PATH = "from pathlib import Path"


def execute(run, **options):
    """Execute a run, to nobody's knowledge."""
    return execute_run(run, lambda event: None, **options)


def texts(run):
    cells = nbformat.read(run.folder / "notebook.ipynb", as_version=4).cells
    return [o.text for cell in cells for o in cell.get("outputs", []) if o.output_type == "stream"]


def content(folder):
    return {path: path.read_bytes() for path in visible(folder) if path.is_file()}


def page(run):
    return BeautifulSoup(run.page.read_text(), "html.parser")


@pytest.fixture(scope="module")
def first(tmp_path_factory, write_notebook):
    """A finished run, and the events of it that were told; to be looked at, not changed."""
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        notebook = write_notebook("print('epochs:', epochs, 'in', output)")
        run = plan_run(notebook, {"epochs": "3", "note": "it's {odd}"})
        assert execute_run(run, told.append).word == "finished"
    return run, told


@pytest.fixture
def done(project, first):
    """A copy of the finished run, in a project of its own."""
    shutil.copytree(first[0].notebook.parent, project / "notebooks", dirs_exist_ok=True)
    folder = shutil.copytree(first[0].folder, project / "reports" / first[0].name)
    return replace(first[0], folder=folder, notebook=project / "notebooks" / "01_tiny.ipynb")


def test_a_run_leaves_notebook_page_and_record(first):
    run, told = first
    left = {path.name for path in run.folder.iterdir()}
    assert left == {"run.json", "notebook.ipynb", "report.html", "record.json", "events.jsonl"}
    assert texts(run) == [f"epochs: 3 in reports/{run.name}\n"]
    assert told[0] == {"event": "start"}
    assert [event["epoch"] for event in told if event["event"] == "epoch"] == [1, 2, 3]
    assert run.facts["parameters"] == {"epochs": 3, "dataset": "digits", "note": "it's {odd}"}
    assert run.facts["outcome"] == "finished"
    for path in run.folder.iterdir():
        assert str(run.folder.parents[1]) not in path.read_text(), (
            "it does not tell of this machine"
        )


def test_only_what_differs_from_the_defaults_is_injected(first):
    cells = nbformat.read(first[0].folder / "notebook.ipynb", as_version=4).cells
    injected = next(cell for cell in cells if "injected-parameters" in cell.metadata.tags)
    assert "dataset" not in injected.source
    assert {"epochs = 3", 'note = "it\'s {odd}"'} < set(injected.source.splitlines())


def test_a_done_run_is_left_alone(done):
    before = content(done.folder)
    assert execute(done).word == "done"
    assert content(done.folder) == before
    done.page.unlink()
    assert execute(done).word == "done"
    assert done.page.exists()


def test_forcing_replaces_a_run_once_in_a_series_but_nothing_else(done, project, refused):
    (done.folder / "checkpoint").mkdir()
    other = plan_run(done.notebook, {"epochs": 1}, done.folder)
    with refused("a run that differs"):
        execute(other)
    assert execute(other, afresh=REPLACEABLE, series="this").word == "finished"
    assert execute(other, afresh=REPLACEABLE, series="this").word == "done"
    assert texts(other)[0].startswith("epochs: 1 in")
    assert not (done.folder / "checkpoint").exists()
    mine = project / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with refused("no run"):
        execute(plan_run(done.notebook, {}, mine), afresh=REPLACEABLE)


def test_a_run_that_was_stopped_while_it_was_put_aside_is_as_it_was(done, monkeypatch):
    before = content(done.folder)
    replace_file, calls = Path.replace, []

    def stop_at_the_third(path, target):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        execute(done, afresh=REPLACEABLE)
    monkeypatch.undo()
    assert content(done.folder) == before
    assert done.status().word == "done"
    assert list(done.folder.rglob(".*")) == []


def test_a_new_run_that_fails_before_its_training_leaves_a_finished_one_as_it_was(
    done, write_notebook
):
    before = content(done.folder)
    broken = plan_run(write_notebook("import no_such_library"), {}, done.folder)
    status = execute(broken, afresh=REPLACEABLE)
    assert status.word == "failed"
    assert status.why.endswith("No module named 'no_such_library'; the earlier run is kept")
    assert content(done.folder) == before


def test_a_stop_while_the_page_is_made_does_not_undo_the_run(done, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    other = plan_run(done.notebook, {"epochs": 1}, done.folder)
    monkeypatch.setattr("cifar_utils.reporting.execute.export_page", stop)
    with pytest.raises(KeyboardInterrupt):
        execute(other, afresh=REPLACEABLE)
    monkeypatch.undo()
    assert other.status().word == "done"
    assert execute(other).word == "done"
    assert other.page.exists()


def test_a_run_within_the_folder_of_another_keeps_its_files(done):
    inner = done.folder / "inner"
    for name in (".lock", ".before"):
        (inner / name).mkdir(parents=True)
    assert done.status().word == "done"
    (done.folder / ".before").mkdir()
    execute(done)
    assert sorted(path.name for path in inner.iterdir()) == [".before", ".lock"]


@pytest.mark.parametrize("trained", [False, True])
def test_a_new_run_that_is_stopped_replaces_a_finished_one_from_its_first_checkpoint_on(
    done, write_notebook, trained
):
    before, began = content(done.folder), done.folder / "began"
    write_notebook(
        f"from pathlib import Path\nimport time\nif {trained}:\n"
        "    Path(output, 'checkpoint').mkdir()\n    Path(output, 'checkpoint', 'epoch').touch()\n"
        "Path(output, 'began').touch()\ntime.sleep(60)"
    )
    status = execute(done, afresh=REPLACEABLE, wanted=lambda: not began.exists())
    assert status.why == "the command that wanted it has ended"
    began.unlink()
    assert (content(done.folder) == before) is not trained
    assert done.status().word == ("unfinished" if trained else "stale")


def test_what_a_new_run_has_trained_outlives_bad_input_in_a_later_cell(
    project, write_notebook, refused
):
    train = 'Path(output, "checkpoint").mkdir()\nPath(output, "checkpoint", "epoch").touch()'
    refuse = "from cifar_utils.errors import InputError\nraise InputError('a bad thing')"
    run = plan_run(write_notebook(f"from pathlib import Path\n{train}", refuse), {})
    with refused("a bad thing"):
        execute(run)
    assert (run.folder / "checkpoint" / "epoch").exists()
    assert run.status().word == "unfinished"


def test_a_diverged_training_is_told_in_one_line(project, write_notebook):
    diverge = (
        "from cifar_utils.training import TrainingDiverged\nraise TrainingDiverged('lower it')"
    )
    run = plan_run(write_notebook(diverge), {})
    outcome = execute(run)
    assert (outcome.why, outcome.details) == ("TrainingDiverged: lower it", ())
    assert page(run).select_one("#error").get_text().strip() == "TrainingDiverged: lower it"


def test_a_failed_notebook_keeps_its_part_and_goes_on(project, write_notebook):
    fail_once = (
        'mark = Path(output, "checkpoint")\nif not mark.exists():\n    mark.mkdir()\n    1 / 0'
    )
    run = plan_run(write_notebook("print('before')", PATH, fail_once, "print('after')"), {})
    outcome = execute(run)
    assert (outcome.word, outcome.why) == ("failed", "ZeroDivisionError: division by zero")
    assert outcome.details[-1] == "ZeroDivisionError: division by zero"
    assert any("1 / 0" in line for line in outcome.details)
    assert not outcome.transient
    assert texts(run) == ["before\n"]
    assert "papermill" not in page(run).get_text().lower()
    box = page(run).select_one(".cell .error#error")
    assert box.p.get_text() == "ZeroDivisionError: division by zero"
    assert "1 / 0" in box.find_parent(class_="cell").select_one(".highlight").get_text()
    assert page(run).select_one("header .failed a")["href"] == "#error"
    assert run.status().word == "unfinished"
    assert execute(run).word == "finished"
    assert texts(run) == ["before\n", "after\n"]
    assert not page(run).select(".error")


def test_a_kernel_that_dies_is_shown_at_its_cell(project, write_notebook):
    die = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    run = plan_run(write_notebook("print('before')", die), {})
    outcome = execute(run)
    assert outcome.word == "failed"
    assert "the kernel died" in outcome.why
    box = page(run).select_one("#error")
    assert "os.kill" in box.find_parent(class_="cell").select_one(".highlight").get_text()


CHILD = """\
import subprocess, time
from pathlib import Path

child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(output, "child").write_text(str(child.pid))
time.sleep(600)"""


def test_a_run_ends_at_its_timeout(project, write_notebook):
    run = plan_run(write_notebook("import time\ntime.sleep(600)"), {})
    status = execute(replace(run, timeout=0.5))
    assert (status.word, status.transient) == ("failed", True)
    assert status.why == "TimeoutError: not done within its timeout of 0.5 s"
    assert "not done within" in page(run).select_one("#error").get_text()
    assert run.status().word == "unfinished"


def test_a_run_that_nobody_wants_any_more_ends_with_all_that_it_has_started(
    project, write_notebook, alive
):
    run = plan_run(write_notebook(CHILD), {})
    child = run.folder / "child"
    status = execute(run, wanted=lambda: not (child.exists() and child.read_text()))
    assert (status.word, status.why) == ("failed", "the command that wanted it has ended")
    assert not alive(int(child.read_text()))
    assert run.status().word == "unfinished"
    nbformat.validate(nbformat.read(run.folder / "notebook.ipynb", as_version=4))


@pytest.mark.parametrize(("stopped_at", "word"), [("its page", "done"), ("training", "finished")])
def test_what_a_killed_process_left_is_gone_in_the_end(done, stopped_at, word):
    done.page.write_text("the page of an earlier try")
    (done.folder / ".before").mkdir()
    (done.folder / "checkpoint").mkdir()
    for name in (".lock", ".kernel.lock", ".before/run.json", "checkpoint/.state.x.part.json"):
        (done.folder / name).touch()
    if stopped_at == "training":
        done.write_facts(done.identity())
    assert execute(done).word == word
    assert "an earlier try" not in done.page.read_text()
    assert list(done.folder.rglob(".*")) == []


def test_odd_names_other_kernels_and_private_paths_are_no_trouble(
    project, write_notebook, monkeypatch
):
    deep = project / ("d" * 120)  # too long for the path of a socket in it
    spec = project / "jupyter" / "kernels" / "python3"
    for folder in (deep, spec):
        folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    argv = ["/bin/false", "-f", "{connection_file}"]
    spec.joinpath("kernel.json").write_text(json.dumps({"argv": argv, "display_name": "other"}))
    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    private = project / 'müllers "home"' / "vögel"
    cell = "import sys, tempfile\nprint(tempfile.mkstemp()[1], dataset, sys.executable, sep='|')"
    notebook = write_notebook(cell, name="01 {tiny} [b]", folder=project / "a {b}")
    run = plan_run(notebook, {}, project / "out {epochs} <i>")
    run = replace(run, parameters=run.parameters | {"dataset": f"folder:{private}"})
    assert execute(run).word == "finished"
    scratch, dataset, interpreter = texts(run)[0].strip().split("|")
    assert scratch.startswith(str(deep))
    assert not any(deep.iterdir())
    assert (dataset, interpreter) == ("folder:vögel", sys.executable)
    cells = nbformat.read(run.folder / "notebook.ipynb", as_version=4)
    assert cells.metadata.papermill.parameters.dataset == "folder:vögel"
    for file in ("notebook.ipynb", "report.html"):
        assert "home" not in (run.folder / file).read_text()
    assert run.facts["parameters"]["dataset"] == f"folder:{private}"


FILL = """\
from pathlib import Path

Path(output, "checkpoint").mkdir()
raise OSError(28, "No space left on device", str(Path(output, "checkpoint")))"""


def test_a_disk_that_is_full_in_training_costs_no_hours(project, write_notebook):
    run = plan_run(write_notebook(FILL), {})
    status = execute(run)
    assert status.word == "failed"
    assert "[Errno 28]" in status.why
    assert str(run.folder.relative_to(project)) in status.why
    assert status.why.endswith("make room; the same command goes on")
    assert (run.folder / "checkpoint").exists()


def test_a_notebook_that_leaves_a_broken_record_has_failed(project, write_notebook):
    broken = 'from pathlib import Path\nPath(output, "record.json").write_text("{}")'
    run = plan_run(write_notebook(broken, record=False), {})
    outcome = execute(run)
    assert outcome.word == "failed"
    assert "record.json is broken" in outcome.why


REFUSE = """\
from cifar_utils.errors import InputError
raise InputError("weights 'x' are not there; give a path\\nsecond line")"""


def test_an_input_error_of_the_notebook_leaves_nothing(project, write_notebook, refused):
    run = plan_run(write_notebook(REFUSE), {}, project / "some" / "where" / "run")
    with refused() as caught:
        execute(run)
    assert str(caught.value) == "weights 'x' are not there; give a path"
    assert {path.name for path in project.iterdir()} == {"notebooks"}


def test_an_input_error_leaves_an_existing_run_as_it_was(done, write_notebook, refused):
    write_notebook(REFUSE)  # so that it is stale
    before = content(done.folder)
    with refused("weights 'x'"):
        execute(done, afresh=REPLACEABLE)
    assert content(done.folder) == before


def test_a_full_disk_is_refused(project, write_notebook, refused):
    disk = project / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a small disk")
    try:
        with refused(disk / "run", "No space left on device (errno 28)); make room"):
            execute(plan_run(write_notebook(), {}, disk / "run"))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
