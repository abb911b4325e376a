"""A run read back: its record, its scores and its model."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar_utils import load_run
from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import keras
from cifar_utils.choices import REGISTRIES
from cifar_utils.data import load_dataset
from cifar_utils.evaluation import Scores, evaluate
from cifar_utils.events import read_events
from cifar_utils.models import build_model, build_transfer_model, summarize
from cifar_utils.models.plain import foreign_layers
from cifar_utils.models.resnet import Options, basic_block
from cifar_utils.models.transfer import BASES
from cifar_utils.runs.record import write_model
from cifar_utils.training import fit


@pytest.fixture
def folder(tmp_path, make_record):
    """A run's folder that holds a record alone."""
    folder = tmp_path / "made"
    folder.mkdir()
    make_record(run="made").write(folder)
    return folder


def gated(x, classes):
    """A residual network with every option of its blocks."""
    options = Options(0.1, 0.1, spatial_dropout=0.1, gate=0.1, highway=True, residual=True)
    for filters, strides in ((8, 1), (8, 1), (16, 2)):
        x = basic_block(x, filters, strides, options)
    return keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))


def base(include_top, weights, input_shape):
    """A small network in place of Keras's ResNet50V2."""
    layers = keras.layers
    row = [layers.Conv2D(8, 3), layers.BatchNormalization(), layers.Activation("relu")]
    return keras.Sequential([keras.Input(input_shape), *row, layers.Conv2D(8, 3, strides=2)])


base.__module__ = "keras.src.applications.resnet_v2"  # with its preprocess_input

LOAD_ALONE = """\
import sys
import keras, numpy as np
images = np.load(sys.argv[1])
for folder in sys.argv[2:]:
    model = keras.models.load_model(f"{folder}/model.keras")
    np.save(f"{folder}/logits.npy", model(images))
assert not [name for name in sys.modules if name.startswith("cifar_utils")]
"""


def test_keras_loads_a_saved_model_in_a_process_without_this_package(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(BASES, "resnet50v2", base)

    def built(network, augmentation=None, **options):
        if network is base:
            fixed = {"weights": None, "input_size": 32, "fine_tune_layers": 1}
            return build_transfer_model(digits, **fixed, **options)
        return build_model(network, digits, augmentation=augmentation, **options)

    images, expected = digits.test.images, {}
    for network in (gated, "gn_resnet(width=8, dropout=0.1)", "airbench(width=0.1)", base):
        folder = tmp_path / str(len(expected))
        folder.mkdir()
        model = built(network, ", ".join(REGISTRIES["augmentation"]), precision="mixed_bfloat16")
        trained = model.get_layer("head") if network is base else model
        trained.compile("adam")
        trained.optimizer.build(trained.trainable_variables)
        path = write_model(model, folder)
        assert path.stat().st_size < 4 * model.count_params() + 2e5, "weights alone, and once"
        loaded = keras.models.load_model(path)
        assert (loaded.name, loaded.compiled) == (model.name, False)
        assert foreign_layers(loaded) == []
        assert loaded.input.dtype == "uint8"
        assert {layer.compute_dtype for layer in loaded.layers[1:]} == {"float32"}
        assert summarize(loaded).flops == summarize(model).flops
        assert loaded.count_params() == model.count_params()
        same = built(network, precision="float32", fast=False)
        same.set_weights(model.get_weights())
        expected[folder] = keras.ops.convert_to_numpy(same(images))
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", LOAD_ALONE, tmp_path / "images.npy", *expected]
    subprocess.run(command, check=True, timeout=300, cwd=tmp_path)
    for folder, logits in expected.items():
        scale = max(1, np.abs(logits).max())
        np.testing.assert_allclose(np.load(folder / "logits.npy"), logits, atol=1e-3 * scale)


def small(x, classes):
    """A network of a reader's own."""
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
        x = keras.layers.MaxPooling2D(4)(x)
    return keras.layers.Dense(classes)(keras.layers.Flatten()(x))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_record):
    """A run of a network trained in bfloat16, its model, and the test images."""
    data = load_dataset("digits", train_limit=700)
    model = build_model(small, data, augmentation="crop(1)", precision="mixed_bfloat16")
    settings = {"epochs": 8, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.01}
    fit(model, data.train, data.validation, **settings)
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    make_record().write(folder)
    scores = evaluate(model, data.test, data.class_names)
    assert scores.top1 > 0.9
    scores.write(folder)
    write_model(model, folder)
    return load_run(folder), model, data.test


def test_a_prediction_takes_pictures_and_shows_one_class_or_more(trained, refused):
    with refused("no picture is given"):
        trained[0].predict()
    with refused("top is 0; it must be at least 1"):
        trained[0].predict("a.png", top=0)


def test_what_was_trained_in_bfloat16_predicts_the_same_in_float32(trained):
    run, model, test = trained
    assert {layer.compute_dtype for layer in run.model.layers[1:]} == {"float32"}
    found = run.model.predict(test.images, verbose=0).argmax(axis=1)
    expected = model.predict(test.images, verbose=0).argmax(axis=1)
    assert (found == expected).mean() >= 0.995


def test_a_saved_model_is_exported_to_other_formats(trained, tmp_path):
    tf = pytest.importorskip("tensorflow")
    run, _, test = trained
    images = test.images[:4]
    expected = run.model.predict(images, verbose=0)
    run.model.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(saved.serve(images), expected, atol=1e-3)

    content = tf.lite.TFLiteConverter.from_keras_model(run.model).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(given["index"]), expected, atol=1e-3)


def test_a_saved_model_is_exported_to_onnx(trained, tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    run, _, test = trained
    expected = run.model.predict(test.images[:4], verbose=0)  # Keras exports only what was called
    run.model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: test.images[:4]})
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_run_s_model_classifies_pictures_of_any_size_and_kind(trained, tmp_path):
    run, _, test = trained
    place = int(np.flatnonzero(run.scores.predictions == run.scores.labels)[0])
    truth = run.scores.class_names[run.scores.labels[place]]
    picture = Image.fromarray(test.images[place])
    clear = picture.copy()
    clear.putalpha(255)
    kinds = {
        "a.png": picture, "b.png": picture.resize((301, 200)), "c.PNG": picture.convert("L"),
        "d.webp": clear, "e.jpg": picture.resize((640, 640)),
    }  # fmt: skip
    for name, each in kinds.items():
        each.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._a.png").write_bytes(b"no picture")  # as macOS leaves it in an archive
    first = run.predict(tmp_path / "a.png")
    assert first["class"][0] == truth
    assert len(first) == 3
    assert first["probability"].is_monotonic_decreasing
    assert first["probability"][0] == pytest.approx(run.scores.probabilities[place].max(), abs=0.05)
    found = run.predict(tmp_path, str(tmp_path / "a.png"), top=1)
    assert list(found["picture"]) == [str(tmp_path / name) for name in [*kinds, "a.png"]]
    assert set(found["class"]) == {truth}
    assert run.predict(tmp_path / "a.png", top=99)["probability"].sum() == pytest.approx(1)


def test_what_is_no_picture_is_one_line(trained, refused, tmp_path):
    run, *_ = trained
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "scans").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "scans" / "a.tif")
    for name, words in {
        "none.png": "is not there", "empty": "holds no pictures", "a.png": "its content is none of",
        "scans": "holds a.tif, which can't be read",
    }.items():  # fmt: skip
        with refused(tmp_path / name, words):
            run.predict(tmp_path / name)


def test_the_command_line_predicts(trained, tmp_path, cli):
    run, _, test = trained
    Image.fromarray(test.images[0]).save(tmp_path / "a.png")
    call = ["predict", run.folder, tmp_path / "a.png"]
    title, *rows = cli(*call)[1].splitlines()
    assert title.split() == ["picture", "class", "probability"]
    assert len(rows) == 3
    assert rows[0].split()[-1].endswith("%")
    kept = pd.read_csv(io.StringIO(cli(*call, "--top=2", "--csv")[1]))
    pd.testing.assert_frame_equal(kept, run.predict(tmp_path / "a.png", top=2))
    status, _, err = cli(*call[:2], tmp_path / "none.png")
    assert (status, err.count("\n")) == (2, 1)


def test_a_network_of_foreign_layers_is_saved_as_far_as_it_can_be(digits, folder):
    class Described(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    class Undescribed(Described):
        def __init__(self, function):
            super().__init__()
            self.function = function

    def notes():
        return [row["text"] for row in read_events(folder / "events.jsonl")[0]]

    def saved(layer):
        model = build_model(lambda x, classes: small(layer(x), classes), digits)
        return write_model(model, folder)

    assert saved(Described(name="mine")) == folder / "model.keras"
    (note,) = notes()
    assert "mine" in note
    (folder / "model.keras").unlink()
    assert saved(Undescribed(keras.ops.abs)) is None
    assert "get_config" in notes()[1]
    assert not (folder / "model.keras").exists()


def test_a_loaded_model_can_be_trained_further(digits, folder):
    images = keras.Input(digits.image_shape, dtype="uint8")
    (flip,) = augmentation_layers("flip")
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(flip(images)))
    write_model(keras.Model(images, logits), folder)
    history = fit(load_run(folder).model, digits.train, digits.validation, epochs=1)
    assert len(history.epochs) == 1


def test_a_run_says_what_is_there(folder):
    run = load_run(str(folder))
    (folder / ".hidden").touch()
    run.page.touch()
    assert repr(run) == (
        "made: tiny on digits (01_tiny), 1 epoch, test top-1 87.5%; "
        f"{folder} has record.json, report.html"
    )
    Scores(("a", "b"), np.array([0, 1]), np.eye(2, dtype=np.float32)).write(folder)
    assert run.scores.top1 == 1.0


def test_a_run_behind_a_link_has_the_link_s_name(folder, tmp_path, monkeypatch):
    (tmp_path / "linked").symlink_to(folder)
    assert load_run(tmp_path / "linked").name == "linked"
    monkeypatch.chdir(folder)
    assert load_run(".").name == "made"


def test_a_run_s_html_is_escaped(folder, make_record):
    told = ("processor", "cores", "precision", "keras", "backend", "git")
    sizes = {"name": "digits", "train": 1, "validation": 1, "test": 1}
    make_record(
        run="<b>",
        dataset=sizes | {"source": "<b>", "fingerprint": "<b>"},
        environment=dict.fromkeys(told, "<b>"),
    ).write(folder)
    html = load_run(folder)._repr_html_()
    assert "<p>&lt;b&gt;: tiny on digits" in html
    assert "<table" in html
    assert "<b>" not in html


def test_what_is_not_there_is_one_line_with_the_way_to_it(folder, refused):
    run = load_run(folder)
    with refused(folder, "predictions.npz can't be read"):
        _ = run.scores
    with refused(folder, "no model.keras (published runs"):
        _ = run.model


def test_a_broken_model_is_one_line(folder, refused):
    for content in (b"", b"no zip", b"PK\x05\x06" + b"\0" * 18):
        (folder / "model.keras").write_bytes(content)
        with refused("model.keras can't be read (", "run 01_tiny"):
            _ = load_run(folder).model


def test_a_folder_that_is_no_done_run_is_one_line(folder, refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "killed/checkpoint").mkdir(parents=True)
    for name in "abcde":
        (tmp_path / "many" / name).mkdir(parents=True)
        (tmp_path / "many" / name / "record.json").write_text("{}")
    for path, words in [
        (tmp_path / "none", "is not there"),
        (folder / "record.json", "is a file"),
        (tmp_path, "holds no run; give one of those in it: made"),
        (tmp_path / "many", "those in it: a, b, c and 2 more"),
        (tmp_path / "empty", "holds no run; give a run's folder"),
        (tmp_path / "killed", "is not finished; run its notebook or script again"),
    ]:
        with refused(path, words):
            load_run(path)
    (folder / "run.json").write_text("{}")
    (folder / "record.json").rename(folder / "away.json")
    with refused(folder, "not finished; the same command goes on"):
        load_run(folder)
    (folder / "record.json").write_text("{")
    with refused(folder, "is broken"):
        load_run(folder)
