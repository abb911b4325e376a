import io
import json
import time

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cifar_utils.reports.progress import clock, describe, epochs_done, follow, shown_progress
from cifar_utils.reports.progress import read_events as read

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


def test_an_epoch_in_words():
    words = "epoch 3/20, 1:23 left, loss 0.512, accuracy 84.1%, validation 80.2%"
    assert describe(follow({}, EPOCH)) == words


def test_within_an_epoch_the_last_validation_accuracy_still_holds():
    batch = {"event": "batch", "epoch": 4, "step": 10, "steps": 40, "loss": 0.25, "accuracy": None}
    seen = follow(follow({}, EPOCH), batch)
    words = "epoch 4/20, step 10/40, 1:23 left, loss 0.250, validation 80.2%"
    assert describe(seen) == words
    assert epochs_done(seen) == 3.25
    assert epochs_done(follow(seen, EPOCH | {"epoch": 4})) == 4


def test_a_phase_is_told_until_the_next_event():
    seen = follow(follow({}, EPOCH), {"event": "phase", "phase": "evaluate"})
    assert describe(seen) == "evaluate"
    assert describe(follow(seen, EPOCH)).startswith("epoch 3/20")


def test_a_diverged_loss_is_shown_as_it_is():
    assert "loss nan" in describe(follow({}, EPOCH | {"loss": float("nan")}))


def test_clock():
    assert [clock(s) for s in (0, 59.6, 723, 6720)] == ["0:00", "1:00", "12:03", "1:52:00"]


events = st.lists(st.dictionaries(st.text(), st.integers() | st.text()))


@given(events, st.data())
def test_however_a_file_grows_each_event_is_read_once(tmp_path_factory, written, data):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    content = b"".join(json.dumps(event).encode() + b"\n" for event in written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    found, position = [], 0
    for cut in (*cuts, len(content)):
        path.write_bytes(content[:cut])
        fresh, position = read(path, position)
        found += fresh
    assert found == written
    assert position == len(content)


def test_broken_lines_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    assert read(path) == ([], 0)
    path.write_text('{"epo\n{"event": "epoch"}\n[1]\n')
    assert read(path)[0] == [{"event": "epoch"}]


def test_without_a_terminal_each_epoch_and_phase_is_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(EPOCH | {"epoch": 1}) + "\n")  # of the first try: told already
    out = io.StringIO()
    with shown_progress("a run", path, Console(file=out)) as say, path.open("a") as file:
        say("cell 2 of 9")
        for event in (
            {"event": "phase", "phase": "load [b]"},
            {"event": "batch", "epoch": 1},
            EPOCH,
        ):
            print(json.dumps(event), file=file)
    lines = out.getvalue().splitlines()
    assert lines[0] == "a run: load [b]"
    assert lines[1].startswith("a run: epoch 3/20, 1:23 left")
    assert len(lines) == 2


def test_on_a_terminal_one_line_lives(tmp_path):
    path = tmp_path / "events.jsonl"
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with shown_progress("a run", path, console) as say:
        say("cell 2 of 9")
        time.sleep(0.3)
        path.write_text(json.dumps(EPOCH) + "\n")
        time.sleep(0.5)
    shown = out.getvalue()
    assert "cell 2 of 9" in shown
    assert "epoch 3/20, 1:23 left, loss 0.512, accuracy 84.1%, validation 80.2%" in shown
