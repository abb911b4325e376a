import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_utils.provenance import usable_cores
from cifar_utils.reporting.cluster import connected, run_series, shares
from cifar_utils.reporting.notebooks import plan_run


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


def test_a_run_that_is_left_alone_has_no_more_cores_than_beside_others(monkeypatch):
    started, client = {}, MagicMock()
    local = MagicMock(side_effect=lambda **options: started.update(options) or MagicMock())
    monkeypatch.setattr("cifar_utils.reporting.cluster.LocalCluster", local)
    monkeypatch.setattr("cifar_utils.reporting.cluster.Client", client)
    with connected(2, None, runs=2, left=1) as connection:
        ((share, *_), _) = connection.register_plugin.call_args
    assert started["n_workers"] == 1
    assert share.cores == shares(usable_cores(), 2)


@pytest.fixture
def cluster(tmp_path_factory):
    """A scheduler and two workers, processes on their own; its address, and the workers."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    started = []

    def start(*command):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, **quiet)
        started.append(process)
        return process

    try:
        start(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
            "--no-dashboard", "--scheduler-file", str(file),
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [
            start(
                "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
                "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
            )
            for _ in range(2)
        ]  # fmt: skip
        yield json.loads(file.read_text())["address"], workers
    finally:
        for process in started:
            process.kill()
            process.wait()


WORK = """\
import os, time
from pathlib import Path

Path(output, f"{os.getppid()}-{os.getpid()}").write_text("")
for _ in range(2000):  # until a worker has been killed
    if Path(output).with_name("killed").exists():
        break
    time.sleep(0.05)"""


def test_a_worker_that_is_killed_costs_no_run(project, write_notebook, cluster, alive):
    address, workers = cluster
    notebook = write_notebook(WORK)
    runs = [plan_run(notebook, {}, Path("out", f"r{number}")) for number in range(2)]
    victim, killed = workers[0], []

    def kill():
        while not (begun := list((project / "out").glob(f"*/{victim.pid}-*"))):
            time.sleep(0.05)
        victim.send_signal(signal.SIGKILL)
        killed.extend(begun)
        (project / "out" / "killed").touch()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    found, _ = outcomes(runs, jobs=None, scheduler=address)
    killer.join(1)
    assert {outcome.word for outcome in found.values()} == {"finished"}
    assert len(found) == 2
    assert killed
    again = list(killed[0].parent.glob(f"{workers[1].pid}-*"))
    assert again, "the run went to the other worker"
    assert not alive(int(killed[0].name.partition("-")[2]))
    assert outcomes(runs[:1])[0]["r0"].word == "done"
