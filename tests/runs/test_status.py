"""How far a planned run has got, by what lies in its folder; and who else is at it."""

import hashlib
import json
from dataclasses import replace

import pytest

from cifar_utils.data import load_dataset
from cifar_utils.errors import InputError
from cifar_utils.runs.folder import Run


@pytest.fixture
def run(project, write_notebook):
    parameters = {"epochs": 2, "dataset": "digits", "note": ""}
    return Run(project / "out", write_notebook(), parameters)


@pytest.fixture
def finish(make_record):
    def finish(run, fingerprint="", **facts):
        run.folder.mkdir(parents=True, exist_ok=True)
        make_record(dataset={"name": "digits", "fingerprint": fingerprint}).write(run.folder)
        ending = {"outcome": "finished", "ended": "2026-01-02T03:04:05+00:00"}
        run.write_facts(run.identity() | ending | facts)
        return run

    return finish


def test_status_goes_from_new_over_unfinished_to_done(run, finish):
    assert run.status() == ("new", "not run yet", (), False)
    run.folder.mkdir(parents=True)
    assert run.status().word == "new"
    run.write_facts(run.identity())
    assert run.status()[:2] == ("unfinished", "it was stopped")
    finish(run, outcome="failed", error="ValueError: x")
    assert run.status()[:2] == ("unfinished", "it failed: ValueError: x")
    finish(run)
    assert run.status()[:2] == ("done", "finished on 2026-01-02")
    (run.folder / ".before").mkdir()  # a process was killed while it made the page
    assert run.status()[:2] == ("unfinished", "it was stopped")
    assert run.status(held=True).word == "done"
    (run.folder / "record.json").write_text("{")
    assert run.status().word == "unfinished"


def test_changed_code_makes_a_done_run_stale_but_outputs_prose_and_comments_do_not(
    run, finish, write_notebook
):
    finish(run)
    content = json.loads(run.notebook.read_text())
    content["cells"][0]["source"] = "# Another title\n\nOther words."
    content["cells"][1]["execution_count"] = 7
    source = "".join(content["cells"][1]["source"]).replace("# anything", "# whatever")
    content["cells"][1]["source"] = source + "\n\n# a remark"
    run.notebook.write_text(json.dumps(content))
    assert run.status().word == "done"
    write_notebook("print('another cell')")
    assert run.status()[:2] == ("stale", "its notebook has changed")


def test_a_run_that_was_done_on_other_data_is_stale(run, finish, tmp_path, monkeypatch):
    assert finish(run, load_dataset("digits").fingerprint).status().word == "done"
    word, why, *_ = finish(run, "0123456789abcdef").status()
    assert word == "stale"
    assert why.startswith("its data were 0123456789ab…, and are ")
    monkeypatch.setenv("CIFAR_DATA_DIR", str(tmp_path))  # without the images, nothing is compared
    gone = replace(run, parameters=run.parameters | {"dataset": "cifar10"})
    assert finish(gone, "0123456789abcdef").status().word == "done"


def test_a_run_that_began_with_other_weights_is_stale(run, finish, make_record, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.keras").write_bytes(b"weights")
    transfer = finish(replace(run, parameters=run.parameters | {"weights": str(base)}))
    digest = hashlib.sha256(b"weights").hexdigest()
    model = {"architecture": "resnet50v2", "weights": "base", "weights_sha256": digest}
    make_record(model=model, dataset={"name": "digits"}).write(run.folder)
    assert transfer.status().word == "done"
    (base / "model.keras").write_bytes(b"other weights")
    word, why, *_ = transfer.status()
    assert word == "stale"
    assert f"the weights in {base / 'model.keras'}" in why
    (base / "model.keras").unlink()  # as for data: without them, nothing is compared
    assert transfer.status().word == "done"


def test_a_moved_folder_holds_the_same_run(run, finish):
    moved = finish(run).folder.rename(run.folder.with_name("elsewhere"))
    assert replace(run, folder=moved).status().word == "done"


def test_another_run_is_told_by_what_differs(run, finish, write_notebook):
    finish(run)
    other = replace(run, parameters=run.parameters | {"epochs": 5, "note": "x"})
    assert other.status()[:2] == ("stale", "epochs is 2, not 5; note is '', not 'x'")
    other = replace(run, notebook=write_notebook(name="02_other"))
    assert other.status()[:2] == ("stale", "notebook is '01_tiny', not '02_other'")


@pytest.mark.parametrize("content", ["", "[]", '{"parameters": 3}', "\x00"])
def test_a_broken_file_is_named(run, content):
    run.folder.mkdir(parents=True)
    (run.folder / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is broken"):
        _ = run.facts
    word, why, *_ = run.status()
    assert word == "stale"
    assert "run.json is broken" in why


def test_what_is_no_run_s_folder_is_refused(run):
    run.folder.mkdir(parents=True)
    (run.folder / "thesis.tex").write_text("")
    word, why, *_ = run.status()
    assert word == "refused"
    assert "holds files but no run" in why
    word, why, *_ = replace(run, folder=run.folder / "thesis.tex").status()
    assert word == "refused"
    assert "is a file" in why


def test_a_run_that_is_not_there_says_so(tmp_path):
    run = Run(tmp_path / "none")
    assert repr(run).endswith(f"; {run.folder} has nothing yet")
    for name in ("scores", "model"):
        with pytest.raises(InputError, match=r"none.*; run its notebook again"):
            getattr(run, name)


def test_a_missing_folder_is_not_made_by_its_lock(tmp_path):
    with pytest.raises(FileNotFoundError), Run(tmp_path / "none").locked():
        pass
    assert not (tmp_path / "none").exists()
