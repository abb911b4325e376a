"""Learning rate schedules by name: each gives Keras a number or a schedule over steps.

Each function takes the peak learning rate, the steps of an epoch and the number of epochs, then its
options.
"""

import math

from keras.optimizers import schedules

from cifar_utils.parameters import InputError


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


SCHEDULES = {function.__name__: function for function in (constant, exponential, step, cosine)}
