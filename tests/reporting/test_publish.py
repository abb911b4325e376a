"""Runs published: copied whole, as a snapshot of a commit."""

import json
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from papermill.translators import PythonTranslator

from cifar_utils.reporting.results import MARKS
from cifar_utils.runs.folder import Run


@pytest.fixture
def git(project):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.org")
        command = ["git", "-C", project, *who, *command]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return git


@pytest.fixture
def add(project, git, write_run, write_notebook, report_cells):
    """A finished run, made by a commit of the project."""
    (project / "README.md").write_text("\n".join(MARKS))
    write_notebook()
    git("init")
    git("add", "notebooks")
    git("commit", "-m", "Add it")

    def add(name="mine", commit="HEAD", dataset="digits", path="", top1=0.5, output=None):
        commit = git("rev-parse", commit) if commit == "HEAD" else commit
        folder = write_run(project / "reports" / name, *report_cells(), dataset=dataset, top1=top1)
        if output:
            given = {"epochs": 2, "weights": "/home/me/w.h5", "output": output}
            code = PythonTranslator.codify(given)
            tagged = new_code_cell(code, metadata={"tags": ["injected-parameters"]})
            told = new_output("stream", text=f"{output}: done; iVBOR/outXYZ /out2")
            cells = [tagged, new_code_cell("run()", outputs=[told], execution_count=2)]
            notebook = new_notebook(cells=cells)
            notebook.metadata["papermill"] = {"parameters": given}
            nbformat.write(notebook, folder / "notebook.ipynb")
        record = json.loads((folder / "record.json").read_text())
        record["parameters"] |= {"dataset": dataset, "weights": "w.h5"}
        record["trained_by"] = [{"first": 1, "last": 2, "git": commit, "processor": "a CPU"}]
        record["evaluated_by"] = {"git": commit, "processor": "a CPU"}
        (folder / "record.json").write_text(json.dumps(record))
        facts = json.loads((folder / "run.json").read_text())
        facts["parameters"] = {"dataset": path or dataset, "weights": "/home/me/w.h5"}
        [source] = (project / "notebooks").iterdir()
        facts["notebook_sha256"] = Run(folder, source, {}).identity()["notebook_sha256"]
        (folder / "run.json").write_text(json.dumps(facts))
        for left in ("model.keras", "predictions.npz", "predicted.npz", "events.jsonl"):
            (folder / left).write_text("")
        (folder / "checkpoint").mkdir()
        return folder

    return add


@pytest.fixture
def refusal(cli):
    """The one line by which runs are not published."""

    def refusal(*folders):
        status, _, err = cli("publish", *folders)
        assert (status, err.count("\n")) == (2, 1)
        return err

    return refusal


def test_what_a_reader_needs_is_copied_and_the_site_and_results_are_made_anew(add, project, cli):
    add(dataset="folder:pics", path="folder:/home/me/pics")
    published = project / "reports" / "published"
    assert cli("publish", "reports/mine")[0] == 0
    kept = {"record.json", "run.json", "notebook.ipynb", "report.html", "predicted.npz"}
    assert {path.name for path in (published / "mine").iterdir()} == kept
    assert "/home/me" not in (published / "mine" / "run.json").read_text()
    assert "mine" in (published / "index.html").read_text()
    assert "mine" in (project / "RESULTS.md").read_text()
    assert [path.name for path in published.glob(".*")] == []
    (published / "index.html").unlink()
    assert cli("publish")[0] == 0
    assert (published / "index.html").exists()


@pytest.mark.parametrize(
    "output", ["/home/me/runs/mine", "/home/me/läufe/mine", "/out", "reports/mine", "m", "out"]
)
def test_a_published_notebook_names_its_folder_and_no_path_of_a_machine(add, project, output, cli):
    source = add(output=output)
    before = (source / "notebook.ipynb").read_text()
    assert cli("publish", "reports/mine")[0] == 0
    published = project / "reports/published/mine"
    notebook = nbformat.read(published / "notebook.ipynb", 4)
    assert notebook.metadata.papermill.parameters == {
        "epochs": 2,
        "weights": "w.h5",
        "output": "reports/published/mine",
    }
    assert notebook.cells[0].source == (
        '# Parameters\nepochs = 2\nweights = "w.h5"\noutput = "reports/published/mine"\n'
    )
    assert notebook.cells[1].outputs[0].text.endswith("done; iVBOR/outXYZ /out2")
    assert "reports/published/mine" in (published / "report.html").read_text()
    for file in ("notebook.ipynb", "report.html"):
        assert "/home/me" not in (published / file).read_text()
    assert (source / "notebook.ipynb").read_text() == before


def test_a_run_published_again_takes_the_place_of_the_old_one(add, project, cli):
    add(top1=0.5)
    other = add("elsewhere/mine", top1=0.75)
    for folder in ("reports/mine", str(other)):
        assert cli("publish", folder)[0] == 0
    record = json.loads((project / "reports" / "published" / "mine" / "record.json").read_text())
    assert record["scores"]["test"]["top1"] == 0.75
    assert cli("publish", "reports/published/mine")[0] == 0


def test_a_stop_between_the_old_run_and_the_new_loses_neither(add, project, monkeypatch, cli):
    add()
    assert cli("publish", "reports/mine")[0] == 0
    published = project / "reports" / "published" / "mine"

    def stop(*_):
        raise KeyboardInterrupt

    published.rename(published.with_name(".mine.old"))  # as such a stop leaves it
    monkeypatch.setattr("shutil.copy2", stop)
    cli("publish", "reports/mine")
    assert (published / "record.json").exists()
    published.rename(published.with_name(".mine.old"))
    assert cli("publish")[0] == 0
    assert (published / "record.json").exists()


@pytest.mark.parametrize("commit", [None, "unknown", "abc123+changes"])
def test_a_run_of_no_known_commit_is_refused(add, project, commit, cli, refusal):
    add("good")
    add("bad", commit)
    error = refusal("reports/good", "reports/bad")
    assert "reports/bad" in error
    assert "--anyway" in error
    assert not (project / "reports" / "published").exists()
    assert cli("publish", "--anyway", "reports/bad")[0] == 0


def test_another_run_of_the_same_name_is_refused(add, project, cli, refusal):
    add()
    assert cli("publish", "reports/mine")[0] == 0
    add("elsewhere/mine", dataset="cifar10")
    for given in (["reports/elsewhere/mine"], ["reports/mine", "reports/elsewhere/mine"]):
        assert "reports/elsewhere/mine is not the run in" in refusal(*given)
    record = json.loads((project / "reports" / "published" / "mine" / "record.json").read_text())
    assert record["dataset"]["name"] == "digits"


def test_a_run_is_refused_whose_commit_has_not_the_notebook_that_was_executed(
    add, git, write_notebook, cli, refusal
):
    write_notebook("x = 1")
    folder = str(add())
    told = f"run {folder} executed other code than that of notebooks/01_tiny.ipynb"
    assert told in refusal(folder)
    git("add", "notebooks")  # as it was at the commit counts, not as it is now
    assert told in refusal(folder)
    git("commit", "-m", "Change it")
    assert told in refusal(folder)
    folder = str(add("second"))
    assert cli("publish", folder)[0] == 0

    git("mv", "notebooks/01_tiny.ipynb", "notebooks/02_tiny.ipynb")
    git("commit", "-m", "Rename it")
    assert cli("publish", folder)[0] == 0  # made by the commit before
    folder = str(add("third"))
    assert f"run {folder} has no notebooks/01_tiny.ipynb in commit" in refusal(folder)
    assert cli("publish", "--anyway", folder)[0] == 0


def test_a_run_that_papermill_executed_is_told_from_an_unfinished_one(add, refusal):
    (add() / "run.json").unlink()
    assert "has no run.json; execute it by cifar-reports run" in refusal("reports/mine")


def test_a_run_that_is_not_finished_is_refused(add, refusal):
    folder = add()
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"outcome": "failed", "error": "no"}))
    assert refusal("reports/mine") == "run reports/mine: no\n"
    (folder / "run.json").write_text(json.dumps(facts | {"outcome": None}))
    assert "is not finished" in refusal("reports/mine")
