import hashlib
import resource
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest

from cifar_utils.data.cifar import CIFAR10, read_cifar
from cifar_utils.data.download import download, find, keras_datasets


@pytest.fixture
def published(official, site, tmp_path):
    """The archive as the local site has it, and the images in it."""
    path, made = official(pack=True, at=tmp_path / "site")
    site.content = path.read_bytes()
    md5 = hashlib.md5(site.content).hexdigest()
    return replace(CIFAR10, url=site.url, size=len(site.content), md5=md5), made


def assert_published(archive, made):
    """All of it is in the cache, and nothing else."""
    assert [path.name for path in keras_datasets().iterdir()] == [archive.folder]
    _, train, test, _ = read_cifar(keras_datasets() / archive.folder, archive)
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
@pytest.mark.parametrize("given", ["folder", "CIFAR_DATA_DIR", "cache"])
def test_found_under_every_name_it_has(official, tmp_path, monkeypatch, place, given):
    base = keras_datasets() if given == "cache" else tmp_path / "given"
    (base / place).parent.mkdir(parents=True)
    made, _ = official(pack=not place.endswith("-py"))
    shutil.move(made, base / place)
    if given == "CIFAR_DATA_DIR":
        monkeypatch.setenv("CIFAR_DATA_DIR", str(base))
    assert find(CIFAR10, base if given == "folder" else None) == base / place


def test_the_folder_itself_may_be_given(official):
    path, _ = official()
    assert find(CIFAR10, path) == path


def test_a_whole_folder_goes_before_an_archive_and_that_before_a_part(official, tmp_path):
    archive, _ = official(pack=True)
    folder, _ = official()
    assert find(CIFAR10, tmp_path / "data") == folder
    (folder / "data_batch_4").unlink()
    assert find(CIFAR10, tmp_path / "data") == archive
    archive.unlink()
    assert find(CIFAR10, tmp_path / "data") == folder


def test_not_found_in_the_cache_is_none():
    assert find(CIFAR10) is None


@pytest.mark.parametrize("there", ["nothing", "cifar100"])
def test_a_given_folder_without_it_is_never_passed_over(
    official, refused, tmp_path, monkeypatch, there
):
    official(at=keras_datasets())
    if there == "cifar100":
        official("cifar100", 1)
    monkeypatch.setenv("CIFAR_DATA_DIR", str(tmp_path / "data"))
    with refused("CIFAR_DATA_DIR", tmp_path / "data", CIFAR10.file, CIFAR10.folder):
        find(CIFAR10)


def test_downloaded_checked_and_published(published, site):
    archive, made = published
    assert download(archive) == keras_datasets() / archive.folder
    assert_published(archive, made)
    assert site.asked == [None]
    download(archive)
    assert site.asked == [None]


def test_progress_is_shown_on_a_terminal_and_not_elsewhere(published, monkeypatch, capsys):
    archive, _ = published
    download(archive)
    assert capsys.readouterr().err == ""
    shutil.rmtree(keras_datasets())
    terminal = StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    download(archive)
    assert archive.file in terminal.getvalue()


def test_a_connection_that_is_cut_is_taken_up_again(published, site):
    archive, made = published
    site.cuts = [1000, 5000]
    download(archive)
    assert_published(archive, made)
    assert site.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_the_next_try_goes_on_where_the_last_one_was_cut(published, site, refused):
    archive, made = published
    part = keras_datasets() / f"{archive.file}.part"
    site.cuts = [7000, 0]
    with refused(site.url, f"cut at 7,000 of {archive.size:,} bytes", "try again", left=[part]):
        download(archive)
    download(archive)
    assert_published(archive, made)
    assert site.asked[-1] == "bytes=7000-"


def test_a_site_without_ranges_gives_all_of_it_again(published, site):
    archive, made = published
    site.ranges, site.cuts = False, [9000]
    download(archive)
    assert_published(archive, made)
    assert site.asked == [None, "bytes=9000-"]


def test_a_whole_part_file_needs_no_site(published, site):
    archive, made = published
    keras_datasets().mkdir(parents=True)
    (keras_datasets() / f"{archive.file}.part").write_bytes(site.content)
    download(archive)
    assert_published(archive, made)
    assert site.asked == []


def test_a_wrong_checksum_leaves_nothing(published, site, refused):
    archive, made = published
    right = site.content
    site.content = bytes([right[0] ^ 1]) + right[1:]
    with refused("MD5", archive.md5, "CIFAR_DATA_DIR"):
        download(archive)
    site.content = right
    download(archive)
    assert_published(archive, made)


def test_a_page_instead_of_the_archive(published, site, refused):
    archive, _ = published
    site.content = b"<html>Please log in</html>"
    with refused(site.url, "26 bytes", f"{archive.size:,}"):
        download(archive)


def test_a_part_file_longer_than_the_site_has(published, site, refused):
    archive, _ = published
    keras_datasets().mkdir(parents=True)
    (keras_datasets() / f"{archive.file}.part").write_bytes(bytes(500))
    site.content = site.content[:100]
    with refused(site.url, "Requested Range Not Satisfiable"):
        download(archive)
    assert not list(keras_datasets().iterdir())


def test_no_network(refused):
    archive = replace(CIFAR10, url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    with refused(archive.url, "could not be reached", "CIFAR_DATA_DIR", archive.file):
        download(archive)


def test_a_site_that_has_lost_it(published, site, refused):
    site.status = 404
    with refused("could not be reached", "Not Found", "CIFAR_DATA_DIR"):
        download(published[0])


def test_two_at_once_download_once(published, site):
    archive, made = published
    with ThreadPoolExecutor(4) as threads:
        paths = list(threads.map(download, [archive] * 4))
    assert set(paths) == {keras_datasets() / archive.folder}
    assert site.asked == [None]
    assert_published(archive, made)


def test_what_a_killed_process_left_is_cleared(published):
    archive, made = published
    left = keras_datasets() / f".{archive.folder}.part"
    left.mkdir(parents=True)
    (left / "data_batch_1").write_bytes(b"half")
    download(archive)
    assert_published(archive, made)


def test_a_cache_that_can_not_be_written(published, refused, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with refused(tmp_path / "file", "can't be written", "KERAS_HOME"):
        download(published[0])


@pytest.mark.parametrize("full", ["downloading", "extracting"])
def test_a_full_disk_gets_back_what_was_taken(published, site, refused, full):
    archive, _ = published
    if full == "extracting":
        keras_datasets().mkdir(parents=True)
        (keras_datasets() / f"{archive.file}.part").write_bytes(site.content)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with refused(keras_datasets(), "can't be written", "make room"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
        try:
            download(archive)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(keras_datasets().iterdir())
