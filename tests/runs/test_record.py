import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.errors import InputError
from cifar_utils.evaluation import evaluate, read_scores
from cifar_utils.events import Phases
from cifar_utils.runs import record as module
from cifar_utils.runs.record import RunRecord, describe_dataset, read_record

FACTS = {
    "run": "cifarnet-digits-s0",
    "notebook": "01_vgg_like",
    "parameters": {"epochs": 1, "weights": None},
    "dataset": {"name": "digits", "test": 360},
    "model": {"architecture": "cifarnet", "parameters": 2_444_672},
    "environment": {"backend": "tensorflow", "git": None},
    "seconds": {"train": 1.5},
    "history": [{"epoch": 1, "loss": 0.5}],
    "best_epoch": 1,
    "scores": {"test": {"n": 360, "top1": 0.9}},
}
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


@given(dicts=st.dictionaries(st.text(), VALUES, max_size=4), rows=st.lists(st.just({"epoch": 1})))
def test_a_record_read_is_the_one_written(folder, dicts, rows):
    record = RunRecord(**FACTS | {"parameters": dicts, "scores": {"test": dicts}, "history": rows})
    path = record.write(folder)
    assert read_record(path) == record
    assert read_record(folder) == record


def test_file_is_strict_json_of_the_promised_keys(tmp_path):
    nan = FACTS | {"history": [{"epoch": 1, "loss": float("nan"), "val_loss": np.float32("inf")}]}
    text = RunRecord(**nan).write(tmp_path).read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"not strict: {name}"))
    optional = {"stopped", "trials", "trained_by", "evaluated_by", "code"}
    assert content.keys() == FACTS.keys() | {"schema"} | optional
    assert content["schema"] == 1
    assert content["history"] == [{"epoch": 1, "loss": None, "val_loss": None}]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="a record holds"):
        RunRecord(**FACTS | {"parameters": {"model": object()}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        ('{"schema": 1, "run"', "is broken"),
        ("[]", "is broken"),
        (json.dumps(FACTS | {"schema": 2}), "its schema is 2, not 1"),
        (json.dumps({"schema": 1, "run": "x"}), "'notebook'"),
        (json.dumps(FACTS | {"history": {}}), "its history is {}, not of type list"),
        (json.dumps(FACTS | {"stopped": 3}), "its stopped is 3, not of type str"),
        (json.dumps(FACTS | {"colour": 1}), "'colour'"),
    ],
)
def test_broken_records_are_one_line(tmp_path, content, message):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_record(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_record_from_before_a_key_was_added_is_read(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(FACTS | {"schema": 1}))
    assert read_record(tmp_path) == RunRecord(**FACTS)
    assert read_record(tmp_path).stopped == ""


def test_dataset_is_described_by_its_sizes():
    splits = [Split(np.zeros((n, 8, 8, 3), np.uint8), np.zeros(n, int)) for n in (5, 2, 3)]
    dataset = Dataset("digits", ("zero",), *splits, "embedded", "abc")
    facts = describe_dataset(dataset)
    assert facts == {
        "name": "digits", "source": "embedded", "fingerprint": "abc", "note": "",
        "train": 5, "validation": 2, "test": 3,
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished():
    """What a notebook hands over when it has come to its scores: a tiny model's run."""
    from cifar_utils.backend import keras
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
    from cifar_utils.backend import keras

    dataset, model, _, scores = finished
    record = module.record_run({"seed": 0, "output": "x"}, *finished, phases=Phases(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "record.json", "predictions.npz", "predicted.npz", "model.keras",
    }  # fmt: skip
    assert read_record(tmp_path) == record
    assert record.parameters == {"seed": 0}
    assert read_scores(tmp_path / "predictions.npz").to_dict() == scores.to_dict()
    saved = keras.models.load_model(tmp_path / "model.keras")
    assert model.optimizer is not None, "it can be trained further"
    assert not saved.compiled
    assert (tmp_path / "model.keras").stat().st_size < 30_000, "weights alone"
    again = evaluate(saved, dataset.test, dataset.class_names)
    np.testing.assert_array_equal(again.probabilities, scores.probabilities)


def test_without_a_folder_a_run_leaves_nothing(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module.record_run({}, *finished, phases=Phases(None))
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_written_last_and_a_failed_model_leaves_the_old_one(
    finished, tmp_path, monkeypatch
):
    (tmp_path / "model.keras").write_text("old")

    def full(model, path):
        Path(path).write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras.Model.save", full)
    with pytest.raises(OSError, match="No space"):
        module.record_run({}, *finished, phases=Phases(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "predictions.npz", "predicted.npz", "model.keras",
    }  # fmt: skip
    assert (tmp_path / "model.keras").read_text() == "old"


def test_facts_say_why_a_run_stopped():
    from cifar_utils.reporting.facts import record_facts

    rows = {"history": [{"epoch": 1, "val_accuracy": 0.9}], "scores": {}}
    plain = record_facts(RunRecord(**FACTS | rows))
    assert ("epochs", "1", "best: 1") in plain
    stopped = RunRecord(**FACTS | rows, stopped="validation accuracy reached 90.0% in epoch 1")
    told = "best: 1; stopped: validation accuracy reached 90.0% in epoch 1"
    assert ("epochs", "1", told) in record_facts(stopped)


def test_a_record_is_told_in_a_line():
    assert repr(RunRecord(**FACTS)) == (
        "cifarnet-digits-s0: cifarnet on digits (01_vgg_like), 1 epoch, test top-1 90.0%"
    )
