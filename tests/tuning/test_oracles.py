"""A search cut anywhere goes on to the trials it would have had; training is played here."""

import json
import sys
from dataclasses import asdict

import pytest

from cifar_utils.parameters import InputError
from cifar_utils.training import History, TrainingDiverged
from cifar_utils.tuning import TUNERS, Study, oracles
from cifar_utils.tuning.oracles import Trials
from cifar_utils.tuning.search import _results


class Killed(BaseException):
    """Stands for SIGKILL within the process: nothing handles it."""


def played(self, values, data, output, until=None):
    """Training in no time: accuracy depends on the values, and rises by epoch."""
    (output / "checkpoint").mkdir(exist_ok=True)
    values = {"dropout": 0.2, "learning_rate": 0.01} | values
    top = 0.9 - abs(values["dropout"] - 0.2) - abs(values["learning_rate"] - 0.01)
    rows = [
        {"epoch": n, "val_accuracy": top * n / (n + 1), "val_loss": 1 / n, "seconds": 1.0}
        for n in range(1, (until or self.epochs) + 1)
    ]
    return None, History(rows, len(rows))


@pytest.fixture
def play(monkeypatch):
    monkeypatch.setattr(Study, "train", played)

    def play(study, folder):
        folder.mkdir(exist_ok=True)
        Trials(study, None, folder).search()
        return [asdict(trial) for trial in _results(folder).values()]

    return play


@pytest.mark.parametrize(
    "tuner",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "bayesian")) for name in TUNERS],
)
def test_a_search_makes_its_trials_the_same_ones_each_time(study, play, tmp_path, tuner):
    once = play(study(tuner=tuner, trials=6), tmp_path / "once")
    again = play(study(tuner=tuner, trials=6), tmp_path / "again")
    other = play(study(tuner=tuner, trials=9, seed=4), tmp_path / "other")
    assert [trial["name"] for trial in once] == list("012345")
    assert once == again
    drawn = [{json.dumps(trial["values"]) for trial in trials} for trials in (once, other)]
    assert drawn[0] & drawn[1] == set()
    assert all(0.001 <= trial["values"]["learning_rate"] <= 0.1 for trial in once)
    assert {trial["values"]["width"] for trial in once} <= {8, 16, 24, 32}


@pytest.mark.parametrize("tuner", TUNERS)
def test_wherever_a_search_is_cut_it_goes_on(study, play, tmp_path, monkeypatch, tuner):
    searched = study(tuner=tuner, trials=6)  # the first five of Bayesian optimization are drawn
    alone = play(searched, tmp_path / "alone")
    write = oracles.write_atomically
    cut = 14 if tuner == "bayesian" else 0  # its choice takes seconds: in the last trial alone
    while True:
        cut += 1
        written = []

        def until(path, content, before=cut % 2, at=cut, written=written):
            written.append(path)
            if len(written) == at and before:
                raise Killed
            write(path, content)
            if len(written) == at:
                raise Killed

        folder = tmp_path / f"cut-{cut}"
        with monkeypatch.context() as patch:
            patch.setattr(oracles, "write_atomically", until)
            try:
                play(searched, folder)
            except Killed:
                pass
            else:
                break
        assert play(searched, folder) == alone, cut
    assert cut == 3 * 6 + 1


def test_hyperband_trains_the_best_further(study, play, tmp_path):
    trials = play(study(tuner="hyperband", trials=23, epochs=9), tmp_path / "search")
    assert [trial["epochs"] for trial in trials] == [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] * 5
    first = sorted(trials[:9], key=lambda trial: -trial["val_accuracy"])[:3]
    assert [trial["continues"] for trial in trials[9:12]] == [trial["name"] for trial in first]
    assert trials[9]["values"] == first[0]["values"]
    assert [trial["seconds"] for trial in trials[9:13]] == [2.0, 2.0, 2.0, 6.0]


def test_a_trial_that_diverges_counts_as_no_image_right(study, play, tmp_path, monkeypatch):
    def diverging(self, values, data, output, until=None):
        if values["learning_rate"] > 0.01:
            raise TrainingDiverged("the loss became nan")
        return played(self, values, data, output, until)

    monkeypatch.setattr(Study, "train", diverging)
    trials = play(study(trials=12), tmp_path / "search")
    assert len(trials) == 12
    diverged = [trial for trial in trials if trial["val_accuracy"] is None]
    assert 3 < len(diverged) < 12
    assert all(trial["values"]["learning_rate"] > 0.01 for trial in diverged)


def test_any_other_error_ends_the_search(study, play, tmp_path, monkeypatch, capfd):
    def broken(self, values, data, output, until=None):
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Study, "train", broken)
    with pytest.raises(oracles.kt.errors.FatalError) as error:
        play(study(), tmp_path / "search")
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    assert capfd.readouterr() == ("trial 0\n", "")


def test_a_space_that_is_exhausted_ends_the_search(study, play, tmp_path):
    widths = study(space="width(8, 9)", trials=5)
    assert sorted(t["values"]["width"] for t in play(widths, tmp_path / "two")) == [8, 9]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"trials": [{}], "oracle": {}}'])
def test_a_damaged_state_is_one_line(study, play, tmp_path, content):
    play(study(trials=1), tmp_path / "search")
    (tmp_path / "search" / "oracle.json").write_text(content)
    with pytest.raises(InputError, match=r"oracle.json is damaged \(.*delete .*search") as error:
        play(study(trials=1), tmp_path / "search")
    assert "\n" not in str(error.value)


def test_keras_tuner_says_nothing_and_leaves_tensorboard_alone(study, play, tmp_path, capfd):
    play(study(tuner="bayesian", trials=6), tmp_path / "search")
    assert capfd.readouterr() == ("".join(f"trial {n}\n" for n in range(6)), "")
    assert "tensorboard" not in sys.modules
