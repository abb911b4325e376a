import itertools
import json
import time
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipykernel.zmqshell import ZMQInteractiveShell

from cifar_utils.events import Phases, display_line, is_watched, read_events, write_event


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


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.data())
@settings(max_examples=25)
def test_however_a_file_grows_each_event_is_read_once(tmp_path_factory, written, data):
    path = tmp_path_factory.mktemp("run") / "events.jsonl"
    content = b"".join(json.dumps(event).encode() + b"\n" for event in written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    found, position = [], 0
    for cut in (*cuts, len(content)):
        path.write_bytes(content[:cut])
        fresh, position = read_events(path, position)
        found += fresh
    assert found == written
    assert position == len(content)


def test_a_run_s_notebook_that_starts_in_its_own_folder_makes_no_folder_in_it(
    tmp_path, monkeypatch, refused
):
    folder = tmp_path / "reports/mine"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    monkeypatch.chdir(folder)
    with refused("output 'reports/mine' is this folder itself", "set output to None"):
        Phases("reports/mine")
    for output in (None, str(folder)):
        with Phases(output)("load"):
            pass
    assert {file.name for file in folder.iterdir()} == {"run.json", "events.jsonl"}


def test_broken_lines_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    assert read_events(path) == ([], 0)
    path.write_text('{"epo\n{"event": "epoch"}\n[1]\n')
    assert read_events(path)[0] == [{"event": "epoch"}]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_event(None, "epoch", epoch=1)
    with Phases(None)("load"):
        assert list(tmp_path.iterdir()) == []


def test_a_phase_is_announced_as_it_begins_and_timed_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("time.monotonic", itertools.count().__next__)  # each look a second later
    phase = Phases(tmp_path)
    with phase("load"):
        assert [e["phase"] for e in events(tmp_path)] == ["load"]
    with pytest.raises(ZeroDivisionError), phase("train"):
        raise ZeroDivisionError
    first = phase.seconds["load"]
    assert first >= 1
    with phase("load"):
        pass
    assert phase.seconds["load"] > first
    assert list(phase.seconds) == ["load", "train"]
    assert [e["phase"] for e in events(tmp_path)] == ["load", "train", "load"]


def test_outside_of_a_notebook_a_line_is_shown_on_a_terminal_only(capsys, monkeypatch):
    display_line("epoch 1")("epoch 2")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    display_line("epoch 1")("epoch 2")
    assert capsys.readouterr() == ("", "\r\x1b[Kepoch 1\r\x1b[Kepoch 2")


def test_a_drawing_stands_below_its_line_whose_letters_are_no_markup(monkeypatch):
    display = Mock()
    monkeypatch.setattr("cifar_utils.events.in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    display_line("epoch 1")("<3", "<svg/>")
    shown = {"text/plain": "<3", "text/html": "<p>&lt;3</p><svg/>"}
    display.return_value.update.assert_called_once_with(shown, raw=True)


def test_a_cell_that_may_ask_for_input_is_watched(monkeypatch):
    assert not is_watched()
    for content, watched in [({"allow_stdin": True}, True), ({"allow_stdin": False}, False)]:
        shell = Mock(ZMQInteractiveShell, **{"get_parent.return_value": {"content": content}})
        monkeypatch.setattr("IPython.get_ipython", lambda shell=shell: shell)
        assert is_watched() == watched
