import shutil

import pytest

from cifar_utils.files import RECORD
from cifar_utils.runs.folder import LOCK, Run


@pytest.fixture
def reports(project, write_run):
    """Two finished, a failed and a stopped run, each with a checkpoint; and somebody else's."""
    for name, facts in {
        "done": {},
        "by-papermill": {},
        "failed": {"outcome": "failed"},
        "stopped": {"x": 1},
    }.items():
        folder = write_run(project / "reports" / name, **facts)
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "weights.h5").write_bytes(b"x" * 2000)
    (project / "reports" / "done" / "model.keras").write_text("")
    (project / "reports" / "by-papermill" / "run.json").unlink()
    (project / "reports" / "mine" / "checkpoint").mkdir(parents=True)
    return project / "reports"


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_only_the_checkpoints_of_finished_runs_are_deleted_and_only_when_told(reports, cli):
    before = files(reports)
    status, out, _ = cli("clean")
    assert status == 0
    assert "2 kB  reports/done/checkpoint\n" in out
    assert "--yes" in out
    assert files(reports) == before
    assert cli("clean", "reports", "--yes")[0] == 0
    assert before - files(reports) == {"done/checkpoint", "done/checkpoint/weights.h5"}
    assert files(reports) <= before
    assert cli("clean", "--yes") == (0, "0B deleted\n", "")


def test_a_run_that_is_being_run_is_left_alone(reports, cli):
    with Run(reports / "done").locked():
        assert cli("clean", "--yes")[0] == 0
        assert (reports / "done" / "checkpoint").exists()


def test_a_run_that_cannot_be_locked_is_told_and_left_alone(reports, cli):
    (reports / "done" / LOCK).mkdir()
    (reports / "clean" / LOCK).mkdir(parents=True)
    shutil.copy(reports / "done" / RECORD, reports / "clean")
    status, _, err = cli("clean", "--yes")
    (told,) = err.splitlines()
    assert status == 1
    assert told.startswith("reports/done: its checkpoints can't be deleted (")
    assert (reports / "done" / "checkpoint").exists()


def test_a_folder_that_is_a_link_is_not_followed(reports, cli, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "mine").write_text("")
    (reports / "done" / "features").symlink_to(elsewhere)
    assert cli("clean", "--yes")[0] == 0
    assert (elsewhere / "mine").exists()
