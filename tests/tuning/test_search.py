"""Searches that train: in this process, or in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import psutil
import pytest

from cifar_utils.parameters import InputError
from cifar_utils.training import TrainingDiverged
from cifar_utils.tuning import search as module
from cifar_utils.tuning import tune
from cifar_utils.tuning.oracles import Trials
from cifar_utils.tuning.search import Search, Trial, _results

SMALL = {  # of a network that other processes know
    "architecture": "gn_resnet", "space": "learning_rate(0.001, 0.1), width(8, 16, 8)",
    "augmentation": None, "trials": 2, "epochs": 4,
}  # fmt: skip


def without_seconds(trials):
    return [{k: v for k, v in asdict(trial).items() if k != "seconds"} for trial in trials]


def rows(folder):
    kept = json.loads((folder / "checkpoint" / "state.json").read_text())["epochs"]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in kept]


@pytest.fixture
def here(tmp_path):
    """Search in this process; return the trials, and the folder of each."""

    def search(study, name="search"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        Trials(study, study.load(), folder).search()
        return list(_results(folder).values()), folder

    return search


@pytest.fixture
def no_process():
    """None is left behind by the test."""
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) - before == set()


def test_the_better_of_two_is_found(study, here):
    trials, _ = here(study(space="width(9, 10)", learning_rate=0.01, trials=2))
    assert sorted(trial.values["width"] for trial in trials) == [9, 10]
    best = module.best_trial(trials)
    assert best.values == {"width": 10}
    assert best.val_accuracy > max(t.val_accuracy for t in trials if t is not best) + 0.2


def test_a_trial_that_hyperband_trains_further_is_one_that_was_never_interrupted(
    study, here, tmp_path
):
    searched = study(tuner="hyperband", trials=4)
    trials, folder = here(searched)
    assert [trial.epochs for trial in trials] == [1, 1, 1, 3]
    further = trials[-1]
    assert further.continues in "012"
    # Adam's moments, the schedule's place and the seeds of each epoch are all in these.
    searched.train(further.values, searched.load(), tmp_path / "alone")
    assert rows(folder / f"trial_{further.name}") == rows(tmp_path / "alone")


@pytest.mark.slow
def test_a_worker_killed_in_a_trial_ends_in_the_same_trials(study, here, tmp_path, no_process):
    small = study(**SMALL)
    alone, _ = here(small)
    killed = []

    def workers():
        children = psutil.Process().children()
        return [child for child in children if "cifar_utils.tuning.worker" in child.cmdline()]

    def kill():
        state = tmp_path / "tuning" / "trial_1" / "checkpoint" / "state.json"
        while not state.exists():
            time.sleep(0.01)
        (worker,) = workers()
        worker.kill()
        killed.append(len(json.loads(state.read_text())["epochs"]))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    search = tune(small, small.load(), output=tmp_path)
    killer.join(1)
    assert killed
    assert killed[0] < 4
    assert without_seconds(search.trials) == without_seconds(alone)
    assert search.best.name == module.best_trial(alone).name
    assert len(search.history.epochs) == 4
    kept = {path.parent.name for path in (tmp_path / "tuning").glob("*/checkpoint")}
    assert kept == {f"trial_{search.best.name}"}
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] == "epoch" and event["trial"] == 2]
    assert told[-1]["best"] == search.trials[0].val_accuracy
    assert (told[-1]["trials"], told[-1]["epoch"], told[-1]["epochs"]) == (2, 4, 4)

    again = tune(small, small.load(), output=tmp_path)  # reads it back
    assert again.trials == search.trials
    assert again.history == search.history


def test_two_workers_share_the_trials(study, tmp_path, no_process):
    few = study(**SMALL | {"trials": 6, "epochs": 2})
    search = tune(few, few.load(), workers=2, output=tmp_path)
    assert [trial.name for trial in search.trials] == list("012345")
    assert all(trial.epochs == 2 for trial in search.trials)
    logs = [(tmp_path / "tuning" / f"worker{n}.log").read_text() for n in (0, 1)]
    trained = [[line for line in log.splitlines() if line.startswith("trial ")] for log in logs]
    assert sorted(trained[0] + trained[1]) == [f"trial {n}" for n in range(6)]
    assert all(trained)


def test_ctrl_c_leaves_no_process(study, monkeypatch, no_process):
    def look(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Progress, "look", look)
    with pytest.raises(KeyboardInterrupt):
        tune(study(**SMALL), None, workers=2)


@pytest.mark.slow
def test_a_worker_ends_with_whoever_started_it(study, tmp_path):
    study(**SMALL | {"trials": 500}).check(tmp_path)
    command = [sys.executable, "-m", "cifar_utils.tuning.worker", str(tmp_path)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE)
    while not list(tmp_path.glob("trial_*/events.jsonl")):
        assert worker.poll() is None
        time.sleep(0.1)
    os.kill(worker.pid, signal.SIGINT)  # Ctrl-C is for whoever started it
    worker.stdin.close()
    assert worker.wait(60) == 1


@pytest.mark.slow
def test_bad_input_that_a_worker_meets_is_one_line(study, no_process):
    narrow = study(**SMALL | {"space": "width(4, 7)"})
    words = r"^gn_resnet\(width=\d\) can't be built .*: width is \d; gn_resnet takes 8 or more$"
    with pytest.raises(InputError, match=words):
        tune(narrow, narrow.load())


def test_a_worker_that_fails_is_told_of(study, monkeypatch, no_process):
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"the search's process worker0 failed \(status 1\)"):
        tune(study(**SMALL), None)


def test_a_worker_whose_last_question_finds_the_chief_leaving_has_not_failed(
    study, tmp_path, monkeypatch, no_process
):
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\n[ "$KERASTUNER_TUNER_ID" = chief ] && exec sleep 1\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    module._search(study(**SMALL), tmp_path, 2, None)
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(RuntimeError, match="failed"):
        module._search(study(**SMALL), tmp_path, 2, None)


def test_another_search_s_folder_is_refused_and_left_alone(study, tmp_path):
    (tmp_path / "tuning").mkdir()
    study().check(tmp_path / "tuning")
    text = (tmp_path / "tuning" / "study.json").read_text()
    for change in ({"trials": 5}, {"tuner": "bayesian"}, {"space": "width(8, 16)"}, {"seed": 1}):
        ((name, value),) = change.items()
        with pytest.raises(InputError) as error:
            tune(study(**change), None, output=tmp_path)
        assert f"tuning holds a search with {name} " in str(error.value)
        assert f"not {value!r}; delete {tmp_path}/tuning" in str(error.value)
        assert "\n" not in str(error.value)
    assert (tmp_path / "tuning" / "study.json").read_text() == text
    (tmp_path / "tuning" / "study.json").write_text("{")
    with pytest.raises(InputError, match=r"study.json is damaged \(.*delete "):
        tune(study(), None, output=tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tuner": "randm"}, "tuner is 'randm'; did you mean 'random'?"),
        ({"trials": 0}, "trials is 0; it must be >= 1"),
        ({"space": "width(8)"}, "lacks a bound"),
        ({"architecture": "tinny"}, "did you mean 'tiny'?"),
        ({"architecture": "resnet20"}, "unknown option of architecture 'resnet20' 'width'"),
    ],
)
def test_a_study_that_makes_no_sense_is_one_line(study, change, words):
    with pytest.raises(InputError) as error:
        study(**change)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_workers_and_validation_images_there_must_be(study, tmp_path):
    with pytest.raises(InputError, match="workers is 0; it must be >= 1"):
        tune(study(), None, workers=0)
    with pytest.raises(InputError, match="hold some out"):
        study(images={"name": "digits", "validation_fraction": 0.0}).load()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"output .*file can't be written"):
        tune(study(), None, output=tmp_path / "file")


def trial(name="0", **change):
    facts = {
        "name": name, "continues": None, "values": {"width": 8, "learning_rate": 0.0123},
        "val_accuracy": 0.5, "val_loss": 1.0, "epochs": 3, "seconds": 61.0,
    }  # fmt: skip
    return Trial(**facts | change)


def test_a_search_prints_in_words_and_as_a_table(study):
    trials = [trial("0"), trial("1", val_loss=0.5), trial("2", val_accuracy=None, val_loss=None)]
    search = Search(study(), trials, None, None)
    assert search.best.name == "1"
    assert repr(search) == (
        "3 trials in 3 min 3 s of training; the best is 1, with 50.0% of the validation images "
        "right: width 8, learning_rate 0.0123"
    )
    table = search.table()
    assert list(table.index) == ["1", "0", "2"]
    assert list(table["validation accuracy"]) == ["50.0%", "50.0%", "diverged"]
    assert list(search.table(1).columns) == [
        "validation accuracy", "width", "learning_rate", "epochs", "time",
    ]  # fmt: skip
    further = Search(study(), [*trials, trial("3", continues="1")], None, None)
    assert list(further.table()["goes on from"]) == ["", "", "1", ""]


def test_a_search_in_which_all_trials_diverged_says_so(study, tmp_path):
    studied = study()
    (tmp_path / "tuning").mkdir()
    studied.check(tmp_path / "tuning")
    lost = trial(val_accuracy=None, val_loss=None)
    (tmp_path / "tuning" / "trials.json").write_text(json.dumps([asdict(lost)]))
    with pytest.raises(TrainingDiverged, match="all 1 trials became no number: lower"):
        tune(studied, None, output=tmp_path)
