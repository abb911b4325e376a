import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from unittest.mock import DEFAULT, Mock

import pytest
from keras import layers, ops

from cifar_utils import tuning
from cifar_utils.choices import REGISTRIES
from cifar_utils.data import load_dataset
from cifar_utils.events import read_events
from cifar_utils.training import History, TrainingDiverged, fit
from cifar_utils.tuning import TUNERS, Outcome, Search, parse_space, tune

SPACE = "learning_rate(0.001, 0.1), weight_decay(0.0001, 0.01), dropout(0, 0.5), width(8, 32, 8)"
# A Gaussian process takes seconds a trial in four dimensions.
TWO = "learning_rate(0.001, 0.1), width(8, 32, 8)"
SETTINGS = {
    "architecture": "tiny", "trials": 4, "epochs": 3, "batch_size": 32, "optimizer": "adam",
    "schedule": "cosine(0.1)", "augmentation": "crop(2)",
}  # fmt: skip
# A search in a process of its own: its folder, then what differs from SMALL.
SMALL = {
    "architecture": "gn_resnet", "space": "learning_rate(0.001, 0.1), width(8, 16, 8)",
    "trials": 2, "epochs": 4, "batch_size": 32, "optimizer": "adam",
}  # fmt: skip
PROGRAM = """
import json, sys
from cifar_utils.data import load_dataset
from cifar_utils.tuning import tune
data = load_dataset("digits", train_limit=200, test_limit=20, validation_fraction=0.3)
print(tune(data, output=sys.argv[1], **json.loads(sys.argv[2])).best.name)
"""


def tiny(x, classes: int, width: int = 16, dropout: float = 0.0):
    """A network that learns digits in a second, but not at a width of 9."""
    x = layers.Conv2D(width, 5, strides=4)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = ops.zeros_like(x) if width == 9 else x
    return layers.Dense(classes)(layers.Dropout(dropout)(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def data():
    return load_dataset("digits", train_limit=200, test_limit=20, validation_fraction=0.3)


@pytest.fixture
def search(monkeypatch, data):
    """Tune the tiny network, or another one."""
    monkeypatch.setitem(REGISTRIES["architecture"], "tiny", tiny)

    def search(space=SPACE, **change):
        return tune(data, space, **SETTINGS | change)

    return search


class Calls(list):
    """The calls of a training. ``lost`` gives the epochs after which one diverges, or None."""

    lost = staticmethod(lambda values, until: None)


@pytest.fixture
def played(monkeypatch):
    """Train in no time: accuracy depends on the values, and rises by epoch. Return the calls."""
    calls = Calls()

    def played(*_, epochs, until, trial, **__):
        calls.append((trial, until))
        values = {"dropout": 0.2, "learning_rate": 0.01}
        values |= {name: float(value) for name, value in map(str.split, trial.split(", "))}
        top = 0.9 - abs(values["dropout"] - 0.2) - abs(values["learning_rate"] - 0.01)
        rows = [
            {"epoch": n, "val_accuracy": top * n / (n + 1), "val_loss": 1 / n, "seconds": 1.0}
            for n in range(1, until + 1)
        ]
        if (whole := calls.lost(values, until)) is not None:
            error = TrainingDiverged("the loss became nan")
            error.history = History(rows[:whole], whole)
            raise error
        return History(rows, len(rows))

    monkeypatch.setattr(tuning, "fit", played)
    monkeypatch.setattr(tuning, "build_model", lambda *_, **__: None)
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)  # it takes half a second
    return calls


def facts(trials):
    return [{k: v for k, v in asdict(trial).items() if k != "seconds"} for trial in trials]


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_search_makes_its_trials_the_same_ones_each_time(search, played, tuner):
    once = search(TWO, tuner=tuner, trials=6)
    again = search(TWO, tuner=tuner, trials=6)
    other = search(TWO, tuner=tuner, trials=6, seed=4)
    assert [trial.name for trial in once.trials] == list("123456")
    assert once.trials == again.trials
    drawn = [{json.dumps(trial.values) for trial in each.trials} for each in (once, other)]
    assert drawn[0] & drawn[1] == set()
    assert all(0.001 <= trial.values["learning_rate"] <= 0.1 for trial in once.trials)
    assert {trial.values["width"] for trial in once.trials} <= {8, 16, 24, 32}


@pytest.mark.parametrize("tuner", TUNERS)
def test_wherever_a_search_is_cut_it_goes_on(search, played, tmp_path, monkeypatch, tuner):
    change = {"space": "learning_rate(0.001, 0.1), dropout(0, 0.5)", "tuner": tuner, "trials": 4}
    whole = search(**change)
    write = tuning.write_atomically
    for cut in range(1, 100):
        writes = Mock(wraps=write, side_effect=[DEFAULT] * (cut - 1) + [KeyboardInterrupt])
        with monkeypatch.context() as patch:
            patch.setattr(tuning, "write_atomically", writes)
            try:
                search(**change, output=tmp_path / str(cut))
                break
            except KeyboardInterrupt:
                pass
        assert search(**change, output=tmp_path / str(cut)).trials == whole.trials
    assert cut == 1 + 4 + 1 + 1  # after the study, the trials and their list, there is nothing left


def test_trials_that_are_known_are_not_trained_again(search, played, tmp_path, capfd):
    whole = search(output=tmp_path, plot=print)  # a search may draw each training
    assert len(played) == 4 + 1  # the best one is read back
    (tmp_path / "tuning" / "trials.json").unlink()
    played.clear()
    assert search(output=tmp_path).trials == whole.trials
    assert len(played) == 1
    assert capfd.readouterr() == ("", "")


def test_hyperband_trains_the_best_further(search, played):
    trials = search(tuner="hyperband", trials=23, epochs=9).trials
    assert [trial.epochs for trial in trials] == [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] * 5
    first = sorted(trials[:9], key=lambda trial: -trial.val_accuracy)[:3]
    assert [trial.continues for trial in trials[9:12]] == [trial.name for trial in first]
    assert trials[9].values == first[0].values
    assert [trial.seconds for trial in trials[9:13]] == [2.0, 2.0, 2.0, 6.0]


def test_a_trial_that_diverges_counts_as_no_image_right(search, played):
    played.lost = lambda values, until: 2 if values["learning_rate"] > 0.01 else None
    trials = search(trials=12).trials
    assert len(trials) == 12
    diverged = [trial for trial in trials if trial.val_accuracy is None]
    assert 3 < len(diverged) < 12
    assert all(trial.values["learning_rate"] > 0.01 for trial in diverged)
    assert {(trial.epochs, trial.seconds) for trial in diverged} == {(2, 2.0)}
    with pytest.raises(TrainingDiverged, match="all 2 trials diverged: lower"):
        search("learning_rate(0.02, 0.1)", trials=2)


def test_a_training_that_diverges_as_it_goes_on_is_told_beside_its_beginning(search, played):
    played.lost = lambda values, until: 1 if until > 1 else None
    trials = search(tuner="hyperband", trials=13, epochs=9).trials
    assert [trial.name for trial in trials[:9]] == [str(number) for number in range(1, 10)]
    diverged = [trial for trial in trials if trial.val_accuracy is None]
    assert {trial.epochs for trial in diverged} == {1}
    assert {trial.continues for trial in diverged} & {trial.name for trial in trials[:9]}


def test_any_other_error_ends_the_search(search, played, monkeypatch):
    monkeypatch.setattr(tuning, "fit", Mock(side_effect=ZeroDivisionError("a mistake")))
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        search()


@pytest.mark.parametrize("tuner", TUNERS)
def test_no_training_of_a_small_space_counts_twice(search, played, tuner):
    trials = search("width(8, 9)", tuner=tuner, trials=6, epochs=3).trials
    trainings = [(trial.values["width"], trial.epochs) for trial in trials]
    assert len(set(trainings)) == len(trainings) >= 2
    assert {trial.continues for trial in trials} <= {None, *(trial.name for trial in trials)}


def test_the_best_is_found(search, played):
    found = search("dropout(0, 0.5)")
    accuracies = [trial.val_accuracy for trial in found.trials]
    assert found.best.val_accuracy == max(accuracies) > min(accuracies)
    assert played[-1] == (f"dropout {found.best.values['dropout']}", 3)
    assert found.history.best["val_accuracy"] == found.best.val_accuracy


def test_a_training_that_hyperband_continues_is_one_without_a_break(
    search, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("keras.utils.clear_session", lambda: None)  # it takes half a second
    found = search("learning_rate(0.001, 0.1)", tuner="hyperband", trials=4, output=tmp_path)
    assert [trial.epochs for trial in found.trials] == [1, 1, 1, 3]
    assert found.trials[-1].continues in ("1", "2", "3")
    assert found.best is found.trials[-1]
    model = tuning.build_model("tiny", data, augmentation="crop(2)")
    # Adam's moments, the schedule's place and the seeds of each epoch are all in these.
    alone = fit(
        model, data.train, data.validation, epochs=3, batch_size=32, optimizer="adam",
        schedule="cosine(0.1)", **found.best.values,
    )  # fmt: skip
    rows = [[{**row, "seconds": 0} for row in each.epochs] for each in (found.history, alone)]
    assert rows[0] == rows[1]
    assert len(list((tmp_path / "checkpoint").iterdir())) == 1


@pytest.fixture
def start():
    """Start searches in processes of their own, which end with the test."""
    started = []

    def start(folder, variables=None, **change):
        command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(SMALL | change)]
        env = os.environ | (variables or {})
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_search_killed_in_a_trial_ends_in_the_same_trials(data, start, tmp_path):
    whole = tune(data, **SMALL)
    process = start(tmp_path)
    states = []
    while len(states) < 2:
        assert process.poll() is None
        states = sorted(tmp_path.glob("checkpoint/*/state.json"), key=lambda p: p.stat().st_mtime)
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(json.loads(states[-1].read_text())["epochs"]) < 4
    again = start(tmp_path)
    assert again.communicate()[0].split() == [whole.best.name]
    found = tune(data, output=tmp_path, **SMALL)  # reads it back
    assert facts(found.trials) == facts(whole.trials)
    assert len(found.history.epochs) == 4
    assert len(list((tmp_path / "checkpoint").iterdir())) == 1
    events, _ = read_events(tmp_path / "events.jsonl")
    last = [event for event in events if event["event"] == "trial"][-1]
    assert (last["trial"], last["trials"], last["epochs"]) == (2, 2, 4)
    assert last["best"] == found.trials[0].val_accuracy


@pytest.mark.slow
def test_a_chief_and_two_workers_share_a_search(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    shared["no_grpc_proxy"] = "127.0.0.1"
    processes = [
        start(tmp_path, shared | {"KERASTUNER_TUNER_ID": name}, trials=6, epochs=2)
        for name in ("chief", "worker0", "worker1")
    ]
    best = {process.communicate(timeout=300)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(best) == 1
    trials = json.loads((tmp_path / "tuning" / "trials.json").read_text())
    assert [trial["name"] for trial in trials] == list("123456")
    assert all(trial["epochs"] == 2 for trial in trials)
    # The chief alone would wait without a word.
    told = "the chief of this search, at 127.0.0.1, hands out trials"
    assert told in (tmp_path / "events.jsonl").read_text()


def test_a_search_that_another_one_has_joined_meanwhile_is_refused(
    search, played, refused, tmp_path, monkeypatch
):
    train = tuning.fit

    def meanwhile(*given, **settings):
        monkeypatch.setattr(tuning, "fit", train)
        search(output=tmp_path, seed=1)
        return train(*given, **settings)

    monkeypatch.setattr(tuning, "fit", meanwhile)
    with refused("tuning holds a search with seed 1, not 0"):
        search(output=tmp_path)


def test_another_search_s_folder_is_refused_and_left_alone(search, played, refused, tmp_path):
    search(output=tmp_path)
    text = (tmp_path / "tuning" / "study.json").read_text()
    changes = {"trials": 5, "tuner": "bayesian", "space": "width(8, 16)", "seed": 1}
    for name, value in changes.items():
        told = f"tuning holds a search with {name} ", f"not {value!r}; delete {tmp_path}/tuning"
        with refused(*told, f" and {tmp_path}/checkpoint to"):
            search(**{name: value}, output=tmp_path)
    assert (tmp_path / "tuning" / "study.json").read_text() == text
    for file in ("trials.json", "study.json"):
        (tmp_path / "tuning" / file).write_text("{")
        with refused(f"{file} is damaged (", "delete "):
            search(output=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tuner": "randm"}, "tuner is 'randm'; did you mean 'random'?"),
        ({"trials": 0}, "trials is 0; it must be at least 1"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"patience": 2}, "patience is 2; trials are compared after the same number of epochs"),
        ({"target_accuracy": 0.5}, "target_accuracy is 0.5; trials are compared after"),
        ({"architecture": "resnet20"}, "option of architecture resnet20 is 'width'"),
        ({"until": 1}, "unknown setting 'until'"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(search, refused, tmp_path, change, words):
    with refused(words):
        search(**change, output=tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_a_search_needs_validation_images_and_a_folder_to_write(
    search, refused, tmp_path, monkeypatch
):
    none = load_dataset("digits", train_limit=20, test_limit=20, validation_fraction=0)
    with refused("a search goes by validation images, and there are none"):
        tune(none, SPACE, architecture="gn_resnet")
    (tmp_path / "file").touch()
    with refused(tmp_path / "file", "can't be written"):
        search(output=tmp_path / "file")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    with refused("need a common folder"):
        search()
    with refused("KERASTUNER_ORACLE_PORT is not set; a shared search takes"):
        search(output=tmp_path / "search")


def trial(name="1", **change):
    facts = {
        "name": name, "continues": None, "values": {"width": 8, "learning_rate": 0.0123},
        "val_accuracy": 0.5, "val_loss": 1.0, "epochs": 3, "seconds": 61.0,
    }  # fmt: skip
    return Outcome(**facts | change)


def test_a_search_prints_as_a_table():
    short = trial("4", val_accuracy=0.9, epochs=1)
    trials = [trial("1"), trial("2", val_loss=0.5), trial("3", val_accuracy=None, val_loss=None)]
    found = Search([short, *trials], None, None)
    assert found.best.name == "2"
    table = found.table()
    assert list(table.index) == ["2", "1", "4", "3"]
    assert list(table["validation accuracy"]) == ["50.0%", "50.0%", "90.0%", "diverged"]
    assert list(found.table(1).columns) == [
        "validation accuracy", "width", "learning_rate", "epochs", "time",
    ]  # fmt: skip
    assert found.table(1).index.name == "trial, the best 1 of 4"
    further = Search([*trials, trial("4", continues="2")], None, None)
    assert list(further.table()["continues"]) == ["", "", "2", ""]


def test_a_space_is_read_from_text():
    space = parse_space("learning_rate(0.01, 1), width(8, 32, step=8), dropout(0, 0.5)")
    assert list(map(repr, space.values())) == [
        "learning_rate from 0.01 to 1, on a logarithmic scale",
        "width from 8 to 32, in steps of 8",
        "dropout from 0 to 0.5",
    ]
    assert (space["width"].low, space["width"].high, space["width"].step) == (8, 32, 8)
    assert parse_space("weight_decay(1e-5, 1e-2)")["weight_decay"].log


def test_values_are_those_that_a_table_shows():
    space = parse_space("learning_rate(0.01, 1), width(8, 32)")
    assert space["learning_rate"].value(0.012345678) == 0.0123
    assert space["learning_rate"].value(0.012345679104328156) == 0.0123
    assert repr(space["width"].value(17.0)) == "17"
    (narrow,) = parse_space("dropout(0.9994, 0.9999)").values()
    assert (narrow.value(0.9994), narrow.value(0.9998)) == (0.9994, 0.9999), "within the bounds"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "takes one or more of learning_rate, weight_decay, dropout, width"),
        ("none", "unknown space 'none'; known: learning_rate, weight_decay, dropout, width"),
        ("width(8, 16), width(16, 32)", "once"),
        ("width(8, 8)", "width high is 8; it must be above 8"),
        ("dropout(0, 1)", "dropout high is 1.0; it must be above 0, below 1"),
    ],
)
def test_a_space_that_is_none_is_one_line(refused, text, words):
    with refused(words):
        parse_space(text)
