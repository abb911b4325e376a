"""Kill runs at random moments, resume them, and compare their records with those of unbroken runs.

Each case is a short training on digits, by `cifar-reports run` or `cifar-reports series`. The first
run has no kills: the reference. Further runs follow, each in a new folder. SIGKILL ends the command
of each up to four times, and the command is repeated at once, until it ends by itself.

A kill ends either the command alone, so that its kernel loses its parent, or the command with all
of its processes. Seed, case and number of the kill give the moment: a phase of one of the runs, and
a share of the seconds that the phase took in the reference. The phases are start (until data are
loaded), load, train (until the first step), epochs, evaluate and export (once there is a record).

The killed run must end with the record of the reference: all losses, accuracies, scores and
predictions are equal to the bit. Only seconds may differ. It must leave no lock and no unfinished
file in its folder, and no process.

A power cut is a copy of the disk in mid-epoch. The run writes to an ext4 file system in a file, and
this file is copied meanwhile. Data that were not synced are not in the copy. The run resumes there.

    python benchmarks/kill_campaign.py                             an hour or two on two cores
    python benchmarks/kill_campaign.py --only "gn*" --kills 8 --seed 1
    python benchmarks/kill_campaign.py --kills 0 --power-cuts 3    Linux, as root

The program itself may be stopped: the same command goes on with the missing runs. It prints a line
for each kill and each run, and a table at the end. The output of the commands is in *.log.
"""

import argparse
import fnmatch
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from cifar_utils.events import read_events

PHASES = ("start", "load", "train", "epochs", "evaluate", "export")
KILLS_OF_A_RUN, TRIES = 4, 5
SMALL = {"train_limit": 300, "test_limit": 60}


class Case(NamedTuple):
    """A command of `cifar-reports`, and the names of its runs."""

    arguments: tuple[str, ...]
    runs: tuple[str, ...]


def cases(work: Path) -> dict[str, Case]:
    def run(notebook: str, **parameters) -> Case:
        pairs = [("-p", f"{name}={value}") for name, value in (SMALL | parameters).items()]
        return Case(("run", notebook, *itertools.chain.from_iterable(pairs)), ("run",))

    def row(name: str, notebook: str, **parameters) -> dict:
        return {"name": name, "notebook": notebook, "parameters": SMALL | parameters}

    series = [  # two at once, each on half of the cores
        row("resnet", "02_resnet", epochs=5),
        row("vgg", "01_vgg_like", epochs=4),
        row("again", "01_vgg_like", epochs=3, seed=1),
    ]
    file = work / "series.yaml"
    file.write_text(json.dumps({"profiles": {"quick": series}}))  # JSON is YAML
    return {
        "gn_resnet": run("02_resnet", architecture="gn_resnet", epochs=6, learning_rate=0.01),
        "series": Case(("series", str(file), "--jobs", "2"), ("resnet", "vgg", "again")),
        "depth_and_width": run("05_depth_and_width", epochs=2, train_limit=120),
    }


def main() -> None:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=text)
    parser.add_argument("--seed", type=int, default=0, help="of kinds and moments")
    parser.add_argument("--kills", type=int, default=40, help="how many SIGKILLs (default: 40)")
    parser.add_argument("--power-cuts", type=int, default=0, metavar="N", help="of the first case")
    parser.add_argument("--only", default="*", metavar="GLOB", help="which cases")
    default = Path("reports", "kills")
    parser.add_argument("--output", type=Path, default=default, help=f"default: {default}")
    options = parser.parse_args()
    work = options.output.absolute()
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    os.environ["TMPDIR"] = str(work / "tmp")
    for process in alive():  # a command that outlived this program when it was stopped
        with suppress(psutil.NoSuchProcess):
            process.kill()
    known = cases(work)
    chosen = {name: known[name] for name in fnmatch.filter(known, options.only)}
    if not chosen:
        parser.error(f"no case fits {options.only}; there are {', '.join(known)}")
    if options.power_cuts and not (shutil.which("mkfs.ext4") and os.geteuid() == 0):
        parser.error("--power-cuts needs mkfs.ext4 and root, to mount a disk's image")
    for name, case in chosen.items() if options.kills else [*chosen.items()][:1]:
        measure(work / name, case)
    if options.kills:
        campaign(work, chosen, options.kills, options.seed)
    for number in range(options.power_cuts):
        cut_power(work, *next(iter(chosen.items())), options.seed, number)
    found = (rows(work / name) for name in ("ended.jsonl", "kills.jsonl"))
    print_table(*([row for row in each if row["seed"] == options.seed] for each in found))


def measure(folder: Path, case: Case) -> None:
    """Run the case without kills, if that is not done yet, and keep the seconds of its phases."""
    if (folder / "phases.json").exists():
        return
    say(f"{folder.name}: without kills")
    shutil.rmtree(folder / "reference", ignore_errors=True)
    since, begun = time.time(), {name: {} for name in case.runs}
    process = launch(folder / "reference", case)
    while process.poll() is None:
        for name, marks in begun.items():
            run = folder / "reference" / name
            if run.exists():
                found = "end" if is_finished(run) else phase(run, 0, since)
                marks.setdefault(found, time.time())
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"it failed; see {folder}/reference.log")
    seconds = {
        name: {one: end - at for (one, at), (_, end) in itertools.pairwise(marks.items())}
        for name, marks in begun.items()
    }
    (folder / "phases.json").write_text(json.dumps(seconds))


def campaign(work: Path, chosen: dict[str, Case], kills: int, seed: int) -> None:
    """Run the cases in turn, again and again, until there were ``kills`` kills."""
    for number, name in ((number, name) for number in itertools.count() for name in chosen):
        case = chosen[name]
        this = {"case": name, "seed": seed, "number": number}
        folder = work / name / f"{seed}-{number}"
        killed = [
            row
            for row in rows(work / "kills.jsonl")
            if row["case"] in chosen and row["seed"] == seed
        ]
        own = sum(row.items() >= this.items() for row in killed)
        if any(row.items() >= this.items() for row in rows(work / "ended.jsonl")):
            continue
        if len(killed) >= kills and not own:
            return
        for place in range(own, min(KILLS_OF_A_RUN, own + kills - len(killed))):
            draw = random.Random(f"{seed} {name} {number} {place}")
            row = kill(folder, case, json.loads((work / name / "phases.json").read_text()), draw)
            if row is None:
                break
            append(work / "kills.jsonl", this | row)
            total = len(killed) - own + place + 1
            say(
                f"{total} of {kills}: {name} {number}, {row['kind']} at {row['at']}, {row['epoch']}"
            )
        append(work / "ended.jsonl", this | finish(folder, case, work / name / "reference"))


def launch(folder: Path, case: Case) -> subprocess.Popen:
    """Start the case's command, whose runs go to a folder, in a session of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "run" if case.arguments[0] == "run" else folder
    command = [sys.executable, "-m", "cifar_utils.reporting.cli", *case.arguments]
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            [*command, "--output", output], stdout=log, stderr=log, start_new_session=True
        )


def phase(run: Path, position: int, since: float) -> str:
    """The phase that a run is in, by its record and by its events after a position."""
    record = run / "record.json"
    if record.exists() and record.stat().st_mtime > since:
        return "export"
    told = [
        "epochs" if event["event"] in ("batch", "epoch") else event.get("phase")
        for event in read_events(run / "events.jsonl", position)[0]
    ]
    return next((each for each in reversed(told) if each in PHASES), "start")


def epoch(run: Path) -> int:
    """The last epoch in a run's events."""
    return max((event.get("epoch", 0) for event in read_events(run / "events.jsonl")[0]), default=0)


def kill(folder: Path, case: Case, seconds: dict, draw: random.Random) -> dict | None:
    """Start the command and kill it; None if it ended before."""
    left = [name for name in case.runs if not is_finished(folder / name)]
    if not left:
        return None
    run, aimed = folder / draw.choice(left), PHASES.index(draw.choice(PHASES))
    share, kind = draw.random(), draw.choice(["command", "all"])
    events = run / "events.jsonl"
    position, since = events.stat().st_size if events.exists() else 0, time.time()
    process = launch(folder, case)
    while PHASES.index(found := phase(run, position, since)) < aimed and process.poll() is None:
        time.sleep(0.1)
    try:
        process.wait(share * seconds[run.name].get(found, 0))
        return None
    except subprocess.TimeoutExpired:
        at = phase(run, position, since)
        end(process, kind)
        return {"kind": kind, "run": run.name, "at": at, "epoch": epoch(run)}


def end(process: subprocess.Popen, kind: str) -> None:
    """Kill a command, alone or with its processes."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children if kind == "all" else []:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children if kind == "all" else [])
    process.wait()


def finish(folder: Path, case: Case, reference: Path) -> dict:
    """Repeat the command until its runs have ended; return differences and what is left behind."""
    commands, done = 0, False
    while not done:
        if commands == TRIES:
            sys.exit(f"{folder} does not come to its end; see {folder}.log")
        launch(folder, case).wait()
        commands, done = commands + 1, all(is_finished(folder / name) for name in case.runs)
    pairs = [(reference / name, folder / name) for name in case.runs]
    differing = [f"{b.name}: {what}" for a, b in pairs for what in differences(a, b)]
    left = [str(path) for path in folder.rglob(".*")]
    psutil.wait_procs(alive(), timeout=10)  # some may be about to end
    staying = [process.pid for process in alive()]
    result = {"commands": commands, "differing": differing, "left": left, "alive": staying}
    say(f"{folder.parent.name} {folder.name}: {json.dumps(result)}")
    return result


def is_finished(run: Path) -> bool:
    """Whether a run is marked as finished, and has a record and a page."""
    if not all((run / name).exists() for name in ("run.json", "record.json", "report.html")):
        return False
    return json.loads((run / "run.json").read_text()).get("outcome") == "finished"


def differences(reference: Path, found: Path) -> list[str]:
    """The parts that are not equal to the bit."""
    a, b = (untimed(json.loads((run / "record.json").read_text())) for run in (reference, found))
    differing = [name for name in a | b if a.get(name) != b.get(name)]
    with np.load(reference / "predictions.npz") as a, np.load(found / "predictions.npz") as b:
        same = set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in a)
    return differing + ["predictions"] * (not same)


def untimed(value):
    """A record without its seconds."""
    if isinstance(value, dict):
        return {name: untimed(each) for name, each in value.items() if name != "seconds"}
    return [*map(untimed, value)] if isinstance(value, list) else value


def cut_power(work: Path, name: str, case: Case, seed: int, number: int) -> None:
    """Copy the disk in mid-epoch, and resume from the copy."""
    this = {"case": f"{name}, power cuts", "seed": seed, "number": number}
    folder = work / f"power-cut-{seed}-{number}"
    if any(row.items() >= this.items() for row in rows(work / "ended.jsonl")):
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    draw, disk, copy = random.Random(f"{seed} {number}"), folder / "disk.img", folder / "copy.img"
    with disk.open("wb") as file:
        file.truncate(200_000_000)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    aimed = draw.randint(2, 5)
    with mounted(disk) as place:
        process = launch(place / "runs", case)
        run = place / "runs" / case.runs[0]
        while epoch(run) < aimed and process.poll() is None:
            time.sleep(0.02)
        subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
        told = epoch(run)
        end(process, "all")
    with mounted(copy) as place:
        states = (place / "runs").glob("*/checkpoint/state.json")
        kept = [len(json.loads(file.read_text())["epochs"]) for file in states]
        say(f"power cut {number} in epoch {told}; the disk has {max(kept, default=0)} epochs")
        append(work / "ended.jsonl", this | finish(place / "runs", case, work / name / "reference"))


@contextmanager
def mounted(image: Path):
    """The folder of a disk image's files."""
    place = image.with_suffix("")
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def print_table(ended: list[dict], kills: list[dict]) -> None:
    """A row for each case: runs, kills, and the numbers of runs with faults."""
    print("| case | runs | SIGKILLs | records that differ | files left | processes left |")
    print("|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["case"] for row in ended):
        own, killed = ([row for row in each if row["case"] == name] for each in (ended, kills))
        at = Counter(row["at"] for row in killed)
        told = f"{len(killed)}: {', '.join(f'{one} {n}' for one, n in at.items())}"
        wrong = (sum(bool(row[key]) for row in own) for key in ("differing", "left", "alive"))
        print(f"| {name} | {len(own)} | {told} | {' | '.join(map(str, wrong))} |")


def alive() -> Iterator[psutil.Process]:
    """Running processes of all commands so far, known by our folder for temporary files."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.environ().get("TMPDIR") == os.environ["TMPDIR"]
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(file: Path, row: dict) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
