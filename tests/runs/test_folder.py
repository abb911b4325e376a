"""A run read back: what was written is what is read, to the bit."""

import shutil

import numpy as np
import pytest

from cifar_utils import load_run
from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import keras
from cifar_utils.data import load_dataset
from cifar_utils.errors import InputError
from cifar_utils.evaluation import Scores, evaluate
from cifar_utils.models import (
    AUGMENTATIONS,
    build_model,
    build_transfer_model,
    summarize,
)
from cifar_utils.runs.record import RunRecord, write_model
from cifar_utils.training import fit

FACTS = {
    "run": "made",
    "notebook": "01_vgg_like",
    "parameters": {"epochs": 1},
    "dataset": {"name": "digits"},
    "model": {"architecture": "tiny"},
    "environment": {},
    "seconds": {},
    "history": [{"epoch": 1}],
    "best_epoch": 1,
    "scores": {"test": {"top1": 0.5}},
}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", train_limit=100, test_limit=20)


@pytest.fixture
def folder(tmp_path):
    """A run's folder that holds a record alone."""
    folder = tmp_path / "made"
    folder.mkdir()
    RunRecord(**FACTS).write(folder)
    return folder


# Every kind of layer; deeper networks are made of the same ones.
KINDS = [
    "resnet20(gate=0.1, highway=True, spatial_dropout=0.1)",
    "preact",
    "gn_resnet(dropout=0.1)",
]
KINDS += ["cifarnet", "airbench", "vgg19", "transfer"]


@pytest.mark.parametrize("name", KINDS)
def test_every_model_predicts_after_loading_exactly_what_its_scores_hold(digits, folder, name):
    if name == "transfer":
        model = build_transfer_model(digits, weights=None, input_size=32)
        trained = model.get_layer("head")
    else:
        model = trained = build_model(name, digits, augmentation=", ".join(AUGMENTATIONS))
    trained.compile("adam")
    trained.optimizer.build(trained.trainable_variables)
    scores = evaluate(model, digits.test, digits.class_names)
    path = write_model(model, folder)
    assert path.stat().st_size < 4 * model.count_params() + 2e6, "weights alone, and once"
    scores.write(folder)

    run = load_run(folder)
    again = evaluate(run.model, digits.test, digits.class_names)
    for loaded in (again, run.scores):
        np.testing.assert_array_equal(loaded.probabilities, scores.probabilities)
        np.testing.assert_array_equal(loaded.labels, digits.test.labels)
    assert run.scores.class_names == digits.class_names
    facts = [summarize(each) for each in (run.model, model)]
    assert facts[0].parameters == facts[1].parameters
    assert facts[0].trainable_parameters == facts[1].trainable_parameters
    assert facts[0].flops == facts[1].flops
    assert run.model.name == model.name
    assert run.model is run.model
    if name != "transfer":  # augmentation came with it, and acts in training alone
        first, second = (run.model(digits.test.images, training=True) for _ in range(2))
        assert not np.array_equal(*map(keras.ops.convert_to_numpy, (first, second)))
    shutil.rmtree(folder)


def test_a_loaded_model_can_be_trained_further(digits, folder):
    images = keras.Input(digits.image_shape, dtype="uint8")
    (flip,) = augmentation_layers("flip")
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(flip(images)))
    write_model(keras.Model(images, logits), folder)
    history = fit(load_run(folder).model, digits.train, digits.validation, epochs=1)
    assert len(history.epochs) == 1


def test_a_run_says_what_is_there(folder):
    run = load_run(str(folder))
    assert run.name == "made"
    assert run.page == folder / "report.html"
    assert repr(run) == (
        "made: tiny on digits (01_vgg_like), 1 epoch, test top-1 50.0%; "
        f"in {folder}: record, no page, no predicted classes, no predictions, no model"
    )
    run.page.touch()
    Scores(("a", "b"), np.array([0, 1]), np.eye(2, dtype=np.float32)).write(folder)
    assert repr(run).endswith("record, page, predicted classes, predictions, no model")
    assert run.scores.top1 == 1.0


def test_a_run_s_html_is_escaped(folder):
    facts = dict.fromkeys(("processor", "cores", "precision", "keras", "backend"), "<b>")
    facts |= dict.fromkeys(("backend_version", "python", "platform", "git"), "<b>")
    sizes = {"train": 1, "validation": 1, "test": 1, "source": "<b>", "fingerprint": "<b>"}
    changed = {
        "run": "<b>",
        "dataset": FACTS["dataset"] | sizes,
        "environment": facts | {"accelerators": []},
        "seconds": {"total": 1.0},
    }
    RunRecord(**FACTS | changed).write(folder)
    html = load_run(folder)._repr_html_()
    assert "<p>&lt;b&gt;: tiny on digits" in html
    assert "<table" in html
    assert "<b>" not in html


def test_what_is_not_there_is_one_line_with_the_way_to_it(folder):
    run = load_run(folder)
    with pytest.raises(InputError, match=r"no predictions\.npz; run 01_vgg_like again") as scores:
        _ = run.scores
    with pytest.raises(InputError, match=r"no model\.keras \(published runs") as model:
        _ = run.model
    (folder / "checkpoint").mkdir()
    with pytest.raises(InputError, match="this output: it goes on from its checkpoint"):
        _ = run.model
    for error in (scores, model):
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_broken_model_is_one_line(folder):
    for content in (b"", b"no zip", b"PK\x05\x06" + b"\0" * 18):
        (folder / "model.keras").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.keras is broken \(.*run 01_vgg_lik") as error:
            _ = load_run(folder).model
        assert "\n" not in str(error.value)


def test_a_folder_that_is_no_done_run_is_one_line(folder, tmp_path):
    def refused(path, words):
        with pytest.raises(InputError, match=words) as error:
            load_run(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)

    refused(tmp_path / "none", "is not there")
    refused(folder / "record.json", "is not there")
    refused(tmp_path, "no run's; give one of those in it: made$")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no run's; give a run's folder")
    (folder / "run.json").touch()
    (folder / "record.json").rename(folder / "away.json")
    refused(folder, "has no record: it failed or is not finished")
    (folder / "record.json").write_text("{")
    refused(folder, "is broken")
