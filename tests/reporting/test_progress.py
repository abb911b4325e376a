import io
import re

import pytest
from rich.console import Console

from cifar_utils.reporting.progress import describe, follow, shown_progress

EPOCH = {
    "time": 0.0,
    "event": "epoch",
    "epoch": 3,
    "epochs": 20,
    "loss": 0.5118,
    "accuracy": 0.841,
    "val_accuracy": 0.802,
    "seconds_left": 83.4,
}


def test_within_an_epoch_the_last_validation_accuracy_still_holds():
    batch = {"event": "batch", "epoch": 4, "step": 10, "steps": 40, "loss": 0.25, "accuracy": None}
    seen = follow(follow({}, EPOCH), batch)
    words = "epoch 4/20, 0:01:23 left, validation 80.2%, loss 0.250, step 10/40"
    assert describe(seen) == words


def test_without_a_terminal_each_epoch_and_phase_is_a_line():
    out = io.StringIO()
    with shown_progress(Console(file=out), ["a run", "another"]) as show:
        show("a run", {"event": "start"})
        show("a run", {"event": "cell", "phase": "cell 2 of 9"})
        show("a run", {"event": "phase", "phase": "load [b]"})
        show("a run", {"event": "batch", "epoch": 1})
        show("another", {"event": "start"})
        show("another", EPOCH | {"epoch": 1, "training": "with residuals"})
        show("another", EPOCH | {"epoch": 2, "trial": 3, "trials": 12, "best": 0.83})
        show("a run", EPOCH)
        show("a run", {"event": "retry", "error": "DeadKernelError: gone"})
        show("a run", {"event": "end", "status": "failed"})
        show("a run", EPOCH)  # it was on its way still
    assert out.getvalue().splitlines() == [
        "a run: load [b]",
        "another: with residuals, epoch 1/20, 0:01:23 left, validation 80.2%, loss 0.512, "
        "accuracy 84.1%",
        "another: with residuals, trial 3/12, epoch 2/20, 0:01:23 left, validation 80.2%, "
        "best 83.0%, loss 0.512, accuracy 84.1%",
        "a run: epoch 3/20, 0:01:23 left, validation 80.2%, loss 0.512, accuracy 84.1%",
        "a run: tried again, for DeadKernelError: gone",
    ]


def test_a_terminal_that_cannot_redraw_has_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    out = io.StringIO()
    with shown_progress(Console(file=out, force_terminal=True), ["a run"]) as show:
        show("a run", {"event": "start"})
        show("a run", {"event": "phase", "phase": "load"})
    assert out.getvalue() == "a run: load\n"


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Console(file=io.StringIO(), force_terminal=True, width=140, height=20)


def shown(terminal):
    """What is shown: of each row that was drawn, its text."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue()).splitlines()


def test_on_a_terminal_each_run_has_a_row_from_the_first_second(terminal):
    with shown_progress(terminal, ["one", "two", "three", "before", "away"]) as show:
        show("before", {"event": "end", "status": "done"})
        show("away", {"event": "end", "status": "running"})
        assert [line.split()[0] for line in shown(terminal)[:3]] == ["one", "two", "three"]
        for name in ("one", "two"):
            show(name, {"event": "start"})
            show(name, {"event": "cell", "phase": "cell 2 of 9"})
        show("two", EPOCH)
        show("one", {"event": "end", "status": "failed"})
    text = "\n".join(shown(terminal))
    assert "epoch 3/20, 0:01:23 left, validation 80.2%, loss 0.512, accuracy 84.1%" in text
    assert "1 done, 1 failed, 1 elsewhere, 2 left" in text


def test_rows_fit_into_80_columns_and_the_window(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, height=10)
    names = [f"ingredients-no-alternating-flip-of-many-s{seed}" for seed in range(30)]
    with shown_progress(terminal, names) as show:
        for name in names[-2:]:
            show(name, {"event": "start"})
            show(name, EPOCH)
    lines = shown(terminal)
    assert max(map(len, lines)) <= 80
    for seed in (28, 29):
        assert any(f"-s{seed} " in line and "validation 80.2%" in line for line in lines)


def test_a_run_goes_on_where_nobody_reads_its_progress(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    # Where a pipe is closed, rich sends all later output of the process to nowhere.
    monkeypatch.setattr("sys.stdout", (tmp_path / "out.txt").open("w"))
    with shown_progress(Console(file=Closed()), ["run"]) as show:
        for event in ({"event": "start"}, EPOCH, {"event": "end", "status": "finished"}):
            show("run", event)
