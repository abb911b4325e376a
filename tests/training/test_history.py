from cifar_utils.training import History
from cifar_utils.training.history import best_epoch

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
    assert "70.00% (loss 0.8000) after epoch 3" in history._repr_html_()
    assert list(history.to_frame().index) == [1, 2, 3, 4]
    assert history.to_frame().loc[3, "val_loss"] == 0.8
