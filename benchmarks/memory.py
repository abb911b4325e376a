"""Memory of long processes: a search's kernel over its trials, a series' command over its runs.

It runs notebook 07 with small trainings, and a series of runs that only write a record. It prints
a line for each trial, and for some of the runs. To repeat it::

    python benchmarks/memory.py --trials 25 --runs 60    # ten minutes on two cores
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from series_overhead import prepare

from cifar_utils.events import read_events

SEARCH = {
    "space": "learning_rate(0.001, 0.1)", "epochs": 1, "train_limit": 100, "test_limit": 50
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=25, help="of the search; 0 for none")
    parser.add_argument("--runs", type=int, default=60, help="of the series; 0 for none")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.trials:
            watch_search(Path(folder), options.trials)
        if options.runs:
            watch_series(Path(folder), options.runs)


def watch_search(folder: Path, trials: int) -> None:
    """Print the memory of a search's kernel whenever a trial begins."""
    given = [f"{name}={value}" for name, value in {**SEARCH, "trials": trials}.items()]
    given = [word for each in given for word in ("-p", each)]
    command = [sys.executable, "-m", "cifar_utils.reporting.cli", "run", "07_tuning", *given]
    process = subprocess.Popen([*command, "--output", folder / "search"], stdout=subprocess.DEVNULL)
    position = 0
    while process.poll() is None:
        events, position = read_events(folder / "search" / "events.jsonl", position)
        for event in events:
            if event["event"] == "trial":
                kernel = max(map(megabytes, psutil.Process(process.pid).children(recursive=True)))
                print(f"trial {event['trial']}: the kernel has {kernel:,.0f} MB", flush=True)
        time.sleep(0.2)


def watch_series(folder: Path, runs: int) -> None:
    """Print memory and open files of a series' command as some of its runs end."""
    process = subprocess.Popen(prepare(folder, runs, 1), stdout=subprocess.PIPE, text=True)
    command = psutil.Process(process.pid)
    for number in range(1, runs + 1):
        process.stdout.readline()
        if number % 5 == 0:
            held = f"{megabytes(command):,.0f} MB and {command.num_fds()} open files"
            print(f"run {number}: the command has {held}", flush=True)
    process.communicate()


def megabytes(process: psutil.Process) -> float:
    """The memory of a process; 0 if it has ended."""
    try:
        return process.memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    main()
