import gc
import math
from dataclasses import replace

import pytest

from cifar_utils.backend import keras
from cifar_utils.data import load_dataset
from cifar_utils.training import (
    History,
    TrainingDiverged,
    best_trial,
    compare_trials,
    fit,
    run_trials,
)
from cifar_utils.training.history import StoppingRule

SETTINGS = {"architecture": "tiny", "epochs": 2, "batch_size": 30, "optimizer": "adam"}


@pytest.fixture(scope="module")
def trials(build, digits):
    cases = {
        "slow": {"learning_rate": 1e-5},
        "fast": {"learning_rate": 0.01},
        "far too fast": {"learning_rate": 1e30, "optimizer": "sgd"},
    }
    return run_trials(digits, cases, **SETTINGS, seed=1)


def test_each_trial_is_trained_as_it_would_be_alone(trials, build, digits):
    assert [trial.name for trial in trials] == ["slow", "fast", "far too fast"]
    alone = fit(
        build(seed=1), digits.train, digits.validation,
        epochs=2, batch_size=30, optimizer="adam", learning_rate=0.01, seed=1,
    )  # fmt: skip
    losses = [[row["loss"] for row in each.epochs] for each in (alone, trials[1].history)]
    assert losses[0] == pytest.approx(losses[1])


def test_trained_models_do_not_keep_what_only_training_needs(trials):
    state = [weight for trial in trials for weight in trial.model.optimizer.variables]
    assert all(len(weight.shape) == 0 for weight in state)


def test_trials_keep_no_graphs_of_earlier_ones(digits, monkeypatch):
    graphs = []

    def counted(*args, **kwargs):
        gc.collect()
        graphs.append(sum(type(each).__name__ == "FuncGraph" for each in gc.get_objects()))
        return fit(*args, **kwargs)

    monkeypatch.setattr("cifar_utils.training.trials.fit", counted)
    cases = {name: {"learning_rate": 0.01} for name in "abc"}
    run_trials(digits, cases, **SETTINGS | {"epochs": 1})
    assert graphs[1] == graphs[2]


def test_the_best_is_the_best_by_validation(trials):
    assert best_trial(trials).accuracy == max(trial.accuracy for trial in trials[:2])
    assert best_trial(trials[:1]) is trials[0]


def test_one_that_diverges_ends_alone_and_says_so(trials):
    last = trials[2]
    assert "became" in last.diverged
    assert last.history.epochs == []
    assert last.to_dict()["stopped"] == "the loss diverged in epoch 1"  # whatever the clock says
    assert math.isnan(last.accuracy)
    assert not any(trial.diverged for trial in trials[:2])
    with pytest.raises(TrainingDiverged, match="every trial diverged"):
        best_trial([last])


def test_the_table_says_what_differs_and_what_came_of_it(trials):
    table = compare_trials(trials)
    assert [*table.index] == ["slow", "fast", "far too fast"]
    assert [*table["optimizer"]] == ["–", "–", "sgd"]
    assert [*table["learning_rate"]] == ["1e-05", "0.01", "1e+30"]
    assert table.loc["far too fast", "at the end"] == "diverged in epoch 1"
    assert table.loc["fast", "best validation"].startswith(f"{trials[1].accuracy:.1%}")
    named = compare_trials([replace(trial, values={"rate": trial.name}) for trial in trials])
    assert not {"rate", "parameters", "FLOPs"} & {*named}, "nothing differs in them"
    mixed = [replace(trials[0], values={"rate": "slow"}), replace(trials[1], values={"rate": "x"})]
    assert [*compare_trials(mixed)["rate"]] == ["slow", "x"]


def test_the_table_says_which_trial_reached_a_target_and_when(trials):
    row, rule = trials[1].history.epochs[0], StoppingRule(0.2)
    easy, hard = (
        replace(trial, history=History([row | {"val_accuracy": accuracy}], 1, 9, rule))
        for trial, accuracy in zip(trials[:2], (0.2, 0.1), strict=True)
    )
    assert "reached 20.0%" in easy.to_dict()["stopped"]
    assert [*compare_trials([easy, hard], 0.2)["steps to 20%"]] == ["9", "–"]


def test_each_seed_of_a_case_is_trained_as_it_would_be_alone(digits, tmp_path):
    cases = {"one": {"learning_rate": 0.01}, "two": {"learning_rate": 0.001}}
    both = run_trials(digits, cases, **SETTINGS, seed=1, seeds=2, output=tmp_path)
    told = [("one", 1), ("two", 1), ("one", 2), ("two", 2)]
    assert [(trial.name, trial.seed) for trial in both] == told
    alone = run_trials(digits, cases, **SETTINGS, seed=2)
    losses = [[[row["loss"] for row in trial.history.epochs] for trial in some]
              for some in (both[2:], alone)]  # fmt: skip
    assert losses[0] == losses[1]
    assert both[0].history.epochs[0]["loss"] != both[2].history.epochs[0]["loss"]


def test_seeds_share_a_row_and_a_mean(trials):
    def of(trial, seed, *shares):
        rows = [
            {"epoch": e, "accuracy": a, "val_accuracy": a, "val_loss": 1 - a, "seconds": 1.0}
            for e, a in enumerate(shares, 1)
        ]
        return replace(trial, seed=seed, history=History(rows, len(rows), 9))

    slow, fast = trials[:2]
    four = [
        of(slow, 0, 0.5, 0.6),
        of(fast, 0, 0.3, 0.7),
        of(slow, 1, 0.7, 0.8),
        of(fast, 1, 0.2, 0.3),
    ]
    table = compare_trials(four, 0.5)
    assert [*table.index] == ["slow", "fast"]
    assert table.loc["slow", "best validation"] == "70.0% ± 14.1, n = 2"
    assert table.loc["slow", "in training"] == table.loc["slow", "at the end"]
    assert [*table["steps to 50%"]] == ["9; 9", "18; –"]
    assert table.loc["fast", "time"] == "2.0 s"
    assert best_trial(four) is four[0], "the first seed of the best mean"
    broken = [*four[:3], replace(four[3], diverged="the loss became nan")]
    assert compare_trials(broken).loc["fast", "at the end"] == "1 of 2 diverged"
    assert compare_trials(broken).loc["fast", "best validation"] == "70.0%"
    better = [of(fast, 0, 0.9), replace(of(fast, 1, 0.9), diverged="nan"), *four[::2]]
    assert best_trial(better) is four[0], "none of its seeds diverged"


def test_there_must_be_a_seed(digits, refused):
    with refused("seeds is 0; it must be at least 1"):
        run_trials(digits, {"one": {}}, **SETTINGS, seeds=0)


def test_trials_killed_between_two_of_them_go_on(build, digits, tmp_path):
    cases = {"one": {"learning_rate": 0.01}, "two of them": {"learning_rate": 0.001}}
    first = run_trials(digits, {"one": cases["one"]}, **SETTINGS, output=tmp_path)
    both = run_trials(digits, cases, **SETTINGS, output=tmp_path)
    assert both[0].history == first[0].history, "seconds and all: it was not trained again"
    assert {file.name for file in (tmp_path / "checkpoint").iterdir()} == {"one", "two-of-them"}
    again = run_trials(digits, cases, **SETTINGS, output=tmp_path)
    assert [trial.history for trial in again] == [trial.history for trial in both]


def test_names_must_differ(digits, refused):
    with refused("'a b' has the name of another one; names must differ"):
        run_trials(digits, {"a b": {}, "a-b": {}}, **SETTINGS)


def test_a_reader_s_function_is_named_in_the_record_and_the_table(build, digits):
    def mine(x, classes):
        return keras.layers.Dense(classes)(keras.layers.Flatten()(x))

    trials = run_trials(digits, {"theirs": {}, "own": {"architecture": mine}}, **SETTINGS)
    assert trials[1].to_dict()["values"] == {"architecture": "mine"}
    assert "mine" in compare_trials(trials).loc["own"].tolist()


def test_networks_that_share_layers_are_refused_before_any_training(
    build, digits, refused, tmp_path
):
    shared = keras.layers.Dense(10)

    def mine(x, classes):
        return shared(keras.layers.Flatten()(x))

    cases = {"slow": {"learning_rate": 1e-5}, "fast": {}}
    with refused("trial 'fast' shares layers with another one"):
        run_trials(digits, cases, **SETTINGS | {"architecture": mine}, output=tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_trials_need_validation_images(refused):
    data = load_dataset("digits", train_limit=100, validation_fraction=0.0)
    with refused("goes by validation images, and there are none"):
        run_trials(data, {"one": {}}, **SETTINGS)


@pytest.mark.parametrize(
    ("mistake", "word"),
    [
        ({"architecture": "tinny"}, "tinny"),
        ({"schedule": "stepp(2)"}, "stepp"),
        ({"seed": 3}, "unknown setting 'seed'"),
    ],
)
def test_a_mistake_in_the_last_case_is_told_before_the_first_is_trained(
    build, digits, refused, tmp_path, mistake, word
):
    with refused(word):
        run_trials(digits, {"one": {}, "two": mistake}, **SETTINGS, output=tmp_path)
    assert not (tmp_path / "checkpoint").exists()
