import pytest

from cifar_utils.training import History
from cifar_utils.training.history import StoppingRule, best_epoch

ROWS = [
    {"epoch": 1, "loss": 2.0, "val_accuracy": 0.5, "val_loss": 1.0, "seconds": 2.0},
    {"epoch": 2, "loss": 1.0, "val_accuracy": 0.7, "val_loss": 0.9, "seconds": 1.0},
    {"epoch": 3, "loss": 0.5, "val_accuracy": 0.7, "val_loss": 0.8, "seconds": 1.0},
    {"epoch": 4, "loss": 0.2, "val_accuracy": 0.6, "val_loss": 0.1, "seconds": 1.0},
]


def test_the_best_epoch_is_that_of_the_highest_accuracy_then_the_lowest_loss():
    assert best_epoch(ROWS) == 3
    assert best_epoch(ROWS[:2]) == 2
    assert best_epoch(ROWS[:1]) == 1
    assert best_epoch([ROWS[0], ROWS[0] | {"epoch": 2}]) == 1


def test_a_history_says_its_best_and_its_time():
    history = History(ROWS, 3)
    assert history.best == ROWS[2]
    assert history.seconds == 5.0
    assert "4 epochs in 5 s" in repr(history)
    assert "1 epoch in 2 s" in repr(History(ROWS[:1], 1))
    assert "70.00% (loss 0.8000) after epoch 3" in history._repr_html_()


@pytest.mark.parametrize(
    ("rule", "epochs", "words"),
    [
        (StoppingRule(), 4, ""),
        (StoppingRule(0.7), 1, ""),
        (StoppingRule(0.7), 2, "validation accuracy reached 70.0% in epoch 2"),
        (StoppingRule(0.7), 4, "validation accuracy reached 70.0% in epoch 2"),
        (StoppingRule(0.71), 4, ""),
        (StoppingRule(patience=2), 0, ""),
        (StoppingRule(patience=2), 3, ""),
        (
            StoppingRule(patience=2),
            4,
            "validation accuracy was no better than in epoch 2 for 2 epochs",
        ),
        (StoppingRule(patience=3), 4, ""),
        (StoppingRule(0.9, 1), 3, "validation accuracy was no better than in epoch 2 for 1 epoch"),
    ],
)
def test_when_training_stops_follows_from_the_epochs_alone(rule, epochs, words):
    assert rule.reason(ROWS[:epochs]) == words


def test_steps_to_a_target_are_those_to_the_end_of_its_epoch():
    history = History(ROWS[:2], 2, 150, StoppingRule(0.7))
    assert history.steps_to(0.7) == 300
    assert "stopped: validation accuracy reached 70.0% in epoch 2, 300 steps" in repr(history)
    assert history.steps_to(0.9) is None
    assert history.steps_to(None) is None
    assert history.followed_by(history).steps_to(0.7) is None  # their epochs may differ in steps
    assert History([{"epoch": 1, "loss": 2.0}], 1, 150).steps_to(0.7) is None
    assert History(ROWS, 3, 150).steps_to(0.9) is None
    assert "stopped" not in repr(History(ROWS, 3))
    in_the_last = History(ROWS[:2], 2, 150, StoppingRule(0.7), planned=2)
    assert not in_the_last.stopped
    assert repr(in_the_last).endswith("; validation accuracy 70.0% after 300 steps")


def test_a_history_may_be_followed_by_another():
    both = History(ROWS[:2], 2).followed_by(History(ROWS[:3], 3))
    assert [row["epoch"] for row in both.epochs] == [1, 2, 3, 4, 5]
    assert both.best_epoch == 5
    assert both.best == ROWS[2] | {"epoch": 5}
    assert History(ROWS[:2], 2).followed_by(History(ROWS[:1], 1)).best_epoch == 2
    assert ROWS[0]["epoch"] == 1
    one = History(ROWS[:2], 2, trained_by=[{"first": 1, "last": 2, "cores": 2}])
    joined = one.followed_by(one).trained_by
    assert joined == [{"first": 1, "last": 4, "cores": 2}], "nothing changed between them"
