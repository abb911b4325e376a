import hashlib
from dataclasses import replace

import numpy as np
import pytest

from cifar_utils.data import DATASETS, fetch, load_dataset
from cifar_utils.data.download import keras_datasets


def test_the_fingerprint_is_of_what_is_in_the_splits_not_of_where_it_came_from(
    official, tmp_path, monkeypatch
):
    official()
    official(pack=True, at=tmp_path / "packed")
    found = []
    for place, seed in (("data", 0), ("packed", 0), ("data", 1)):
        monkeypatch.setenv("CIFAR_DATA_DIR", str(tmp_path / place))
        found.append(load_dataset("cifar10", seed=seed).fingerprint)
    assert found[0] == found[1] != found[2]


def test_digits_are_those_of_the_published_runs():
    assert load_dataset("digits").fingerprint == (
        "c93ba1e7865aa0a8cab7f4b2acfc977b70f506c82767118e6fe23b2605083a4c"
    )


def test_limits_are_stratified_and_the_test_images_are_those_of_every_seed():
    first, second = (load_dataset("digits", train_limit=200, test_limit=50, seed=s) for s in (0, 1))
    sizes = [len(split.labels) for split in (first.train, first.validation, first.test)]
    assert sizes == [180, 20, 50]
    assert np.bincount(first.validation.labels).tolist() == [2] * 10
    assert np.bincount(first.test.labels).tolist() == [5] * 10
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert not np.array_equal(first.train.images, second.train.images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "cifar11"}, ["unknown dataset 'cifar11'", "did you mean 'cifar10'"]),
        ({"validation_fraction": 1.0}, ["validation_fraction is 1.0", "at least 0, below 1"]),
        ({"seed": -1}, ["seed is -1"]),
        ({"train_limit": 20}, ["train_limit is 20", "without validation images"]),
        ({"test_limit": 9}, ["test_limit is 9", "without test images"]),
        ({"test_limit": 10**6}, ["test_limit is 1000000; it must be at least 1, at most "]),
        ({"train_limit": 100.5}, ["train_limit is 100.5; it takes a whole number"]),
        ({"image_size": 8.5}, ["image_size is 8.5; it takes a whole number"]),
        ({"image_size": 0}, ["image_size is 0"]),
        ({"image_size": 10**6}, ["no memory for", "1000000×1000000 pixels"]),
        ({"image_size": 10**9}, ["no memory for", "1000000000×1000000000 pixels"]),
    ],
)
def test_bad_input(refused, options, words):
    with refused(*words):
        load_dataset(**{"name": "digits"} | options)


def test_a_dataset_says_what_it_is_in_words(official, monkeypatch):
    path, _ = official(changes={"SOURCE.txt": b"Some <copy>."})
    monkeypatch.setenv("CIFAR_DATA_DIR", str(path))
    dataset = load_dataset("cifar10")
    assert repr(dataset).startswith(
        "cifar10 (folder): 180 training, 20 validation and 40 test images of 32x32x3, "
        "10 classes: class 0, class 1,"
    )
    assert dataset.note == "Some <copy>."
    assert "Some &lt;copy&gt;." in dataset._repr_html_()
    assert len(repr(load_dataset("digits"))) < 250


def test_fetch_and_load_download_what_is_not_there(official, site, tmp_path, monkeypatch, refused):
    path, _ = official(pack=True, at=tmp_path / "site")
    site.content = path.read_bytes()
    known = replace(DATASETS["cifar10"], url=site.url, md5=hashlib.md5(site.content).hexdigest())
    monkeypatch.setitem(DATASETS, "cifar10", known)
    with refused("cifar10 is not on this machine", "cifar-reports data fetch cifar10"):
        load_dataset("cifar10", offline=True)
    assert site.asked == 0
    assert load_dataset("cifar10").source == "download"
    assert load_dataset("cifar10", offline=True).source == "archive"
    assert fetch("cifar10") == keras_datasets() / "cifar-10-python.tar.gz"
    assert site.asked == 1


def test_fetch_refuses_what_is_there_but_broken(official, refused, monkeypatch):
    path, _ = official(changes={"data_batch_1": b"broken"})
    monkeypatch.setenv("CIFAR_DATA_DIR", str(path.parent))
    with refused(path, "data_batch_1"):
        fetch("cifar10")


def test_images_of_another_size_are_averages_and_those_of_their_own_are_left_alone(digits):
    same = load_dataset("digits", train_limit=100, test_limit=20, image_size=32)
    assert same.fingerprint == digits.fingerprint
    small = load_dataset("digits", train_limit=100, test_limit=20, image_size=8)
    averages = digits.train.images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4))
    assert np.abs(small.train.images - averages).mean() < 5  # of 255
    assert load_dataset("digits", image_size=48).image_shape == (48, 48, 3)


def test_a_fraction_of_zero_holds_nothing_out():
    dataset = load_dataset("digits", validation_fraction=0.0, train_limit=200)
    assert (len(dataset.train.labels), len(dataset.validation.labels)) == (200, 0)
    assert dataset.validation.images.shape[1:] == dataset.image_shape
