import dataclasses
import hashlib
import math
import socket

import h5py
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from keras.src.applications import resnet
from keras.src.legacy.saving import legacy_h5_format

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.models import build_model, build_transfer_model, extract_features
from cifar_utils.models.transfer import BASES
from cifar_utils.runs.record import write_model
from cifar_utils.training import callbacks, fit

HOME = "keras.src.backend.config.keras_home"  # a function: the folder of Keras's cache


def resnet50v2(include_top, weights, input_shape):
    """Keras's ResNet50V2 with two blocks a stage and 8 filters, and one stage fewer."""

    def stack(x):
        for name in ("conv2", "conv3", "conv4"):
            x = resnet.stack_residual_blocks_v2(x, 8, 2, name=name)
        return x

    return resnet.ResNet(
        stack, True, True, include_top=include_top, weights=weights, input_shape=input_shape,
        name="resnet50v2", weights_name="resnet50v2",
    )  # fmt: skip


resnet50v2.__name__ = "ResNet50V2"
resnet50v2.__module__ = "keras.src.applications.resnet_v2"  # with its preprocess_input


@pytest.fixture(scope="module", autouse=True)
def small_base():
    """The network above in place of Keras's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASES, "resnet50v2", resnet50v2)
        yield


@pytest.fixture(scope="module")
def transfer(digits):
    """The transfer model on 32×32 images, its base random."""
    return build_transfer_model(digits, weights=None, input_size=32, precision="float32")


@pytest.fixture
def base(transfer):
    """The pretrained part itself, as Keras makes it."""
    (found,) = [x for x in transfer.get_layer("features").layers if isinstance(x, keras.Model)]
    return found


@pytest.fixture(scope="module")
def few(digits):
    """Seventy training images: more than one batch of the base, less than two."""
    train = Split(digits.train.images[:70], digits.train.labels[:70])
    return dataclasses.replace(digits, train=train)


@pytest.fixture
def passes(transfer, monkeypatch):
    """Images that go through the base, counted; after ``passes.stop`` batches, an interrupt."""
    features = transfer.get_layer("features")
    predict, counted = features.predict_on_batch, Counted()

    def count(images):
        if len(counted) == counted.stop:
            raise KeyboardInterrupt
        counted.append(len(images))
        return predict(images)

    monkeypatch.setattr(features, "predict_on_batch", count)
    return counted


class Counted(list):
    stop = None


def test_parameters_are_as_many_as_reported(digits, transfer, monkeypatch):
    monkeypatch.setitem(BASES, "resnet50v2", keras.applications.ResNet50V2)
    large = build_transfer_model(digits, weights=None, fast=False)
    assert large.input_shape == (None, 32, 32, 3)
    assert large.get_layer("features").output.shape == (None, 7, 7, 2048)
    assert large.count_params() == 26_159_370
    heads = [model.get_layer("head") for model in (large, transfer)]
    for model, head in zip((large, transfer), heads, strict=True):
        assert len(model.trainable_weights) == len(head.trainable_weights) > 0
    # Report B's is valid; features of one place need padding.
    assert [head.layers[1].padding for head in heads] == ["valid", "same"]
    assert [head.layers[1].output.shape[1:] for head in heads] == [(5, 5, 128), (1, 1, 128)]


@pytest.mark.parametrize("module", ["resnet_v2", "vgg16"])
def test_images_are_scaled_as_the_base_was_trained_and_the_saved_model_is_plain(
    digits, tmp_path, monkeypatch, module
):
    monkeypatch.setattr(resnet50v2, "__module__", f"keras.src.applications.{module}")
    settings = {"weights": None, "input_size": 32, "precision": "float32"}
    model = build_transfer_model(digits, base="ResNet50_V2", **settings)
    assert model.name == "resnet50v2"
    features = model.get_layer("features")
    (pretrained,) = [x for x in features.layers if isinstance(x, keras.Model)]
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    prepared = getattr(keras.applications, module).preprocess_input(images.astype("float32"))
    expected = to_numpy(pretrained(prepared))
    np.testing.assert_allclose(to_numpy(features(images)), expected, rtol=1e-4, atol=1e-5)
    plain = keras.models.load_model(write_model(model, tmp_path))
    np.testing.assert_allclose(to_numpy(plain(images)), to_numpy(model(images)), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": "ResNet5_V2"}, ["unknown base 'resnet5v2'; did you mean 'resnet50v2'?"]),
        ({"input_size": 31}, ["ResNet50V2", "input_size 31", "at least 32"]),
        ({"fine_tune_layers": -1}, ["fine_tune_layers is -1; it takes 0 to 22"]),
        ({"fine_tune_layers": 23}, ["fine_tune_layers is 23; it takes 0 to 22"]),
        ({"weights": "imagnet"}, ["'imagnet'", "takes imagenet, None, a weights file"]),
        ({"weights": "no/such.weights.h5"}, ["'no/such.weights.h5'", "or a run's folder"]),
        ({"weights": "."}, ["'.'", "takes imagenet, None, a weights file"]),
    ],
)
def test_bad_input_is_one_line(digits, refused, change, words):
    with refused(*words):
        build_transfer_model(digits, **{"weights": None, "input_size": 32} | change)


def test_the_head_on_the_features_is_the_model_on_the_images(few, transfer, tmp_path):
    train, validation = extract_features(transfer, few, output=tmp_path)
    assert train.images.shape == (70, 1, 1, 1, 32)
    assert train.images.dtype == np.float16
    assert validation.images.shape == (20, 1, 1, 32)
    np.testing.assert_array_equal(train.labels, few.train.labels)
    np.testing.assert_array_equal(validation.labels, few.validation.labels)
    history = fit(
        transfer.get_layer("head"), train, validation, epochs=1, batch_size=32, optimizer="adam"
    )
    assert np.isfinite(history.best["loss"])
    head = to_numpy(transfer.get_layer("head")(np.asarray(validation.images)))
    whole = to_numpy(transfer(few.validation.images))
    assert (whole.shape, whole.dtype) == ((20, 10), np.float32)
    np.testing.assert_allclose(head, whole, rtol=0.02, atol=0.02 * np.abs(whole).max())


@pytest.mark.parametrize(("flips", "count"), [("horizontal", 2), ("both", 4)])
def test_each_flip_is_an_input_of_its_own(few, transfer, passes, flips, count):
    variants = [np.s_[:], np.s_[:, :, ::-1], np.s_[:, ::-1], np.s_[:, ::-1, ::-1]][:count]
    train, validation = extract_features(transfer, few, flips=flips)
    assert sum(passes) == 70 * count + 20
    assert train.images.shape[:2] == (70, count)
    features = transfer.get_layer("features")
    for index, variant in enumerate(variants):
        expected = to_numpy(features(few.train.images[variant][:8]))
        kept = train.images[:8, index].astype(np.float32)
        np.testing.assert_allclose(kept, expected, rtol=0.01, atol=0.01 * expected.max())
    assert len(validation.images) == 20


def test_features_are_computed_once_and_an_interrupted_computation_goes_on(
    few, transfer, passes, tmp_path
):
    passes.stop = 2
    with pytest.raises(KeyboardInterrupt):
        extract_features(transfer, few, flips="horizontal", output=tmp_path)
    assert sum(passes) == 2 * 64
    passes.stop = None
    train, _ = extract_features(transfer, few, flips="horizontal", output=tmp_path)
    assert sum(passes) == 2 * 70 + 20
    again, _ = extract_features(transfer, few, flips="horizontal", output=tmp_path)
    assert sum(passes) == 2 * 70 + 20
    np.testing.assert_array_equal(train.images, again.images)
    alone, _ = extract_features(transfer, few, flips="horizontal")
    np.testing.assert_array_equal(train.images, alone.images)


def test_features_whose_file_was_deleted_are_computed_anew(few, transfer, passes, tmp_path):
    train, _ = extract_features(transfer, few, output=tmp_path)
    for path in (tmp_path / "features").glob("*.npy"):
        path.unlink()
    passes.stop = len(passes)
    with pytest.raises(KeyboardInterrupt):
        extract_features(transfer, few, output=tmp_path)
    passes.stop = None
    again, _ = extract_features(transfer, few, output=tmp_path)
    np.testing.assert_array_equal(train.images, again.images)


def test_features_of_other_images_another_size_or_damaged_are_computed_anew(
    few, transfer, passes, tmp_path
):
    extract_features(transfer, few, output=tmp_path)
    other = dataclasses.replace(few, fingerprint="other")
    extract_features(transfer, other, output=tmp_path)
    assert sum(passes) == 2 * (70 + 20)
    for path in (tmp_path / "features").glob("*.json"):
        path.write_text("{")
    extract_features(transfer, few, output=tmp_path)
    assert sum(passes) == 3 * (70 + 20)
    large = build_transfer_model(few, weights=None, input_size=64, precision="float32")
    tiny = dataclasses.replace(few, train=Split(*(x[:2] for x in few.train)))
    train, _ = extract_features(large, tiny, output=tmp_path)
    assert train.images.shape == (2, 1, 2, 2, 32)
    smaller = build_transfer_model(few, weights=None, input_size=60, precision="float32")
    again, _ = extract_features(smaller, tiny, output=tmp_path)
    assert again.images.shape == train.images.shape
    assert (again.images != train.images).any()


def test_unknown_flips_and_a_full_disk_are_one_line(few, transfer, refused, tmp_path, monkeypatch):
    with refused("unknown flips 'bth'; did you mean 'both'?"):
        extract_features(transfer, few, flips="bth")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with refused("has 0.0 GB free", "choose another output"):
        extract_features(transfer, few, output=tmp_path)
    assert list(tmp_path.rglob("*.npy")) == []
    places = math.prod(transfer.get_layer("features").output.shape[1:])
    usage.free = 2 * places * len(few.train.labels)  # enough for the training images alone
    with refused("choose another output"):
        extract_features(transfer, few, output=tmp_path)
    assert list(tmp_path.rglob("*.npy")) == []
    usage.free = 1e9
    extract_features(transfer, few, output=tmp_path)
    (progress,) = tmp_path.rglob("train-*.json")
    progress.write_text('{"images": 1}')  # as after a kill: the file has its whole length
    usage.free = 1000
    with refused("choose another output"):
        extract_features(transfer, few, output=tmp_path)


def test_features_that_are_too_large_to_keep_are_one_line(few, refused, tmp_path):
    model = build_transfer_model(few, weights=None, input_size=32, precision="float32")
    for weight in model.get_layer("features").weights:
        if weight.path == "post_bn/gamma":  # of the last layer
            weight.assign(1e7 * weight)
    with refused("the base gives features of up to ", "65,504", "give other weights"):
        extract_features(model, few, output=tmp_path)


def test_a_weights_file_is_loaded(digits, transfer, base, tmp_path):
    path = tmp_path / "base.weights.h5"
    base.save_weights(path)
    model = build_transfer_model(digits, weights=str(path), input_size=32, seed=9)
    loaded, kept = (m.get_layer("features").get_weights() for m in (model, transfer))
    assert all(map(np.array_equal, loaded, kept))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.pretrained == {"weights": "base.weights.h5", "weights_sha256": digest}


def test_a_base_trained_here_sees_images_as_it_did_in_training(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(BASES, "resnet50v2", keras.applications.ResNet50V2)
    trained = build_model("resnet50v2", digits, normalization="half", precision="float32")
    file = write_model(trained, tmp_path)
    plain = keras.models.load_model(file)
    model = build_transfer_model(digits, weights=str(tmp_path), input_size=32, precision="float32")
    images = digits.test.images[:4]
    (pooled,) = [x for x in plain.layers if isinstance(x, keras.layers.GlobalAveragePooling2D)]
    then, now = keras.Model(plain.input, pooled.input), model.get_layer("features")
    np.testing.assert_allclose(to_numpy(now(images)), to_numpy(then(images)), 1e-4, 1e-4)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert model.pretrained == {"weights": tmp_path.name, "weights_sha256": digest}


def test_a_run_of_another_network_is_one_line(digits, refused, tmp_path):
    write_model(build_model("gn_resnet", digits), tmp_path)
    with refused(str(tmp_path), "that run's model has no layer resnet50v2", "or a run's folder"):
        build_transfer_model(digits, weights=str(tmp_path), input_size=32)


def test_imagenet_weights_are_downloaded_and_checked(digits, base, refused, tmp_path, monkeypatch):
    """From a folder that stands in for the server of Keras, with a file of random weights."""
    name = "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
    with h5py.File(tmp_path / name, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, base)
    resnet = "keras.src.applications.resnet."
    digest = hashlib.md5((tmp_path / name).read_bytes()).hexdigest()
    monkeypatch.setattr(resnet + "BASE_WEIGHTS_PATH", f"{tmp_path.as_uri()}/")
    monkeypatch.setattr(HOME, lambda: str(tmp_path / "cache"))
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of this name is not meant
    hashes = {"resnet50v2": ("", digest)}
    monkeypatch.setattr(resnet + "WEIGHTS_HASHES", hashes)
    model = build_transfer_model(digits, weights="imagenet", input_size=32, seed=9)
    loaded = model.get_layer("features").get_weights()
    assert all(map(np.array_equal, loaded, base.get_weights()))
    assert model.pretrained == {"weights": "imagenet"}
    hashes["resnet50v2"] = ("", "0" * 32)  # as of a download that was cut or changed on its way
    monkeypatch.setattr(HOME, lambda: str(tmp_path / "another cache"))
    with refused("ResNet50V2 can't be made ", "imagenet"):
        build_transfer_model(digits, weights="imagenet", input_size=32)


def test_weights_that_do_not_fit_are_one_line(digits, base, refused, tmp_path):
    paths = [tmp_path / f"{name}.weights.h5" for name in ("other", "garbage", "truncated", "empty")]
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(paths[0])
    paths[1].write_bytes(b"\x89HDF and nothing of the kind" * 100)
    base.save_weights(paths[2])
    with paths[2].open("r+b") as file:
        file.truncate(paths[2].stat().st_size // 2)
    paths[3].touch()
    for path in paths:
        with refused("ResNet50V2 can't be made", path):
            build_transfer_model(digits, weights=str(path), input_size=32)


def test_imagenet_weights_without_a_network_are_one_line(digits, refused, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(HOME, lambda: str(tmp_path))
    with refused("Network is unreachable", "a weights file or"):
        build_transfer_model(digits, weights="imagenet", input_size=32)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_last_layers_of_the_base_may_be_left_to_train(digits):
    model = build_transfer_model(digits, weights=None, input_size=32, fine_tune_layers=3)
    features, head = model.get_layer("features"), model.get_layer("head")
    trained = [x.path for x in features.trainable_weights]
    # Batch normalization is neither counted nor trained.
    names = ["1_conv/kernel", "2_conv/kernel", "3_conv/kernel", "3_conv/bias"]
    assert trained == [f"conv4_block2_{name}" for name in names]
    assert len(model.trainable_weights) == len(head.trainable_weights) + 4


def build_to_fine_tune(few):
    options = {"input_size": 32, "fine_tune_layers": 2, "precision": "float32"}
    return build_transfer_model(few, weights=None, **options)


def train_both(model, few, output=None):
    """The head on kept features, then base and head; give the weights before the latter, too."""
    settings = {
        "batch_size": 32, "optimizer": "adam", "learning_rate": 0.001, "output": output,
    }  # fmt: skip
    kept = extract_features(model, few, output=output)
    fit(model.get_layer("head"), *kept, epochs=2, **settings)
    before = model.get_weights()
    images = few.train, few.validation
    fit(model, *images, epochs=3, trial="fine_tune", **settings)
    return before


@pytest.fixture(scope="module")
def fine_tuned(few):
    """A model whose head was trained, then its base too; and the weights in between."""
    model = build_to_fine_tune(few)
    return model, train_both(model, few)


def test_fine_tuning_changes_the_last_layers_and_no_batch_normalization(fine_tuned):
    model, before = fine_tuned
    (base,) = [x for x in model.get_layer("features").layers if isinstance(x, keras.Model)]
    index = {id(weight): place for place, weight in enumerate(model.weights)}
    for layer in (x for x in base.layers if x.weights):
        same = [np.array_equal(before[index[id(w)]], to_numpy(w)) for w in layer.weights]
        trained = layer.name in ("conv4_block2_2_conv", "conv4_block2_3_conv")
        assert same == [not trained] * len(same), layer.name


def test_fine_tuning_that_was_killed_goes_on_to_the_same_result(
    few, fine_tuned, tmp_path, monkeypatch
):
    alone, _ = fine_tuned
    whole, ended = callbacks.Progress.on_epoch_end, []

    def cut(*args):
        ended.append(args)
        if len(ended) == 4:  # the second epoch of base and head
            raise KeyboardInterrupt
        whole(*args)

    monkeypatch.setattr(callbacks.Progress, "on_epoch_end", cut)
    with pytest.raises(KeyboardInterrupt):
        train_both(build_to_fine_tune(few), few, tmp_path)
    assert (tmp_path / "checkpoint" / "fine_tune" / "epoch-0001.weights.h5").exists()
    model = build_to_fine_tune(few)
    train_both(model, few, tmp_path)
    assert len(ended) == 4 + 2
    assert all(map(np.array_equal, model.get_weights(), alone.get_weights()))
