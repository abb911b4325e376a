import time

import pytest

from cifar_utils.errors import InputError
from cifar_utils.reporting import remote
from cifar_utils.reporting.remote import mirrored, pull, push
from cifar_utils.reporting.runs import UnwantedError


@pytest.fixture
def place(tmp_path):
    """A folder, and an address where files are kept."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder, f"file://{tmp_path}/kept", tmp_path / "kept"


def files(folder):
    found = folder.rglob("*")
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_what_has_changed_is_pushed_and_what_is_gone_goes(place):
    folder, url, kept = place
    write(folder, run_json="1", checkpoint__state_json="a", checkpoint__old="w")
    sent = {}
    push(folder, url, sent)
    assert files(kept) == {"run.json", "checkpoint/state.json", "checkpoint/old"}
    (folder / "checkpoint" / "old").unlink()
    write(folder, checkpoint__new="w", features__large="", checkpoint__writing="")
    (folder / ".before").mkdir()
    (folder / ".before" / "x").write_text("")
    (folder / "checkpoint" / "writing").rename(folder / "checkpoint" / "writing.weights.h5")
    write(kept, run_json="untouched")
    push(folder, url, sent)
    assert files(kept) == {"run.json", "checkpoint/state.json", "checkpoint/new"}
    assert (kept / "run.json").read_text() == "untouched"


def test_a_state_goes_only_with_the_weights_that_it_names(place, monkeypatch):
    folder, url, kept = place
    write(folder, checkpoint__state_json="epoch 1", checkpoint__epoch1="w")
    sent = {}
    push(folder, url, sent)
    write(folder, checkpoint__state_json="epoch 2", checkpoint__epoch2="w")
    (folder / "checkpoint" / "epoch1").unlink()
    real, calls = remote.stamps, []

    def while_it_is_pushed_the_run_goes_on(path):
        if calls:
            write(folder, checkpoint__state_json="epoch three")
        calls.append(path)
        return real(path)

    monkeypatch.setattr(remote, "stamps", while_it_is_pushed_the_run_goes_on)
    push(folder, url, sent)
    assert (kept / "checkpoint" / "state.json").read_text() == "epoch 1"
    assert (kept / "checkpoint" / "epoch1").exists()


def test_a_mirror_holds_what_is_there_and_follows_what_is_written(place, monkeypatch):
    folder, url, kept = place
    monkeypatch.setattr(remote, "PUSH_SECONDS", 0.05)
    write(kept, checkpoint__state_json="kept")
    with mirrored(folder / "run", url):
        assert (folder / "run" / "checkpoint" / "state.json").read_text() == "kept"
        write(folder / "run", events="1")
        deadline = time.monotonic() + 30
        while not (kept / "events").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (kept / "events").read_text() == "1"
        write(folder / "run", record_json="{}")
    assert (kept / "record.json").exists()


def test_who_is_no_longer_wanted_writes_no_more(place):
    folder, url, kept = place

    def work():
        with mirrored(folder, url):
            write(folder, run_json="old")
            raise UnwantedError

    with pytest.raises(UnwantedError):
        work()
    assert not (kept / "run.json").exists()


def test_a_network_that_comes_back_loses_nothing(place, monkeypatch):
    folder, url, kept = place
    monkeypatch.setattr(remote, "PAUSES", (0, 0))
    real, tries = remote.push, []

    def push_at_last(*arguments):
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionResetError
        real(*arguments)

    monkeypatch.setattr(remote, "push", push_at_last)
    with mirrored(folder, url):
        write(folder, run_json="1")
    assert (kept / "run.json").exists()


def test_only_some_names_can_be_pulled(place):
    folder, url, kept = place
    write(kept, a__run_json="1", a__weights="w", b__run_json="2", index="")
    assert set(pull(url, folder, ("run.json",))) == {"a/run.json", "b/run.json"}
    assert files(folder) == {"a/run.json", "b/run.json"}
    assert pull(f"{url}/none", folder / "none") == {}


@pytest.mark.parametrize("url", ["nonsense://bucket/x", "abfs://x/y"])
def test_an_address_that_can_t_be_used_is_one_line(tmp_path, url):
    with pytest.raises(InputError) as raised:
        pull(url, tmp_path)
    assert url in str(raised.value)
    assert "\n" not in str(raised.value)
