import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest

from cifar_utils import __version__
from cifar_utils.reporting.cli import commands
from cifar_utils.reporting.terminal import interruptible
from cifar_utils.runs.folder import Run, Status

SCORES = "test top-1 87.5% (86.0 to 89.0%), test top-5 99.1% (98.0 to 99.5%)"


def test_what_there_is_to_run_is_told(cli, write_notebook):
    assert "cifar-reports run 01\n" in cli("run", "--help")[1]
    assert cli()[1] == cli("--help")[1]
    for command in ([], *([name] for name in commands.commands)):
        assert max(map(len, cli(*command, "--help")[1].splitlines())) <= 80, command
    assert __version__ in cli("--version")[1]
    status, _, err = cli("list")
    assert status == 2
    assert "no notebooks in" in err
    write_notebook()
    write_notebook(name="02_other")
    _, out, _ = cli("list")
    assert "01_tiny   A first paragraph." in out
    assert "02_other" in out
    _, out, _ = cli("parameters", "01")
    row = next(line for line in out.splitlines() if line.startswith("dataset"))
    assert row.rstrip().split(maxsplit=3) == [
        "dataset", "str", "'digits'", "digits | cifar10: what is classified",
    ]  # fmt: skip
    assert "output" not in out
    _, out, _ = cli("options", "schedule")
    row = next(line for line in out.splitlines() if line.startswith("cosine"))
    assert "half a cosine" in row
    _, out, _ = cli("options", "schedule", "cosine")
    assert out.splitlines()[-1].split(None, 3)[:3] == ["warmup", "float", "0.0"]
    assert "at least 0, below 1" in out
    assert "Share of all steps in which the rate first rises" in " ".join(out.split())
    _, out, _ = cli("options", "architecture", "resnet20")
    row = next(line for line in out.splitlines() if line.startswith("head_dropout"))
    assert row.split(maxsplit=3)[1:3] == ["float", "0.0"]
    assert "Rate before the classifier" in row


def test_a_terminal_of_few_letters_gets_others_replaced(write_notebook, project):
    write_notebook(title="x", parameters="rate: float = 1.0  # à part")
    command = [sys.executable, "-m", "cifar_utils.reporting.cli", "parameters", "1"]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b"? part" in done.stdout


def test_a_run_and_the_same_again(cli, write_notebook, project):
    write_notebook()
    command = ["run", "01", "-p", "note=a=b", "-p"]
    status, out, err = cli(*command, "epochs=3", "--output", "mine")
    assert (status, err) == (0, "")
    assert Run(project / "mine").facts["parameters"]["note"] == "a=b"
    assert "mine: epoch 3/3" in out
    end = f"mine: {SCORES}, time 1 min 5 s, done"
    assert out.splitlines()[-2:] == [end, "page: mine/report.html"]
    status, out, err = cli(*command, "epochs=3", "--output", "mine")
    assert (status, err) == (0, "")
    again = " before; --force runs it again"
    assert out.splitlines() == [end + again, "page: mine/report.html"]
    status, out, err = cli(*command, "epochs=4", "--output", "mine")
    assert (status, out) == (2, "")
    assert "a run that differs: epochs is 3, not 4" in err
    (project / "mine" / "report.html").unlink()
    assert cli("export", "mine")[1] == "page: mine/report.html\n"
    assert cli("export", "mine/notebook.ipynb")[1] == "page: mine/notebook.html\n"
    assert cli("site", ".")[1] == "index: index.html\n"
    assert {path.name for path in project.rglob("*.html")} == {
        "report.html", "notebook.html", "index.html",
    }  # fmt: skip
    write_notebook("print('yet another cell')")
    Path("mine/notes.txt").write_text("my own")
    status, out, err = cli(*command, "epochs=3", "--output", "mine")
    assert (status, out) == (2, "")
    assert (
        "mine holds a run that differs: its notebook has changed; give --output another folder"
        in err
    )
    assert cli(*command, "epochs=3", "--force", "--output", "mine")[0] == 0
    assert Path("mine/notes.txt").read_text() == "my own"


def test_a_failing_notebook_is_status_1_and_has_a_page(cli, write_notebook):
    write_notebook("print('before')", "1 / 0")
    status, out, err = cli("run", "01", "-p", "note=<script>alert(1)</script>")
    assert status == 1
    (name,) = [folder.name for folder in Path("reports").iterdir()]
    assert err.splitlines()[0] == f"{name} failed: ZeroDivisionError: division by zero"
    assert out == f"page: reports/{name}/report.html\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "01", "-p", "epoch=3"], "did you mean 'epochs'?"),
        (["run", "01", "-p", "epochs"], "-p is 'epochs'; write it as NAME=VALUE"),
        (["data", "fetch", "digit"], "did you mean 'digits'?"),
        (["options", "architectur"], "'architectur' is not one of"),
        (["run", "01", "--output", "s3://bucket"], "a folder, not an address"),
        (["run", "01", "--output", "notebooks"], "holds files but no run"),
        (["run", "01", "--output", "notebooks/01_tiny.ipynb/x"], "can't be written"),
        (["rnu"], "Did you mean 'run'?"),
        (["compare", "notebooks", "none"], "notebooks holds no run; give a run's folder"),
        (["clean", "none"], "'none' does not exist"),
        (["leaderboard", "notebooks"], "no finished run below notebooks; make some"),
        (["leaderboard", "none"], "'none' does not exist"),
        (["series", "--only", "x*"], "no run fits --only x*; there are one"),
        (["series", "--profile", "full"], "unknown profile 'full'; known: quick"),
        (["series", "--jobs", "0"], "'--jobs'"),
        (["series", "--jobs", "2", "--scheduler", "tcp://a:1"], "leave it or --scheduler out"),
        (["series", "--scheduler", "x"], "--scheduler is 'x'; give an address as tcp://"),
        (["series", "--scheduler", "tcp://"], "--scheduler is 'tcp://'; give an address as tcp://"),
        (["series", "--scheduler", "x://a:1"], "no scheduler can be reached at 'x://a:1'"),
        (["series", "--scheduler", "tcp://127.0.0.1:9"], "no scheduler can be reached at 'tcp://"),
        (["series", "--output", "s3://KEY:SECRET@x"], "--output takes a folder, not an address"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    cli, write_notebook, write_series, project, monkeypatch, arguments, words
):
    monkeypatch.setattr("cifar_utils.reporting.cluster.CONNECT_SECONDS", 1)
    write_notebook()
    write_series("{name: one, notebook: 01_tiny}")
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert "SECRET" not in err
    assert err.count("\n") == 1
    there = {path.name for path in project.rglob("*")}
    assert there == {"notebooks", "01_tiny.ipynb", "series.yaml"}


@pytest.fixture
def write_series(project):
    """Write the project's series file, of the profile ``quick``."""

    def write_series(*rows: str) -> Path:
        file = project / "notebooks" / "series.yaml"
        file.write_text("profiles:\n  quick:\n" + "".join(f"    - {row}\n" for row in rows))
        return file

    return write_series


def test_a_series_ends_in_an_index(
    cli, write_notebook, write_series, write_run, project, monkeypatch
):
    error = "ZeroDivisionError: division by zero"
    statuses = [Status("finished"), Status("failed", error, details=("1 / 0", error))]

    def run_series(runs, show, *, force, jobs, scheduler):
        assert (force, jobs, scheduler) == (False, 1, None)
        for run, status in zip(runs, statuses, strict=True):
            write_run(run.folder, top1=0.875)
            run.write_facts(run.identity() | {"outcome": status.word, "error": status.why})
            run.page.touch()
            yield run, status

    write_notebook()
    write_notebook(name="02_bad")
    rows = "{name: one, notebook: 01_tiny}", "{name: two, notebook: 02_bad}"
    write_series(*rows)
    _, out, _ = cli("series", "--dry-run")
    told = [line.split(maxsplit=2) for line in out.splitlines()]
    assert told[1:] == [["one", "new", "not run yet"], ["two", "new", "not run yet"]]
    assert not (project / "reports").exists()
    with monkeypatch.context() as patch:
        patch.setattr("cifar_utils.reporting.series.run_series", run_series)
        status, out, err = cli("series", "--jobs", "1")
    assert status == 1
    assert "/2] one: test top-1 87.5%" in out
    assert out.splitlines()[-1] == "index: reports/quick/index.html"
    assert "/2] two failed: ZeroDivisionError" in err
    assert f"    {error}\n" in err
    assert err.splitlines()[-1] == "1 of 2 runs failed"
    index = (project / "reports" / "quick" / "index.html").read_text()
    assert 'href="one/report.html"' in index
    assert error in index
    _, out, _ = cli("series", "--dry-run", "--only", "t*")
    assert out.splitlines()[1].split(maxsplit=2) == [
        "two",
        "unfinished",
        f"it failed: {error}",
    ]
    write_series(rows[0])
    status, out, err = cli("series")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "[1/1] one: test top-1 87.5% (86.5 to 88.5%), test top-5 99.1% (98.0 to 99.5%), "
        "time 1 min 5 s, done before, skipped",
        "index: reports/quick/index.html",
    ]

    page = project / "reports/quick/index.html"
    page.unlink()
    page.mkdir()
    status, _, err = cli("series")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("no index: reports/quick/index.html can't be written (")
    page.rmdir()
    notes = project / "reports/quick/notes.yaml"
    notes.write_text("one: [")
    status, _, err = cli("series")
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith(f"no index: {notes} has no lines of the form")
    notes.unlink()
    _, out, _ = cli("series", "--force", "--dry-run")
    assert out.splitlines()[1].split(maxsplit=2) == ["one", "stale", "--force runs it afresh"]
    write_series("{name: one, notebook: 01_tiny, parameters: {epochs: 9}}")
    _, out, _ = cli("series", "--dry-run")
    assert out.splitlines()[1].split(maxsplit=2) == ["one", "stale", "epochs is 2, not 9"]


def test_data_is_fetched(cli):
    status, out, _ = cli("data", "fetch", "digits")
    assert status == 0
    assert "digits.csv.gz" in out


WAIT = """\
import os
import time
from contextlib import suppress
from pathlib import Path

checkpoint = Path(output, "checkpoint")
first = not checkpoint.exists()
checkpoint.mkdir(exist_ok=True)
if first:
    Path(output, "pid").write_text(str(os.getpid()))
    time.sleep(600)"""


def begin(command: list[str], pid: Path, **environment: str) -> tuple[subprocess.Popen, int]:
    """Start a command, and wait for its run's kernel to tell its number in a file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cifar_utils.reporting.cli", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        # What a shell runs in the background, or nohup, has signals ignored, and passes that on.
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in SIGNALS.values()],
        start_new_session=True,  # as a terminal does, whose Ctrl-C goes to the whole group
    )
    try:
        deadline = time.monotonic() + 600
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return process, int(pid.read_text())
    except BaseException:
        process.kill()
        raise


def gone(left, pid: int) -> bool:
    """Whether nothing is ``left`` of a process within a minute; a second is enough as a rule."""
    deadline = time.monotonic() + 300
    while left(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not left(pid)


SIGNALS = {"ctrl-c": signal.SIGINT, "term": signal.SIGTERM, "hangup": signal.SIGHUP}


def group(leader: int) -> list[int]:
    """The processes of a group that run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.parametrize("kind", SIGNALS.values())
def test_a_second_signal_does_not_disturb_the_end(kind):
    ended = []

    def work():
        with interruptible():
            try:
                signal.raise_signal(kind)
            finally:
                for each in SIGNALS.values():
                    signal.raise_signal(each)
                ended.append(True)

    before = signal.signal(kind, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert ended
        assert signal.getsignal(kind) is signal.default_int_handler
    finally:
        signal.signal(kind, before)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("run", "ctrl-c"),
        ("series", "term"),
        ("series", "kill"),
        pytest.param("run", "term", marks=pytest.mark.slow),
        pytest.param("series", "hangup", marks=pytest.mark.slow),
        pytest.param("series", "ctrl-c", marks=pytest.mark.slow),
    ],
)
def test_what_is_stopped_leaves_no_kernel_and_goes_on(
    cli, write_notebook, write_series, project, alive, kind, how
):
    write_notebook("print('before')", WAIT)
    write_series("{name: one, notebook: 01_tiny}")
    folder, scratch = project / "out" / "one", project / "scratch"
    scratch.mkdir()
    commands = {
        "run": ["run", "01", "--output", "out/one"],
        "series": ["series", "--jobs", "1", "--output", "out"],
    }
    process, kernel = begin(commands[kind], folder / "pid", TMPDIR=str(scratch))
    if how == "kill":
        process.kill()
        process.communicate(timeout=600)
        assert gone(alive, kernel)
    else:
        at_once = cli(*commands["series"])
        os.killpg(process.pid, SIGNALS[how])  # as a terminal does
        _, err = process.communicate(timeout=600)
        assert process.returncode == 130
        assert err == "interrupted; the same command goes on from the last checkpoint\n"
        assert not alive(kernel)
        assert gone(group, process.pid)
        assert [*scratch.iterdir(), *folder.glob(".*")] == []
        assert "unfinished" in cli(*commands["series"], "--dry-run")[1]
        assert at_once[::2] == (0, "")
        assert "[1/1] one: being run by process " in at_once[1]
    nbformat.validate(nbformat.read(folder / "notebook.ipynb", as_version=4))
    assert "outcome" not in Run(folder).facts
    assert cli(*commands[kind])[0] == 0


def test_a_kernel_whose_command_is_killed_keeps_its_folder(
    cli, write_notebook, project, monkeypatch
):
    write_notebook(WAIT)
    command = ["run", "01", "--output", "out"]
    process, number = begin(command, project / "out" / "pid")
    kernel = psutil.Process(number)
    monkeypatch.setattr("cifar_utils.reporting.execute.LOCK_SECONDS", 0)
    assert f"being run by process {process.pid}" in cli(*command)[1]
    kernel.suspend()  # so that it can't notice that the command has gone
    process.kill()
    process.communicate(timeout=600)
    assert "a kernel that outlived its process is about to end" in cli(*command)[1]
    kernel.resume()
    kernel.wait(60)
    assert cli(*command)[0] == 0
