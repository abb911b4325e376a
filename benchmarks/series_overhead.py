"""The time that a series adds to its notebooks; it should grow linearly with the number of runs.

``cifar-reports series`` executes runs of a notebook that only writes a record, at several counts.
The time of a run is the additional time of a longer series, divided by the additional runs. As
always, each run has a fresh kernel, an executed notebook and a page. To repeat it::

    python benchmarks/series_overhead.py                 # 10, 100 and 1,000 runs; half an hour
    python benchmarks/series_overhead.py 10 60 --jobs 1

It prints for each count: seconds in all, seconds a run, and seconds for each additional run since
the count before. With linear growth the last column stays the same. Measure on an idle machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

RECORD = {
    "schema": 1,
    "run": "nothing",
    "notebook": "nothing",
    "parameters": {},
    "dataset": {"name": "none", "note": "", "train": 0, "validation": 0, "test": 0},
    "model": {"architecture": "none", "parameters": 1},
    "environment": {},
    "seconds": {"train": 0.0, "total": 0.0},
    "history": [],
    "best_epoch": 0,
    "scores": {
        "test": {
            "n": 0,
            "top1": 0.0,
            "top1_interval": [0.0, 1.0],
            "top5": 0.0,
            "top5_interval": [0.0, 1.0],
            "per_class": {},
        }
    },
}
PARAMETERS = """\
number: int = 0  # at least 0: which of the runs it is
output: str = None  # the run's folder"""
WRITE = f"""\
import json
from pathlib import Path

Path(output, "record.json").write_text(json.dumps({RECORD!r}))"""


def main() -> None:
    """Print a line for each count of runs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("counts", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.jobs} at once")
    print(f"{'runs':>6} {'seconds':>9} {'a run':>7} {'each more':>10}")
    last_count, last_seconds = 0, 0.0
    for count in options.counts:
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure(Path(folder), count, options.jobs)
        more = (seconds - last_seconds) / (count - last_count)
        print(f"{count:6} {seconds:9.1f} {seconds / count:7.2f} {more:10.2f}", flush=True)
        last_count, last_seconds = count, seconds


def measure(folder: Path, count: int, jobs: int) -> float:
    """Seconds that a series of no-op runs takes, from the command's start to its end."""
    command = prepare(folder, count, jobs)
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def prepare(folder: Path, count: int, jobs: int) -> list[str]:
    """The command of a series of no-op runs; its files and its output lie in a folder."""
    new = nbformat.v4
    parameters = new.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    cells = [new.new_markdown_cell("# Nothing\n\nDoes nothing."), parameters]
    nbformat.write(
        new.new_notebook(cells=[*cells, new.new_code_cell(WRITE)]), folder / "nothing.ipynb"
    )
    run = {
        "name": "run",
        "notebook": "nothing.ipynb",
        "matrix": {"number": list(range(count))},
    }
    file = folder / "series.yaml"
    file.write_text(json.dumps({"profiles": {"quick": [run]}}))  # JSON is YAML
    command = [sys.executable, "-m", "cifar_utils.reporting.cli", "series", str(file)]
    return [*command, "--jobs", str(jobs), "--output", str(folder / "out")]


if __name__ == "__main__":
    main()
