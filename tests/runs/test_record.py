import json
import re
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.backend import keras
from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.evaluation import evaluate, read_scores
from cifar_utils.events import Phases
from cifar_utils.runs import leaderboard
from cifar_utils.runs.record import notebook_name, read_record, record_run

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.floats(width=32).map(np.float32),
    st.integers(0, 255).map(np.uint8),
    st.lists(st.floats(width=32), max_size=3).map(np.array),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("records")


@settings(max_examples=25)
@given(dicts=st.dictionaries(st.text(), VALUES, max_size=4), rows=st.lists(st.just({"epoch": 1})))
def test_a_record_read_is_the_one_written(make_record, folder, dicts, rows):
    record = make_record(parameters=dicts, scores={"test": {"more": dicts}}, history=rows)
    path = record.write(folder)
    assert read_record(path) == record
    assert read_record(folder) == record


def test_file_is_strict_json_of_the_promised_keys(make_record, tmp_path):
    row = {"epoch": 1, "loss": float("nan"), "val_loss": np.float32("inf")}
    text = make_record(history=[row]).write(tmp_path).read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"not strict: {name}"))
    assert content.keys() == {
        "schema", "run", "notebook", "parameters", "dataset", "model", "environment", "seconds",
        "history", "best_epoch", "scores", "stopped", "trials", "trained_by", "evaluated_by",
        "code",
    }  # fmt: skip
    assert content["schema"] == 1
    assert content["history"] == [{"epoch": 1, "loss": None, "val_loss": None}]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_json_cannot_hold_is_refused(make_record):
    with pytest.raises(TypeError, match="a record holds"):
        make_record(parameters={"model": object()})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"\}$", "", "is broken"),
        (r"^.*$", "[]", "is broken"),
        ('"schema": 1', '"schema": 2', "its schema is 2, not 1"),
        ('"top1": [0-9.]+', '"top1": "high"', "its scores.test.top1 is 'high', not of type"),
        ('"top5_interval": .*?]', '"top5_interval": [0.9]', "test.top5_interval.1 is None"),
        ('"trials": .*?]', '"trials": [{"name": "a"}]', "its trials.epochs is None"),
        (
            '"trials": .*?]',
            '"trials": [{"name": "1", "epochs": 2, "val_accuracy": 0.5}]',
            "its trial 1's values is None, not of type dict",
        ),
        ('"trials": .*?]', '"trials": [{"name": "a", "epochs": 1}]', "trial a has no val_accuracy"),
        ('"notebook"', '"notbook"', "'notbook'"),
        ('"trials": .*?]', '"trials": {}', "its trials is {}, not of type list"),
        (
            '"trials": .*?]',
            '"trials": [{"name": "a", "epochs": 1, "val_accuracy": 0.5, "history": [{}]}]',
            "its history.accuracy is None, not of type Real",
        ),
        ('"history": .*?]', '"history": [[]]', "its history has [], not of type dict"),
        ('"history": .*?]', '"history": [{"epoch": {}}]', "its history.epoch is {}, not of type"),
        ('"parameters": [0-9]+', '"parameters": 1, "flops": "1"', "its model.flops is '1'"),
        ('"evaluated_by": {.*?}', '"evaluated_by": {"backend": [1]}', "its environment.backend"),
        ('"n": 200', '"n": 200, "top_k": ["a"]', "its scores.test.top_k.0 is 'a', not of type"),
        ('"n": 200', '"n": 200, "most_frequent": []', "its scores.test.most_frequent is []"),
        ('"environment": {}', '"environment": {"accelerators": [1]}', "its environment.0 is 1"),
    ],
)
def test_broken_records_are_one_line(make_record, refused, tmp_path, old, new, message):
    with refused("can't be read"):
        read_record(tmp_path)
    path = make_record().write(tmp_path)
    text = re.sub(old, new, path.read_text().strip(), flags=re.DOTALL)
    path.write_text(text)
    with refused(path, message):
        read_record(path)


def test_a_record_from_before_a_key_was_added_is_read(make_record, tmp_path):
    record = make_record()
    content = json.loads(record.write(tmp_path).read_text())
    for key in ("stopped", "trials", "trained_by", "evaluated_by", "code"):
        del content[key]
    (tmp_path / "record.json").write_text(json.dumps(content))
    assert read_record(tmp_path) == record


@pytest.fixture(scope="module")
def finished():
    """What a notebook hands over when it has come to its scores: a tiny model's run."""
    from cifar_utils.training import History

    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    split = Split(images, np.arange(12) % 3)
    dataset = Dataset("digits", ("a", "b", "c"), split, split, split, "embedded", "abc")
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x), name="tiny")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*split, verbose=0)
    row = {"epoch": 1, "val_accuracy": 0.5, "val_loss": 1.0, "seconds": 2.0}
    scores = evaluate(model, split, dataset.class_names)
    return dataset, model, History([row], 1), scores


def test_a_run_leaves_record_predictions_and_model(finished, tmp_path):
    dataset, model, _, scores = finished
    base = tmp_path / "base"  # a run whose weights this one began with
    base.mkdir()
    given = {"seed": 0, "weights": str(base), "output": "x"}
    record = record_run(given, *finished, phases=Phases(tmp_path))
    base.rmdir()
    assert record.dataset == {
        "name": "digits", "source": "embedded", "fingerprint": "abc", "note": "",
        "test_pictures": "", "train": 12, "validation": 12, "test": 12,
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {
        "record.json", "predictions.npz", "predicted.npz", "model.keras",
    }  # fmt: skip
    assert read_record(tmp_path) == record
    assert record.parameters == {"seed": 0, "weights": "base"}
    assert read_scores(tmp_path / "predictions.npz").to_dict() == scores.to_dict()
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert model.optimizer is not None, "it can be trained further"
    assert not saved.compiled
    assert (tmp_path / "model.keras").stat().st_size < 30_000, "weights alone"
    again = evaluate(saved, dataset.test, dataset.class_names)
    np.testing.assert_array_equal(again.probabilities, scores.probabilities)


@pytest.mark.parametrize("given", ["mine", "tiny; mine", "resnet20"])
def test_a_reader_s_network_keeps_its_source_however_it_was_given(finished, given):
    from cifar_utils.models import build_model

    def mine(x, classes):
        return keras.layers.Dense(classes)(keras.layers.Flatten()(x))

    dataset, _, history, scores = finished
    network = given if given == "resnet20" else mine
    model = build_model(network, dataset)
    record = record_run({"architectures": given}, dataset, model, history, scores, Phases(None))
    assert ("def mine" in record.model.get("source", "")) == (network is mine)
    assert str(leaderboard.settings(record).get("architecture")).startswith("mine, code") == (
        network is mine
    )


def test_without_a_folder_a_run_leaves_nothing(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record_run({}, *finished, phases=Phases(None))
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_a_parent_runs_no_notebook(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr(psutil.Process, "parent", lambda self: None)  # a container's first
    assert notebook_name() == "notebook"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "/bin/papermill", "02_resnet.ipynb", "out.ipynb"], "02_resnet"),
        (["python", "/bin/jupyter-lab", "02_resnet.ipynb"], "Untitled"),
    ],
)
def test_a_notebook_that_papermill_runs_below_jupyterlab_has_its_own_name(
    monkeypatch, command, name
):
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/Untitled.ipynb")
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: command)
    assert notebook_name() == name


def test_the_record_is_written_last_and_a_failed_model_leaves_the_old_one(
    finished, tmp_path, monkeypatch
):
    (tmp_path / "model.keras").write_text("old")

    def full(model, path):
        Path(path).write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras.Model.save", full)
    with pytest.raises(OSError, match="No space"):
        record_run({}, *finished, phases=Phases(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "predictions.npz", "predicted.npz", "model.keras",
    }  # fmt: skip
    assert (tmp_path / "model.keras").read_text() == "old"


@pytest.mark.parametrize(
    ("given", "views", "flops"),
    [
        ({}, (1, 0.0), 100),
        ({"views": 6}, (6, 1.0), 600),
        ({"unsure": 0.4}, (6, 0.4), 300),
        ({"views": "front", "unsure": "yes"}, (1, 0.0), 100),  # of a reader's own notebook
    ],
)
def test_the_operations_for_a_test_image_are_those_of_all_its_views(
    make_record, given, views, flops
):
    record = make_record(parameters=given, model={"flops": 100})
    assert (record.views, record.test_flops) == (views, pytest.approx(flops))
    assert make_record(model={}).test_flops is None
