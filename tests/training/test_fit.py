import json

import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.models import build_model, summarize
from cifar_utils.training import TrainingDiverged, fit, gradient_norms
from cifar_utils.training.callbacks import Checkpoint, Progress

SETTINGS = {
    "epochs": 2, "batch_size": 30, "optimizer": "adam", "learning_rate": 0.003,
    "schedule": "cosine", "weight_decay": 0.01, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(build):
    """A model that no test trains."""
    return build()


def accuracy(model, split):
    return (model.predict(split.images, verbose=0).argmax(1) == split.labels).mean()


def test_a_model_learns_and_tells_each_epoch(build, digits):
    model, validation = build(), Split(*(part[:25] for part in digits.validation))
    history = fit(
        model, digits.train, validation, **SETTINGS | {"epochs": 8, "schedule": "step(6)"}
    )
    assert [row["epoch"] for row in history.epochs] == list(range(1, 9))
    metrics = {"loss", "accuracy", "top5"}
    keys = {"epoch", "learning_rate", "seconds"} | metrics | {f"val_{name}" for name in metrics}
    assert all(row.keys() == keys for row in history.epochs)
    assert json.loads(json.dumps(history.epochs)) == history.epochs
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"] / 2
    assert [round(row["learning_rate"], 6) for row in history.epochs] == [0.003] * 6 + [0.0003] * 2
    assert all(row["seconds"] > 0 for row in history.epochs)
    assert history.best["val_accuracy"] >= 0.8
    assert all(row["val_accuracy"] in np.arange(26) / 25 for row in history.epochs), "not float32"
    assert accuracy(model, digits.test) >= 0.8


def test_the_model_is_left_with_its_best_epoch_by_validation(build, digits):
    # What the network learns about these labels in time is that they are wrong.
    wrong = Split(digits.validation.images, (digits.validation.labels + 1) % 10)
    model = build()
    history = fit(model, digits.train, wrong, **SETTINGS | {"epochs": 5})
    ranks = [(row["val_accuracy"], -row["val_loss"]) for row in history.epochs]
    assert max(ranks) == ranks[history.best_epoch - 1] != ranks[-1]
    assert accuracy(model, wrong) == pytest.approx(history.best["val_accuracy"])


def test_without_validation_images_the_last_epoch_is_kept(build, digits):
    model = build()
    none = Split(digits.validation.images[:0], digits.validation.labels[:0])
    history = fit(model, digits.train, none, **SETTINGS | {"epochs": 3})
    assert history.best_epoch == 3
    assert all(row.keys() >= {"loss", "accuracy"} for row in history.epochs)
    assert not any("val_loss" in row for row in history.epochs)
    assert "training accuracy" in repr(history)


def test_training_stops_at_a_target(build, digits, tmp_path):
    settings = SETTINGS | {"epochs": 30, "schedule": "constant"}
    history = fit(
        build(), digits.train, digits.validation, **settings, target_accuracy=0.5, output=tmp_path
    )
    accuracies = [row["val_accuracy"] for row in history.epochs]
    assert accuracies[-1] >= 0.5 > max(accuracies[:-1], default=0)
    assert history.steps_to(0.5) == 9 * len(accuracies) < 9 * 30
    assert history.stopped == f"validation accuracy reached 50.0% in epoch {len(accuracies)}"
    *_, last = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(last)["seconds_left"] == 0, "no more is to come"
    assert json.loads(last)["epochs"] == 30


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_accuracy": 0.5}, "target_accuracy goes by validation images"),
        ({"patience": 2}, "patience goes by validation images"),
        ({"schedule": "plateau(0.5)"}, "schedule 'plateau(0.5)' goes by validation images"),
    ],
)
def test_to_stop_or_to_slow_down_takes_validation_images(model, digits, refused, change, words):
    none = Split(digits.validation.images[:0], digits.validation.labels[:0])
    with refused(words):
        fit(model, digits.train, none, **SETTINGS | change)


def smoothed(labels, logits, share):
    """The mean crossentropy of labels of which a share goes to all classes alike."""
    labels = (1 - share) * np.eye(logits.shape[-1])[labels] + share / logits.shape[-1]
    logits = logits - logits.max(1, keepdims=True)
    return np.mean(np.log(np.exp(logits).sum(1)) - (labels * logits).sum(1))


def test_smoothed_labels_teach_too_and_the_loss_of_validation_has_them(build, digits):
    model = build(precision="mixed_bfloat16")
    settings = SETTINGS | {"epochs": 4, "label_smoothing": 0.2}
    history = fit(model, digits.train, digits.validation, **settings)
    assert history.best["val_accuracy"] > 0.7
    images, labels = digits.validation
    logits = model.predict(images, verbose=0)
    assert history.best["val_loss"] == pytest.approx(smoothed(labels, logits, 0.2), rel=0.01)
    ranks = (-logits).argsort(1)
    assert history.best["val_accuracy"] == pytest.approx((ranks[:, 0] == labels).mean())
    assert history.best["val_top5"] == pytest.approx(
        (ranks[:, :5] == labels[:, None]).any(1).mean()
    )


@pytest.mark.parametrize(
    ("step", "kept", "in_epoch", "error"),
    [
        (Checkpoint, True, 1, OSError),  # a full disk
        (Progress, False, 2, KeyboardInterrupt),
    ],
)
def test_a_model_that_was_interrupted_without_a_checkpoint_begins_again(
    build, digits, tmp_path, step, kept, in_epoch, error
):
    arguments, folder = (digits.train, digits.validation), tmp_path if kept else None
    ended = step.on_epoch_end

    def interrupt(callback, epoch, logs):
        if epoch == in_epoch - 1:
            raise error
        ended(callback, epoch, logs)

    model, undisturbed = build(), build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "on_epoch_end", interrupt)
        with pytest.raises(error):
            fit(model, *arguments, **SETTINGS, output=folder)
    again, once = (
        fit(each, *arguments, **SETTINGS, output=place).epochs
        for each, place in ((model, folder), (undisturbed, None))
    )
    assert [row["loss"] for row in again] == [row["loss"] for row in once]


def test_a_run_s_folder_holds_its_events_and_two_checkpoints_at_most(build, digits, tmp_path):
    fit(build(), digits.train, digits.validation, **SETTINGS | {"epochs": 3}, output=tmp_path)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    ends = [event for event in events if event["event"] == "epoch"]
    assert [event["epoch"] for event in ends] == [1, 2, 3]
    assert {event["event"] for event in events} <= {"batch", "epoch"}
    keys = {"time", "epochs", "step", "steps", "loss", "accuracy", "seconds_left"}
    assert all(keys <= event.keys() for event in events)
    assert all({"val_loss", "val_accuracy"} <= event.keys() for event in ends)
    assert (ends[-1]["step"], ends[-1]["steps"], ends[-1]["seconds_left"]) == (9, 9, 0)
    names = {path.name for path in (tmp_path / "checkpoint").iterdir()}
    assert "state.json" in names
    assert "epoch-0003.weights.h5" in names
    assert len(names) <= 3


def test_without_a_folder_nothing_is_left_and_images_stay(build, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    splits = (digits.train, digits.validation)
    before = [split.images.copy() for split in splits]
    fit(build(augmentation="alternating_flip"), *splits, **SETTINGS | {"epochs": 1})
    assert list(tmp_path.iterdir()) == []
    for split, images in zip(splits, before, strict=True):
        np.testing.assert_array_equal(split.images, images)


def test_a_loss_that_is_no_number_stops_with_a_clear_word(build, digits, tmp_path):
    model = build(precision="float32")
    with pytest.raises(TrainingDiverged) as error:
        fit(
            model, digits.train, digits.validation, output=tmp_path,
            **SETTINGS | {"optimizer": "sgd", "learning_rate": 1e30, "schedule": "constant"},
        )  # fmt: skip
    message = str(error.value)
    assert "in epoch 1, step" in message
    assert "at a learning rate of 1e+30: lower learning_rate" in message
    assert "\n" not in message
    assert not (tmp_path / "checkpoint" / "state.json").exists()
    history = fit(model, digits.train, digits.validation, **SETTINGS)
    assert history.epochs[-1]["loss"] < 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": -1}, "batch_size is -1"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"epochs": 3, "until": 4}, "until is 4; it must be at least 1, at most 3"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; it must be"),
        ({"target_accuracy": 94}, "target_accuracy is 94; it must be above 0, at most 1"),
        ({"patience": 0}, "patience is 0"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it must be at least 0"),
        ({"epochs": "3"}, "epochs is '3'; it takes a whole number"),
        ({"epochs": 2.5}, "epochs is 2.5; it takes a whole number"),
        ({"batch_size": 20.5}, "batch_size is 20.5; it takes a whole number"),
        ({"seed": 1.5}, "seed is 1.5; it takes a whole number"),
        ({"patience": True}, "patience is True; it takes a whole number"),
        ({"weight_decay": None}, "weight_decay is None; it takes a number"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_nothing(
    model, digits, refused, tmp_path, change, words
):
    with refused(words):
        fit(model, digits.train, digits.validation, **SETTINGS | change, output=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (lambda labels: labels[:9], "labels are of shape (9,) and type int64; 270 images take"),
        (lambda labels: np.eye(10)[labels], "labels are of shape (270, 10) and type float64"),
        (lambda labels: labels + 1, "labels are from 1 to 10; a model of 10 classes takes 0 to 9"),
    ],
)
def test_labels_that_are_no_class_of_each_image_are_one_line(model, digits, refused, labels, words):
    images, known = digits.train
    with refused(words):
        fit(model, Split(images, labels(known)), digits.validation, **SETTINGS)


def test_numbers_may_be_those_of_numpy(build, digits, tmp_path):
    numbers = {
        "epochs": np.int64(1), "batch_size": np.int32(30), "seed": np.arange(3)[1],
        "learning_rate": np.float32(0.003), "weight_decay": np.float64(0.01),
        "patience": np.int64(2), "target_accuracy": np.float32(1),
    }  # fmt: skip
    model = build(seed=np.int64(1))
    assert len(fit(model, digits.train, digits.validation, **numbers, output=tmp_path).epochs) == 1


def test_a_batch_larger_than_the_data_is_as_large_as_they_are(build, digits):
    losses = [
        fit(
            build(), digits.train, digits.validation, epochs=2, batch_size=size,
            optimizer="muon(dense_factor=0.01,bias_factor=0.01)", learning_rate=0.1,
        ).epochs[-1]["loss"]
        for size in (len(digits.train.labels), 2000)
    ]  # fmt: skip
    assert losses[0] == losses[1]


def test_a_model_without_a_graph_of_layers_is_one_line(digits, refused):
    class Own(keras.Model):
        def call(self, images):
            return images[:, 0, 0, :10]

    shapeless = keras.Sequential([keras.layers.Flatten()], name="shapeless")
    for model, words in (
        (Own(), "Own has no graph of layers; call it in a function"),
        (shapeless, "shapeless has no input shape; let it begin with keras.Input(shape)"),
    ):
        with refused(words):
            fit(model, digits.train, digits.validation, **SETTINGS)
        with refused(words):
            summarize(model)
        with refused(words):
            gradient_norms(model, digits.train)


def test_a_folder_that_cannot_be_written_is_one_line(model, digits, refused, tmp_path):
    (tmp_path / "file").touch()
    with refused(tmp_path / "file", "can't be written", "choose another folder"):
        fit(model, digits.train, digits.validation, **SETTINGS, output=tmp_path / "file")


def test_training_begins_with_small_images_and_goes_on_with_whole_ones(digits):
    seen = []

    class Watched(keras.layers.Layer):
        def call(self, images):
            seen.append(images.shape[1])  # whenever a step is traced
            return images

    def network(x, classes):
        pooled = keras.layers.GlobalAveragePooling2D()(Watched()(x))
        return keras.layers.Dense(classes)(pooled)

    model = build_model(network, digits, augmentation="shrink(12, 1)")
    seen.clear()
    fit(model, digits.train, digits.validation, **SETTINGS)
    train, *others = dict.fromkeys(seen)
    assert (train, others) == (12, [32])
    assert seen[-1] == 32
