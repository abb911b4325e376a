"""A run killed at any moment and started again ends where one left alone does."""

import importlib
import json
import operator
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.models import summarize
from cifar_utils.training import callbacks, fit

SETTINGS = {
    "epochs": 5, "batch_size": 30, "optimizer": "adam", "learning_rate": 0.003,
    "schedule": "plateau(0.5, patience=1, min_delta=0.3)", "weight_decay": 0.01,
    "seed": 1,
}  # fmt: skip
AUGMENTATION = "alternating_flip, crop(2), flip"
SCRIPT = """\
import json, sys
from cifar_utils.choices import REGISTRIES
from cifar_utils.data import load_dataset
from cifar_utils.models import build_model
from cifar_utils.training import fit
REGISTRIES["architecture"]["tiny"] = tiny
augmentation, settings, output = json.loads(sys.argv[1])
data = load_dataset("digits", train_limit=300, test_limit=50)
model = build_model("tiny", data, augmentation=augmentation)
fit(model, data.train, data.validation, **settings, output=output)
"""


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def same(a, b):
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def state(folder):
    return json.loads((folder / "checkpoint" / "state.json").read_text())


class Killed(BaseException):
    """Stands for SIGKILL within the process: nothing handles it."""


@pytest.fixture(scope="module")
def train(build, digits):
    """Train the tiny network from its start, in a folder; return it and its history."""

    def train(output=None, **change):
        model = build(augmentation=AUGMENTATION)
        history = fit(model, digits.train, digits.validation, **SETTINGS | change, output=output)
        return model, history

    return train


@pytest.fixture(scope="module")
def undisturbed(train):
    model, history = train()
    return model.get_weights(), without_seconds(history.epochs)


@pytest.fixture
def kill(monkeypatch):
    """Make the n-th call of a method end the training."""

    def kill(target, name, call):
        method, calls = getattr(target, name), []

        def until(*args, **kwargs):
            calls.append(name)
            if len(calls) == call:
                raise Killed
            return method(*args, **kwargs)

        monkeypatch.setattr(target, name, until)

    return kill


def test_a_run_killed_at_any_moment_ends_as_one_left_alone(train, tiny_source, tmp_path):
    change = {"epochs": 10, "schedule": "cosine(0.2)"}
    model, alone = train(**change)
    arguments = json.dumps([AUGMENTATION, SETTINGS | change, str(tmp_path)])
    command = [sys.executable, "-c", tiny_source + SCRIPT, arguments]
    process = subprocess.Popen(command, start_new_session=True)
    epochs, kept = random.randint(1, 4), tmp_path / "checkpoint" / "state.json"
    while not kept.exists() or len(state(tmp_path)["epochs"]) < epochs:
        assert process.poll() is None, "the run failed before its checkpoint"
        time.sleep(0.01)
    moment = random.uniform(0, min(row["seconds"] for row in alone.epochs))
    print(f"killed {moment:.3f} s after epoch {epochs}")  # shown where this test fails
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    assert epochs <= len(state(tmp_path)["epochs"]) < 10
    again, history = train(tmp_path, **change)
    assert without_seconds(history.epochs) == without_seconds(alone.epochs)
    assert same(again.get_weights(), model.get_weights())


def test_wherever_a_run_is_cut_it_goes_on(train, undisturbed, kill, tmp_path):
    assert len({row["learning_rate"] for row in undisturbed[1]}) > 1, "there are cuts to remember"
    for target, name, call, done in (
        (callbacks.Progress, "on_train_batch_end", 4, 0),
        (callbacks.Progress, "on_train_batch_end", 13, 1),
        (callbacks.Checkpoint, "on_epoch_end", 2, 2),
        (callbacks, "write_atomically", 2, 3),  # between the weights and what names them
        (callbacks, "best_epoch", 1, 4),  # before what is old is removed
    ):
        kill(target, name, call)
        with pytest.raises(Killed):
            train(tmp_path)
        assert (tmp_path / "checkpoint" / "state.json").exists() == (done > 0)
        if done:
            assert len(state(tmp_path)["epochs"]) == done
    model, history = train(tmp_path)
    assert without_seconds(history.epochs) == undisturbed[1]
    assert same(model.get_weights(), undisturbed[0])


def test_a_run_that_stops_by_itself_stops_there_again(train, undisturbed, kill, tmp_path):
    first, *rows = undisturbed[1]
    better = next(row for row in rows if row["val_accuracy"] > first["val_accuracy"])
    last, target = better["epoch"], better["val_accuracy"]
    kill(callbacks, "best_epoch", last)  # in its last epoch, before it has come to an end
    with pytest.raises(Killed):
        train(tmp_path, target_accuracy=target)
    for _ in range(2):  # the second time there is nothing to be done
        _, history = train(tmp_path, target_accuracy=target)
        assert without_seconds(history.epochs) == undisturbed[1][:last]
        assert history.stopped.endswith(f"in epoch {last}")


def test_another_run_s_folder_is_refused_and_left_alone(build, digits, train, refused, tmp_path):
    train(tmp_path, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def is_refused(model, split, words, **change):
        settings = SETTINGS | {"epochs": 1} | change
        folder = tmp_path / "checkpoint"
        with refused(f"{folder} holds a run with {words}", f"delete {folder}"):
            fit(model, split, digits.validation, **settings, output=tmp_path)

    same_model = build(augmentation=AUGMENTATION)
    changes = {
        "epochs": 2, "batch_size": 31, "optimizer": "sgd", "learning_rate": 0.1, "seed": 2,
        "schedule": "constant", "weight_decay": 0.0, "target_accuracy": 0.9, "patience": 5,
    }  # fmt: skip
    for name, value in changes.items():
        was = 1 if name == "epochs" else SETTINGS.get(name)
        is_refused(same_model, digits.train, f"{name} {was!r}, not {value!r}", **{name: value})
    was = same_model.dtype_policy.name
    other = "float32" if was == "mixed_bfloat16" else "mixed_bfloat16"
    model = build(augmentation=AUGMENTATION, precision=other)
    is_refused(model, digits.train, f"precision {was!r}, not {other!r}")
    for name, text in [("tiny(0.3)", AUGMENTATION), ("report_a", AUGMENTATION), ("tiny", "crop")]:
        is_refused(build(name, augmentation=text), digits.train, "network")
    images, labels = digits.train
    for split in (Split(images, labels[::-1]), Split(images // 2 + 100, labels)):
        is_refused(same_model, split, "images")
    with refused("holds a run with images"):
        fit(same_model, digits.train, digits.test, **SETTINGS | {"epochs": 1}, output=tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_is_one_line(train, refused, tmp_path):
    train(tmp_path, epochs=1)
    folder = tmp_path / "checkpoint"
    weights, kept = folder / "epoch-0001.weights.h5", folder / "state.json"
    whole, text = weights.read_bytes(), kept.read_text()

    def damaged():
        with refused(f"{folder} is damaged", f"delete {folder}"):
            train(tmp_path, epochs=1)

    for content in (
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"settings": {}}',
        '{"settings": {}, "epochs": []}',
        '{"settings": 1, "epochs": 2, "trained_by": []}',
    ):
        kept.write_text(content)
        damaged()
    kept.write_text(text)
    for content in (b"", whole[: len(whole) // 2], b"\0" * len(whole)):
        weights.write_bytes(content)
        damaged()
    weights.unlink()
    damaged()


def test_a_run_that_stops_for_now_goes_on_and_a_finished_one_is_left_alone(
    train, undisturbed, kill, tmp_path
):
    weights, rows = undisturbed
    _, history = train(tmp_path, until=1)
    assert without_seconds(history.epochs) == rows[:1]
    assert train(tmp_path, until=1)[1] == history
    kept = state(tmp_path)
    cores = kept["trained_by"][0]["cores"]
    kept["trained_by"][0]["cores"] = 99
    (tmp_path / "checkpoint" / "state.json").write_text(json.dumps(kept))
    model, history = train(tmp_path)
    assert without_seconds(history.epochs) == rows
    assert same(model.get_weights(), weights)
    stretches = [(each["first"], each["last"], each["cores"]) for each in history.trained_by]
    assert stretches == [(1, 1, 99), (2, 5, cores)]
    kept = state(tmp_path)
    kept["trained_by"][1]["cores"] = 99
    (tmp_path / "checkpoint" / "state.json").write_text(json.dumps(kept))
    _, history = train(tmp_path)
    assert without_seconds(history.epochs) == rows, "nothing goes on, so nothing is told"
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    (told,) = [event["text"] for event in events if event["event"] == "note"]
    assert f"after epoch 1 the run goes on with cores {cores} instead of 99" in told
    kill(callbacks.Progress, "on_train_batch_end", 1)
    again, kept = train(tmp_path)
    assert kept == history
    assert same(again.get_weights(), weights)


@pytest.mark.parametrize("optimizer", ["sgd(0.9,True)", "muon"])
def test_every_optimizer_goes_on_as_if_it_had_not_been_stopped(train, tmp_path, optimizer):
    change = {"optimizer": optimizer, "epochs": 3, "schedule": "linear"}
    model, alone = train(**change)
    train(tmp_path, **change, until=2)
    again, history = train(tmp_path, **change)
    assert without_seconds(history.epochs) == without_seconds(alone.epochs)
    assert same(again.get_weights(), model.get_weights())


def test_a_sum_in_place_of_a_difference_is_another_network(digits, refused, tmp_path):
    def network(combine):
        images = keras.Input(digits.image_shape, dtype="uint8")
        features = keras.layers.Flatten()(images / 255.0)
        one, other = (keras.layers.Dense(10)(features) for _ in range(2))
        return keras.Model(images, combine(one, other))

    settings = SETTINGS | {"epochs": 1, "output": tmp_path}
    history = fit(network(operator.add), digits.train, digits.validation, **settings)
    with refused("holds a run with network"):
        fit(network(operator.sub), digits.train, digits.validation, **settings)
    assert fit(network(operator.add), digits.train, digits.validation, **settings) == history


def test_a_lambda_of_a_cell_goes_on_in_another_kernel(digits, tmp_path):
    settings = SETTINGS | {"epochs": 1, "output": tmp_path}

    def train(process):
        twice = eval(compile("lambda x: 2 * x", f"/tmp/ipykernel_{process}/1.py", "eval"))
        images = keras.Input(digits.image_shape, dtype="uint8")
        features = keras.layers.Lambda(twice)(keras.layers.Flatten()(images / 255.0))
        model = keras.Model(images, keras.layers.Dense(10)(features))
        return fit(model, digits.train, digits.validation, **settings)

    assert train(1) == train(2)


class OwnBlock(keras.Model):
    """A model with its own ``call``, which can't tell its configuration."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x):
        return self.inner(x)


class OwnLayer(keras.layers.Layer):
    """A layer whose configuration holds what Keras can't write down."""

    def call(self, x):
        return x

    def get_config(self):
        return super().get_config() | {"options": object()}


def named_as_an_option(x, classes):
    for _ in range(2):  # the first may be named "activation"
        x = keras.layers.Activation("relu")(x)
    return keras.layers.Dense(classes)(keras.layers.Flatten()(x))


def wrapped(x, classes):
    x = keras.layers.TimeDistributed(keras.layers.Dense(3))(x)
    return keras.layers.Dense(classes)(keras.layers.Flatten()(x))


def sequential(x, classes):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(classes)])(x)


def with_odd_configuration(x, classes):
    return keras.layers.Dense(classes)(OwnLayer()(keras.layers.Flatten()(x)))


def without_configuration(x, classes):
    return OwnBlock(keras.layers.Dense(classes))(keras.layers.Flatten()(x))


def with_named_outputs(x, classes):
    inputs = keras.Input((None, None, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    x = keras.Model({"image": inputs}, {"pooled": pooled})({"image": x})
    return keras.layers.Dense(classes)(x["pooled"])


@pytest.mark.parametrize(
    "network",
    [
        named_as_an_option, wrapped, sequential, without_configuration, with_odd_configuration,
        with_named_outputs,
    ],
)  # fmt: skip
def test_a_network_that_is_built_again_is_the_same(build, digits, tmp_path, network):
    settings = SETTINGS | {"epochs": 1, "output": tmp_path}
    keras.utils.clear_session()  # so that names begin anew
    models = [build(network) for _ in range(2)]
    first, second = (fit(each, digits.train, digits.validation, **settings) for each in models)
    assert first == second
    assert summarize(models[0]).parameters == models[0].count_params()
    assert same(models[0].get_weights(), models[1].get_weights())


def test_a_layer_without_configuration_does_not_hide_the_others(build, digits, refused, tmp_path):
    def train(activation):
        def network(x, classes):
            return without_configuration(keras.layers.Activation(activation)(x), classes)

        settings = SETTINGS | {"epochs": 1, "output": tmp_path}
        return fit(build(network), digits.train, digits.validation, **settings)

    train("relu")
    with refused("holds a run with network"):
        train("tanh")


OWN = """
class Scaled(keras.layers.Layer):
    def call(self, x):
        return {}

def mine(x, classes):
    return keras.layers.Dense(classes)(Scaled()(keras.layers.Flatten()(x)))
"""


def test_a_network_whose_own_code_has_changed_is_another_one(
    build, digits, refused, tmp_path, monkeypatch
):
    def train(call, folder):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_code.py").write_text("import keras\n" + OWN.format(call))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / folder)
            patch.delitem(sys.modules, "own_code", raising=False)
            model = build(importlib.import_module("own_code").mine)
        settings = SETTINGS | {"epochs": 1, "output": tmp_path}
        return fit(model, digits.train, digits.validation, **settings)

    first = train("x * 1.0", "first")
    assert train("x * 1.0  # as it was", "with a comment") == first
    with refused("holds a run with network"):
        train("x * -7.0", "changed")


def draws_without_a_seed(x, classes):
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            noise = keras.random.normal(keras.ops.shape(x), dtype=x.dtype)
            return x + noise if training else x

    return keras.layers.Dense(classes)(Noise()(keras.layers.Flatten()(x)))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Keras refuses such a layer there")
def test_a_layer_that_draws_without_a_seed_goes_on_too(build, digits, tmp_path):
    def train(output, until):
        settings = SETTINGS | {"epochs": 2, "output": output, "until": until}
        return fit(build(draws_without_a_seed), digits.train, digits.validation, **settings)

    whole = train(tmp_path / "whole", 2)
    train(tmp_path / "cut", 1)
    keras.random.normal((3,))  # somebody else draws
    assert without_seconds(train(tmp_path / "cut", 2).epochs) == without_seconds(whole.epochs)


@pytest.mark.slow
def test_dropout_goes_on_as_it_was_in_pytorch(tiny_source, tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")

    def train(name, until):
        settings = SETTINGS | {"epochs": 2, "until": until}
        arguments = json.dumps(["none", settings, str(tmp_path / name)])
        command = [sys.executable, "-c", tiny_source + SCRIPT, arguments]
        subprocess.run(command, env=os.environ | {"KERAS_BACKEND": "torch"}, check=True)
        return without_seconds(state(tmp_path / name)["epochs"])

    train("cut", 1)
    assert train("cut", 2) == train("whole", 2)


def test_a_full_disk_asks_for_room_and_costs_no_epoch_before_it(monkeypatch, tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    checkpoint = callbacks.Checkpoint(tmp_path, {}, {})
    checkpoint.set_model(model)
    checkpoint.epochs.append({"epoch": 1})
    checkpoint.on_epoch_end(0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoint.epochs.append({"epoch": 2})
    for error in OSError(28, "No space left"), RuntimeError("Can't decrement id ref count"):

        def half(model, path, error=error):
            path.write_bytes(b"half of it")
            raise error

        monkeypatch.setattr(keras.Model, "save_weights", half)
        with pytest.raises(OSError, match="make room, and run it again"):
            checkpoint.on_epoch_end(1)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
