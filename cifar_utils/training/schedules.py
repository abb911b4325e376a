"""Learning rate schedules by name: each gives Keras a number, a schedule over steps or a callback.

Each function takes the peak learning rate, the steps of an epoch and the number of epochs, then its
options.
"""

import math

import keras
from keras import ops
from keras.optimizers import schedules

from cifar_utils.errors import InputError


@keras.saving.register_keras_serializable("cifar_utils")
class PiecewiseLinear(schedules.LearningRateSchedule):
    """Straight lines between points, level before the first and after the last.

    Parameters
    ----------
    steps
        Where the points are, rising.
    rates
        The learning rate at each.

    """

    def __init__(self, steps: list[float], rates: list[float]):
        self.steps, self.rates = list(steps), list(rates)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self.rates[0]
        ends = zip(self.steps, self.steps[1:], self.rates, self.rates[1:], strict=False)
        for start, end, low, high in ends:
            share = ops.clip((step - start) / (end - start), 0.0, 1.0)
            rate = rate + share * (high - low)
        return ops.clip(rate, min(self.rates), max(self.rates))

    def get_config(self):
        return {"steps": self.steps, "rates": self.rates}

    def __repr__(self) -> str:
        return f"PiecewiseLinear({self.steps}, {self.rates})"


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """A rate that is cut where the validation loss has not become better for a while.

    What Keras's callback has seen so far follows from the epochs done, so a run that goes on shows
    it those again.

    Attributes
    ----------
    peak
        The rate to start from.
    rows
        The epochs done, as in :class:`~cifar_utils.training.history.History`.

    """

    def __init__(self, peak: float, **options):
        super().__init__("val_loss", mode="min", **options)
        self.peak, self.rows = peak, []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.model.optimizer.learning_rate = self.peak
        for row in self.rows:
            self.on_epoch_end(row["epoch"] - 1, dict(row))

    def __repr__(self) -> str:
        options = ("factor", "patience", "min_delta", "cooldown")
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in options)
        return f"Plateau({self.peak}, {values})"


def constant(learning_rate: float, steps: int, epochs: int):
    """The same rate throughout."""
    return learning_rate


def exponential(learning_rate: float, steps: int, epochs: int, factor: float = 0.99):
    """Times ``factor`` after every epoch (report D)."""
    return step(learning_rate, steps, epochs, every=1, factor=factor)


def step(learning_rate: float, steps: int, epochs: int, every: int = 10, factor: float = 0.1):
    """Times ``factor`` after every so many epochs (report C)."""
    if not (isinstance(every, int) and every >= 1 and 0 < factor < 1):
        raise InputError(
            f"a schedule cuts the rate by a factor in (0, 1) every 1 or more epochs; given: "
            f"factor {factor!r}, every {every!r}"
        )
    return schedules.ExponentialDecay(learning_rate, steps * every, factor, staircase=True)


def cosine(learning_rate: float, steps: int, epochs: int, warmup: float = 0.0):
    """Down to zero along half a cosine (Loshchilov and Hutter, arXiv:1608.03983).

    ``warmup`` is the share of all steps in which the rate first rises from zero.
    """
    if not 0 <= warmup < 1:
        raise InputError(f"cosine warmup is {warmup!r}; it takes a share of the steps in [0, 1)")
    rising = math.floor(warmup * steps * epochs)
    falling = steps * epochs - rising
    if not rising:
        return schedules.CosineDecay(learning_rate, falling)
    return schedules.CosineDecay(0.0, falling, warmup_target=learning_rate, warmup_steps=rising)


def linear(learning_rate: float, steps: int, epochs: int, warmup: float = 0.0, final: float = 0.0):
    """Up from zero over the share ``warmup`` of all steps, then down to ``final`` of the peak."""
    if not (0 <= warmup < 1 and 0 <= final <= 1):
        raise InputError(
            f"linear takes warmup, a share of the steps in [0, 1), and final, a share of the rate "
            f"in [0, 1]; given: warmup {warmup!r}, final {final!r}"
        )
    total = steps * epochs
    rising = math.floor(warmup * total)
    start = [(0, 0.0)] if rising else []
    return _through([*start, (rising, 1.0), (total, final)], learning_rate)


def one_cycle(learning_rate: float, steps: int, epochs: int, rise: float = 0.45, low: float = 0.1):
    """One long rise from ``low`` of the peak and an equal fall, then to a hundredth of that.

    Super-convergence (Smith and Topin, arXiv:1708.07120); report C tried it. ``rise`` is the share
    of all steps that the rise takes.
    """
    if not (0 < rise < 0.5 and 0 < low < 1):
        raise InputError(
            f"one_cycle takes rise, a share of the steps in (0, 0.5), and low, a share of the rate "
            f"in (0, 1); given: rise {rise!r}, low {low!r}"
        )
    total = steps * epochs
    points = [(0, low), (rise * total, 1.0), (2 * rise * total, low), (total, low / 100)]
    return _through(points, learning_rate)


def triangular(learning_rate: float, steps: int, epochs: int, every: int = 8, low: float = 0.1):
    """Up and down between ``low`` of the peak and the peak, once every so many epochs.

    The triangular policy of cyclical learning rates (Smith, arXiv:1506.01186); report C tried it.
    """
    if not (every >= 1 and 0 <= low < 1):
        raise InputError(
            f"triangular takes every, 1 or more epochs, and low, a share of the rate in [0, 1); "
            f"given: every {every!r}, low {low!r}"
        )
    half, turns = every * steps / 2, math.ceil(2 * epochs / every)
    points = [(turn * half, 1.0 if turn % 2 else low) for turn in range(turns + 1)]
    return _through(points, learning_rate)


def plateau(
    learning_rate: float,
    steps: int,
    epochs: int,
    factor: float = 0.1,
    patience: int = 10,
    min_delta: float = 0.0001,
    cooldown: int = 0,
):
    """Times ``factor`` after so many epochs without a better validation loss (report C).

    A loss is better where it is lower by more than ``min_delta``. After a cut, the first epoch that
    counts is the ``cooldown``-th. (Keras's ReduceLROnPlateau.)
    """
    if not (0 < factor < 1 and patience >= 1 and min_delta >= 0 and cooldown >= 0):
        raise InputError(
            f"plateau takes factor in (0, 1), patience, 1 or more epochs, min_delta >= 0 and "
            f"cooldown >= 0; given: factor {factor!r}, patience {patience!r}, min_delta "
            f"{min_delta!r}, cooldown {cooldown!r}"
        )
    return Plateau(
        learning_rate, factor=factor, patience=patience, min_delta=min_delta, cooldown=cooldown
    )


def _through(points: list[tuple[float, float]], peak: float) -> PiecewiseLinear:
    steps, shares = zip(*points, strict=True)
    return PiecewiseLinear(list(steps), [share * peak for share in shares])


SCHEDULES = {
    function.__name__: function
    for function in (constant, exponential, step, cosine, linear, one_cycle, triangular, plateau)
}
