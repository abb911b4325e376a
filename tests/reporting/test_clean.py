import fcntl
import json
import os

import pytest

from cifar_utils.reporting import clean
from cifar_utils.reporting.clean import find_leftovers, remove
from cifar_utils.runs.record import RunRecord

IDENTITY = {"notebook": "01_tiny", "parameters": {}, "notebook_sha256": "abc"}
WRITTEN = ("notebook.ipynb", "report.html", "events.jsonl", "predictions.npz", "model.keras")


@pytest.fixture
def make(tmp_path):
    """Make a run's folder with all that a run may leave, 1,000 bytes of state among it."""

    def make(name, outcome="finished", record=True, identity=IDENTITY):
        folder = tmp_path / name
        for state in ("checkpoint", "features"):
            (folder / state).mkdir(parents=True)
            (folder / state / "large").write_bytes(b"0" * 500)
        for file in WRITTEN:
            (folder / file).write_text(file)
        if identity is not None:
            content = identity | ({"outcome": outcome} if outcome else {})
            (folder / "run.json").write_text(json.dumps(content))
        if record:
            RunRecord(
                run=name, notebook="01_tiny", parameters={}, dataset={}, model={}, environment={},
                seconds={}, history=[], best_epoch=1, scores={},
            ).write(folder)  # fmt: skip
        return folder

    return make


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def clean_all(folder, spared=None):
    return [remove(found) for found in find_leftovers(folder, spared)]


@pytest.mark.parametrize("identity", [IDENTITY, None])
def test_a_done_run_loses_its_checkpoints_and_features_alone(make, tmp_path, identity):
    folder = make("a/done", identity=identity)
    before = files(folder)
    (found,) = find_leftovers(tmp_path)
    assert (found.folder, found.size) == (folder, 1000)
    assert "done run" in found.why
    assert files(folder) == before, "finding removes nothing"
    assert remove(found)
    state = {"checkpoint", "checkpoint/large", "features", "features/large"}
    assert files(folder) == before - state
    assert find_leftovers(tmp_path) == []


def test_a_done_search_loses_its_trials_folders(make, tmp_path):
    folder = make("done")
    (folder / "tuning" / "trial_0" / "checkpoint").mkdir(parents=True)
    (found,) = find_leftovers(tmp_path)
    assert remove(found)
    assert not (folder / "tuning").exists()
    assert (folder / "record.json").exists()


@pytest.mark.parametrize(("outcome", "why"), [("failed", "a failed run"), (None, "unfinished")])
def test_a_run_that_was_never_done_goes_whole(make, tmp_path, outcome, why):
    folder = make("bad", outcome, record=False)
    (folder / ".model.keras").touch()
    (folder / ".run.json.x8a").touch()
    (folder / ".before").mkdir()
    (found,) = find_leftovers(tmp_path)
    assert why in found.why
    assert found.size > 1000
    assert remove(found)
    assert files(tmp_path) == set()


def test_what_is_no_run_s_stays(make, tmp_path):
    folder = make("bad", "failed", record=False)
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "other" / "checkpoint").mkdir(parents=True)
    (tmp_path / "other" / "run.json").write_text('{"scripts": {}}')
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "record.json").write_text("[]")
    broken = make("broken")
    (broken / "record.json").write_text("{")
    before = files(tmp_path)
    clean_all(tmp_path)
    gone = before - files(tmp_path)
    assert gone == {path for path in before if path.startswith("bad/")} - {"bad/notes.txt"}


def test_what_links_lead_to_stays(make, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "large").write_text("kept")
    folder = make("runs/done")
    for path in (folder / "checkpoint").iterdir():
        path.unlink()
    (folder / "checkpoint").rmdir()
    (folder / "checkpoint").symlink_to(elsewhere)
    (tmp_path / "runs" / "linked").symlink_to(make("others/run"))
    assert clean_all(tmp_path / "runs") == [True]
    assert not os.path.lexists(folder / "checkpoint")
    assert files(elsewhere) == {"large"}
    assert (tmp_path / "others" / "run" / "checkpoint" / "large").exists()


def test_a_run_that_another_process_holds_stays(make, tmp_path):
    folder = make("held", None, record=False)
    (found,) = find_leftovers(tmp_path)
    before = files(folder)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert find_leftovers(tmp_path) == []
        assert not remove(found)
        assert files(folder) == before
    finally:
        os.close(lock)
    assert remove(found)


def test_a_run_that_has_changed_since_it_was_listed_stays(make, tmp_path):
    folder = make("run", None, record=False)
    (found,) = find_leftovers(tmp_path)
    (folder / "events.jsonl").write_text("it goes on")
    before = files(folder)
    assert not remove(found)
    assert files(folder) == before
    make("run2", None, record=False).rename(tmp_path / "away")
    assert not remove(clean.Leftover(tmp_path / "run2", "gone", (), 0))


def test_published_runs_are_spared_unless_they_are_named(make, tmp_path):
    published = tmp_path / "published"
    make("published/a")
    make("quick/b")
    assert [found.folder.name for found in find_leftovers(tmp_path, published)] == ["b"]
    for named in (published, published / "a"):
        assert [found.folder.name for found in find_leftovers(named, published)] == ["a"]


def test_killed_in_the_middle_it_leaves_no_half_of_a_checkpoint(make, tmp_path, monkeypatch):
    folder = make("done")
    (found,) = find_leftovers(tmp_path)

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(found)
    assert not (folder / "checkpoint").exists()
    assert (folder / "features" / "large").exists()
    (rest,) = find_leftovers(tmp_path)
    assert rest.size == 1000
    assert remove(rest)
    assert find_leftovers(tmp_path) == []
    assert (folder / "record.json").exists()
