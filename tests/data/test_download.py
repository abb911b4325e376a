import hashlib
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from cifar_utils.data.archive import CIFAR10
from cifar_utils.data.cifar import read_cifar
from cifar_utils.data.download import download, find, keras_datasets


@pytest.fixture
def published(official, site, tmp_path):
    """The archive as the local site has it, and the images in it."""
    path, made = official(pack=True, at=tmp_path / "site")
    site.content = path.read_bytes()
    md5 = hashlib.md5(site.content).hexdigest()
    return replace(CIFAR10, url=site.url, md5=md5), made


def in_cache():
    """What is in Keras's cache, but for locks."""
    return [path.name for path in keras_datasets().iterdir() if path.suffix != ".lock"]


def assert_published(archive, made):
    """All of it is in the cache, and nothing else."""
    assert in_cache() == [archive.file]
    _, train, test, _ = read_cifar(keras_datasets() / archive.file, archive)
    np.testing.assert_array_equal(test.images, made["test_batch"][0])
    assert len(train.labels) == 200


@pytest.mark.parametrize(
    "place",
    [
        "cifar-10-batches-py",  # Keras 2, ours
        "cifar-10-batches-py/cifar-10-batches-py",  # Keras 3.5
        "cifar-10-batches-py-target/cifar-10-batches-py",  # Keras 3.8
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py.tar.gz",  # Keras 2
        "cifar-10-batches-py-target_archive",  # Keras 3.8
    ],
)
def test_found_under_every_name_it_has(official, place):
    assert find(CIFAR10) is None
    base = keras_datasets()
    (base / place).parent.mkdir(parents=True)
    made, _ = official(pack=not place.endswith("-py"))
    shutil.move(made, base / place)
    assert find(CIFAR10) == base / place


def test_a_whole_folder_goes_before_an_archive_and_that_before_a_part(
    official, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CIFAR_DATA_DIR", "~/data")
    archive, _ = official(pack=True)
    folder, _ = official()
    assert find(CIFAR10) == folder
    (folder / "data_batch_4").unlink()
    assert find(CIFAR10) == archive
    archive.unlink()
    assert find(CIFAR10) == folder


@pytest.mark.parametrize("pack", [True, False])
def test_the_variable_may_name_the_archive_or_folder_itself(official, monkeypatch, pack):
    path, _ = official(pack=pack)
    monkeypatch.setenv("CIFAR_DATA_DIR", str(path))
    assert find(CIFAR10) == path


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (None, "does not exist"),
        ([], "is empty"),
        (["cifar-10-batches-py/.hidden"], "holds cifar-10-batches-py without batches.meta, "),
        (["train.7z", ".hidden", *"abcde"], "holds a, b, c, d, e, ...;"),
        ("cifar-10-binary.tar.gz", "is a file;"),
    ],
    ids=str,
)
def test_the_line_says_what_is_there_and_what_would_do(
    official, refused, tmp_path, monkeypatch, there, found
):
    official(at=keras_datasets())  # which is never passed over to
    base = tmp_path / "given"
    for name in there or []:
        path = base / name if isinstance(there, list) else base
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if there == []:
        base.mkdir()
    if isinstance(there, str):
        base = base.rename(tmp_path / there)
    monkeypatch.setenv("CIFAR_DATA_DIR", str(base))
    with refused("CIFAR_DATA_DIR", f"{str(base)!r}, which {found}", CIFAR10.file, CIFAR10.folder):
        find(CIFAR10)


def test_a_home_that_is_nobodys(refused, monkeypatch):
    monkeypatch.setenv("CIFAR_DATA_DIR", "~nobody-of-this-name/data")
    with refused("CIFAR_DATA_DIR '~nobody-of-this-name/data' can't be read"):
        find(CIFAR10)
    monkeypatch.delenv("CIFAR_DATA_DIR")
    monkeypatch.setenv("KERAS_HOME", "~nobody-of-this-name")
    with refused("Keras's folder can't be read", "set CIFAR_DATA_DIR"):
        find(CIFAR10)


def test_downloaded_once_checked_and_published(published, site, capsys):
    archive, made = published
    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(download, [archive] * 4))
    assert paths == {find(archive)} == {keras_datasets() / archive.file}
    assert site.asked == 1
    assert_published(archive, made)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert archive.url in printed.err


FAILURES = {
    "the connection is cut": ("cut", lambda content: 7000, "try again"),
    "a bit is flipped": ("content", lambda content: bytes([content[0] ^ 1]) + content[1:], "md5"),
    "another page": ("content", lambda content: b"<html>Please log in</html>", "md5"),
    "it is lost": ("status", lambda content: 404, "404"),
}


@pytest.mark.parametrize(("what", "make", "words"), FAILURES.values(), ids=FAILURES)
def test_a_download_that_fails_leaves_nothing_and_can_be_repeated(
    published, site, refused, what, make, words
):
    (archive, made), right = published, getattr(site, what)
    setattr(site, what, make(site.content))
    with refused(site.url, archive.md5 if words == "md5" else words, "CIFAR_DATA_DIR"):
        download(archive)
    assert in_cache() == []
    setattr(site, what, right)
    download(archive)
    assert_published(archive, made)


def test_a_site_that_falls_silent(published, site, refused, monkeypatch):
    monkeypatch.setattr(sys.modules[download.__module__], "SILENCE", 0.2)
    site.cut = 7000
    site.go_on.clear()
    with refused(site.url, "timed out"):
        download(published[0])


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_is_stopped_is_never_taken_for_whole(published, site, how):
    archive, made = published
    site.cut = 7000
    site.go_on.clear()
    code = f"""\
from dataclasses import replace
from cifar_utils.data.archive import CIFAR10
from cifar_utils.data.download import download
download(replace(CIFAR10, url={archive.url!r}, md5={archive.md5!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    assert site.begun.wait(300)
    process.send_signal(how)
    process.wait()
    site.cut = None
    site.go_on.set()
    assert find(archive) is None
    assert how == signal.SIGKILL or in_cache() == []
    download(archive)
    assert_published(archive, made)


def test_no_network(refused):
    archive = replace(CIFAR10, url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    with refused(archive.url, "refused", "CIFAR_DATA_DIR", archive.file):
        download(archive)


def test_a_cache_that_can_not_be_written(published, refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with refused(tmp_path / "file", "can't be written", "KERAS_HOME"):
        download(published[0])


def test_a_full_disk_gets_back_what_was_taken(published, site, refused):
    import cifar_utils.backend  # noqa: F401  (Keras writes a file when it is first imported)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with refused(keras_datasets(), "can't be written", "make room"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            download(published[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert in_cache() == []
