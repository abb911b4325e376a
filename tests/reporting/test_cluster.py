import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cifar_utils.reporting.notebooks import plan_run
from cifar_utils.reporting.series import run_series


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
    found = list(run_series(runs, lambda *_: None, scheduler=address))
    killer.join(1)
    assert {status.word for _, status in found} == {"finished"}
    assert len(found) == 2
    assert killed
    again = list(killed[0].parent.glob(f"{workers[1].pid}-*"))
    assert again, "the run went to the other worker"
    assert not alive(int(killed[0].name.partition("-")[2]))
    assert [status.word for _, status in run_series(runs[:1], lambda *_: None)] == ["done"]
