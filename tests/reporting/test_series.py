import json
import os
import tempfile
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cifar_utils.provenance import usable_cores
from cifar_utils.reporting.notebooks import plan_run
from cifar_utils.reporting.series import run_series, shares


@given(st.lists(st.integers(0, 300), min_size=1, max_size=64, unique=True), st.integers(1, 80))
def test_each_job_gets_as_many_cores_and_none_is_shared_without_need(cores, jobs):
    found = shares(cores, jobs)
    assert [len(share) for share in found] == jobs * [max(1, len(cores) // jobs)]
    given = Counter(core for share in found for core in share)
    assert given.keys() <= set(cores)
    assert max(given.values()) - min(given[core] for core in cores) <= 1


def outcomes(runs, **options):
    """How runs ended, by name; and the events that were told of them, with their names."""
    told = []
    ended = run_series(
        runs, lambda name, event: told.append((name, event)), **({"jobs": 2} | options)
    )
    return {run.name: status for run, status in ended}, told


DIE_ONCE = """\
import os, signal
from pathlib import Path

Path(output, "tries").open("a").write("x")
mark = Path(output, "checkpoint")
if not mark.exists():
    mark.mkdir()
    os.kill(os.getpid(), signal.SIGKILL)"""
SHOW_GPU = """\
import os
from pathlib import Path

names = "CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH"
Path(output, "gpu").write_text(" ".join(os.environ[name] for name in names))"""
SHOW_CORES = """\
import os
from pathlib import Path

Path(output, "cores").write_text(repr(sorted(os.sched_getaffinity(0))))
Path(output, "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))"""


def test_runs_fail_apart_and_only_transient_causes_are_tried_again(
    project, write_notebook, write_run
):
    def run(name, *sources):
        notebook = write_notebook(*sources, name=f"{name}_notebook")
        return plan_run(notebook, {}, project / "out" / name)

    mine = project / "out" / "mine"
    mine.mkdir(parents=True)
    (mine / "thesis.tex").write_text("")
    tries = "from pathlib import Path\nPath(output, 'tries').open('a').write('x')"
    dies, fine = run("dies", DIE_ONCE), run("fine", SHOW_CORES)
    write_run(fine.folder)  # of other parameters, so it is run afresh
    found, told = outcomes(
        [
            dies,
            run("never", "from pathlib import Path", DIE_ONCE.replace("if not", "if True or not")
                .replace("mkdir()", "mkdir(exist_ok=True)")),
            run("raises", tries + "\n1 / 0"),
            run("refuses", "from cifar_utils.errors import InputError\nraise InputError('no')"),
            run("mine"),
            fine,
        ]
    )  # fmt: skip

    def tried(name):
        return len((project / "out" / name / "tries").read_text())

    statuses = {name: outcome.word for name, outcome in found.items()}
    failed = dict.fromkeys(("never", "raises", "refuses", "mine"), "failed")
    assert statuses == failed | {"dies": "finished", "fine": "finished"}
    assert (tried("dies"), tried("never"), tried("raises")) == (2, 2, 1)
    assert "the kernel died" in found["never"].why
    assert found["raises"].why == "ZeroDivisionError: division by zero"
    assert any("1 / 0" in line for line in found["raises"].details)
    assert found["refuses"].why == "no"
    assert "holds files but no run" in found["mine"].why
    assert [name for name, event in told if event["event"] == "retry"].count("dies") == 1
    assert ("fine", 2) in [(name, event.get("epoch")) for name, event in told]
    cores = json.loads((project / "out" / "fine" / "cores").read_text())
    assert cores in shares(sorted(os.sched_getaffinity(0)), 2)
    assert (project / "out" / "fine" / "threads").read_text() == os.environ.get(
        "OMP_NUM_THREADS", ""
    )


def test_a_changed_run_is_run_afresh_by_one_of_two_series(project, write_notebook, write_run):
    first, changed = (
        plan_run(write_notebook(name=name), {}, project / "out" / name)
        for name in ("first", "changed")
    )
    write_run(changed.folder)  # of other parameters
    others = []

    def show(name, event):
        if (name, event["event"]) == ("first", "start"):  # another series meets the folder now
            others.append(outcomes([changed])[0]["changed"].word)

    found = {run.name: status.word for run, status in run_series([first, changed], show, jobs=1)}
    assert (found, others) == ({"first": "finished", "changed": "done"}, ["finished"])


def test_a_run_that_is_left_alone_has_no_more_cores_than_beside_others(project, write_notebook):
    notebook = write_notebook(SHOW_CORES)
    runs = [plan_run(notebook, {}, project / "out" / f"r{number}") for number in range(2)]
    assert outcomes(runs[:1])[0]["r0"].word == "finished"
    found, _ = outcomes(runs)
    assert [found[run.name].word for run in runs] == ["done", "finished"]
    cores = json.loads((runs[1].folder / "cores").read_text())
    assert cores in shares(usable_cores(), 2)


def test_runs_that_share_a_gpu_are_told_which_and_grow(project, write_notebook, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    notebook = write_notebook(SHOW_GPU)
    runs = [plan_run(notebook, {}, project / "out" / f"r{number}") for number in range(2)]
    assert {status.word for status in outcomes(runs)[0].values()} == {"finished"}
    assert {(run.folder / "gpu").read_text() for run in runs} == {"GPU-1 true"}


def test_a_run_without_room_for_its_notebook_fails_apart(project, write_notebook, monkeypatch):
    runs = [plan_run(write_notebook(), {}, project / "out" / f"r{number}") for number in range(2)]
    folders, make = iter([OSError(28, "No space left on device")]), tempfile.TemporaryDirectory

    def sometimes(*args, **options):
        for error in folders:
            raise error
        return make(*args, **options)

    monkeypatch.setattr("cifar_utils.reporting.execute.tempfile.TemporaryDirectory", sometimes)
    found, _ = outcomes(runs, jobs=1)
    assert [found[run.name].word for run in runs] == ["failed", "finished"]
    assert "No space left" in found["r0"].why
