import os
import stat
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.files import write_atomically


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary() | st.text(), min_size=1, max_size=3))
def test_the_last_content_written_is_the_file(folder, contents):
    path = folder / "file"
    for content in contents:
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_a_file_is_the_user_s_choice(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, step, error, before):
    path = tmp_path / "file"
    if before:
        path.write_text(before)

    def interrupted(*_):
        raise error

    monkeypatch.setattr(step, interrupted)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_a_full_disk_is_told_with_the_file_s_own_name(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        write_atomically(tmp_path / "file", "new")
    assert error.value.filename == str(tmp_path / "file")
    monkeypatch.setattr("os.fsync", Mock(side_effect=OSError("9 requested and 4 written")))
    with pytest.raises(OSError, match="9 requested and 4 written"):
        write_atomically(tmp_path / "file", "new")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(tmp_path / "none" / "file", "content")
    assert error.value.filename == str(tmp_path / "none" / "file")
