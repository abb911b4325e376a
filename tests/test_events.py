import json
import time

import pytest

from cifar_utils.events import Phases, display_line, is_watched, write_event


def events(folder):
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_events_are_lines_of_json_in_order_there_as_soon_as_written(tmp_path):
    folder, before = tmp_path / "a" / "run", time.time()
    for epoch in (1, 2):
        write_event(folder, "epoch", epoch=epoch, loss=0.5, phase="Größe\n")
        assert [e["epoch"] for e in events(folder)] == list(range(1, epoch + 1))
    first, second = events(folder)
    assert first | {"time": 0} == {
        "time": 0, "event": "epoch", "epoch": 1, "loss": 0.5, "phase": "Größe\n",
    }  # fmt: skip
    assert before <= first["time"] <= second["time"] <= time.time()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_event(None, "epoch", epoch=1)
    with Phases(None)("load"):
        assert list(tmp_path.iterdir()) == []


def test_a_phase_is_announced_as_it_begins_and_timed_to_its_end(tmp_path):
    phase = Phases(tmp_path)
    with phase("load"):
        assert [e["phase"] for e in events(tmp_path)] == ["load"]
        time.sleep(0.02)
    with pytest.raises(ZeroDivisionError), phase("train"):
        raise ZeroDivisionError
    first = phase.seconds["load"]
    assert first >= 0.02
    with phase("load"):
        time.sleep(0.02)
    assert phase.seconds["load"] >= first + 0.02
    assert list(phase.seconds) == ["load", "train"]
    assert [e["phase"] for e in events(tmp_path)] == ["load", "train", "load"]


def test_outside_of_a_notebook_no_line_is_shown(capfd):
    display_line("epoch 1")("epoch 2")
    assert capfd.readouterr() == ("", "")


def test_in_a_notebook_a_line_is_shown_and_replaced(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(tuple(data.values()))

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    kernel = type("Shell", (), {"kernel": object()})()
    monkeypatch.setattr("IPython.get_ipython", lambda: kernel)
    monkeypatch.setattr("IPython.display.display", display)
    line = display_line("epoch 1")
    line("epoch 2")
    line("<3", "<svg/>")
    line("")
    assert shown == ["epoch 1", ("epoch 2",), ("<3", "<p>&lt;3</p><svg/>"), ("",)]


def test_a_cell_that_may_ask_for_input_is_watched(monkeypatch):
    assert not is_watched()
    for request, watched in [
        ({"content": {"allow_stdin": True}}, True),
        ({"content": {"allow_stdin": False}}, False),
        ({"content": {}}, False),
        ({}, False),
    ]:
        shell = type("Shell", (), {"get_parent": lambda self, request=request: request})()
        monkeypatch.setattr("IPython.get_ipython", lambda shell=shell: shell)
        assert is_watched() == watched


def test_phases_are_told_in_words():
    phase = Phases(None)
    assert repr(phase) == "no phase yet"
    phase.seconds |= {"load": 1.25, "train": 125.0}
    assert repr(phase) == "load 1.2 s, train 2 min 5 s"
