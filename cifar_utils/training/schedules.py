"""Learning rate schedules by name.

Each function takes the peak learning rate, the steps of an epoch and the number of epochs, then its
options. It returns a number, a schedule over steps or a :class:`Plateau`.
"""

import math
from typing import Annotated

import keras
from keras import ops
from keras.optimizers import schedules

from cifar_utils.choices import NonNegativeFloat, PositiveInt, Rate, Share


@keras.saving.register_keras_serializable("cifar_utils")
class PiecewiseLinear(schedules.LearningRateSchedule):
    """Straight lines between points, level before the first and after the last.

    Parameters
    ----------
    steps
        The steps of the points, rising.
    rates
        The learning rate at each point.

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


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """Cuts the rate when the validation loss has not become better for some epochs.

    The state of Keras's callback follows from the finished epochs, so a resumed run shows it these
    epochs again.

    Attributes
    ----------
    peak
        The first rate.
    rows
        The finished epochs, as in :class:`~cifar_utils.training.history.History`.

    """

    def __init__(self, peak: float, **options):
        super().__init__("val_loss", mode="min", **options)
        self.peak, self.rows = peak, []

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.model.optimizer.learning_rate = self.peak
        for row in self.rows:
            self.on_epoch_end(row["epoch"] - 1, dict(row))


def constant(learning_rate: float, steps: int, epochs: int):
    """The same rate throughout."""
    return learning_rate


def exponential(learning_rate: float, steps: int, epochs: int, factor: Share = 0.99):
    """Multiply the rate by a factor after every epoch (report D)."""
    return step(learning_rate, steps, epochs, every=1, factor=factor)


def step(
    learning_rate: float, steps: int, epochs: int, every: PositiveInt = 10, factor: Share = 0.1
):
    """Multiply the rate by a factor once in some epochs (report C).

    Parameters
    ----------
    every
        Epochs from one cut to the next.
    factor
        What the rate is multiplied by.
    """
    return schedules.ExponentialDecay(learning_rate, steps * every, factor, staircase=True)


def cosine(learning_rate: float, steps: int, epochs: int, warmup: Rate = 0.0):
    """Fall to zero along half a cosine (Loshchilov and Hutter, arXiv:1608.03983).

    Parameters
    ----------
    warmup
        Share of all steps in which the rate first rises from zero.
    """
    total = steps * epochs
    rising = math.floor(warmup * total)
    falling = total - rising
    if not rising:
        return schedules.CosineDecay(learning_rate, falling)
    return schedules.CosineDecay(0.0, falling, warmup_target=learning_rate, warmup_steps=rising)


def linear(
    learning_rate: float,
    steps: int,
    epochs: int,
    warmup: Rate = 0.0,
    final: Annotated[float, "at least 0, at most 1"] = 0.0,
):
    """Rise in a straight line, if there is a warm-up, and fall in a straight line.

    Parameters
    ----------
    final
        The last rate, as a share of the peak.
    """
    total = steps * epochs
    rising = math.floor(warmup * total)
    start = [(0, 0.0)] if rising else []
    return _through([*start, (rising, 1.0), (total, final)], learning_rate)


def one_cycle(
    learning_rate: float,
    steps: int,
    epochs: int,
    rise: Annotated[float, "above 0, below 0.5"] = 0.45,
    low: Share = 0.1,
):
    """Rise to the peak, fall back in as many steps, then fall to a hundredth of the first rate.

    This is super-convergence (Smith and Topin, arXiv:1708.07120); report C tried it.

    Parameters
    ----------
    rise
        Share of all steps in which the rate rises.
    low
        The first rate, as a share of the peak.
    """
    total = steps * epochs
    points = [(0, low), (rise * total, 1.0), (2 * rise * total, low), (total, low / 100)]
    return _through(points, learning_rate)


def triangular(
    learning_rate: float, steps: int, epochs: int, every: PositiveInt = 8, low: Rate = 0.1
):
    """Rise to the peak and fall back, again and again.

    This is the triangular policy of cyclical learning rates (Smith, arXiv:1506.01186); report C
    tried it.

    Parameters
    ----------
    every
        Epochs of one rise and fall.
    low
        The lowest rate, as a share of the peak.
    """
    half, turns = every * steps / 2, math.ceil(2 * epochs / every)
    points = [(turn * half, 1.0 if turn % 2 else low) for turn in range(turns + 1)]
    return _through(points, learning_rate)


def plateau(
    learning_rate: float,
    steps: int,
    epochs: int,
    factor: Share = 0.1,
    patience: PositiveInt = 10,
    min_delta: NonNegativeFloat = 0.0001,
):
    """Cut the rate when the validation loss has not become better for some epochs.

    This is Keras's ReduceLROnPlateau, which report C uses.

    Parameters
    ----------
    factor
        What the rate is multiplied by.
    patience
        Epochs to wait for a better loss.
    min_delta
        A better loss is lower by more than this.
    """
    return Plateau(learning_rate, factor=factor, patience=patience, min_delta=min_delta)


def _through(points: list[tuple[float, float]], peak: float) -> PiecewiseLinear:
    steps, shares = zip(*points, strict=True)
    return PiecewiseLinear(list(steps), [share * peak for share in shares])
