"""Single steps of a network: a learning rate range test, the norms of its gradients."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import pandas as pd
from keras import ops

from cifar_utils.data.dataset import Split
from cifar_utils.errors import InputError, check_bounds
from cifar_utils.events import progress_bar
from cifar_utils.training.batches import Batches
from cifar_utils.training.callbacks import SeedEpoch
from cifar_utils.training.optimizers import make_optimizer

SMOOTHING = 0.9  # weight of the previous mean in the moving average of losses
BLOWN_UP = 4  # times the lowest loss


@dataclass(frozen=True, eq=False, repr=False)
class LearningRateRange:
    """The result of :func:`learning_rate_range`, step by step.

    Attributes
    ----------
    rates
        Learning rates, rising, float ``(steps,)``.
    losses
        The loss of each step's batch in nats, ``(steps,)``.
    blew_up
        Whether the loss blew up. If not, the test reached its highest rate.

    """

    rates: np.ndarray
    losses: np.ndarray
    blew_up: bool

    @cached_property
    def smoothed(self) -> np.ndarray:
        """The losses as an exponential moving average that starts without bias, ``(steps,)``."""
        return smooth(self.losses)

    @property
    def lowest(self) -> int:
        """The step of the lowest smoothed loss."""
        return int(self.smoothed.argmin())

    @property
    def suggested(self) -> float:
        """A peak rate: a tenth of the rate at which the smoothed loss is lowest.

        At this rate the loss still falls, with a margin to the rate at which it stops falling.
        """
        return float(self.rates[self.lowest] / 10)

    @property
    def caution(self) -> str:
        """Why the suggestion can't be trusted; empty where it can."""
        if self.lowest == 0:
            return "the loss never fell, so the suggestion means nothing: take a lower lowest rate"
        if self.lowest == len(self.rates) - 1:
            return "the loss fell to the end, so a higher rate may do better: take a higher highest"
        return ""

    def __repr__(self) -> str:
        end = "where the loss blew up" if self.blew_up else "the highest asked for"
        words = (
            f"suggested peak learning rate {self.suggested:.2g}, a tenth of "
            f"{10 * self.suggested:.2g}, where the smoothed loss is lowest "
            f"({self.smoothed[self.lowest]:.3f}); {len(self.rates)} steps from "
            f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}, {end}"
        )
        return "; ".join(filter(None, (words, self.caution)))

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>"


def smooth(losses: Sequence[float]) -> np.ndarray:
    """Exponential moving averages of values ``(N,)``, each over the sum of its weights."""
    return pd.Series(losses).ewm(alpha=1 - SMOOTHING).mean().to_numpy()


def learning_rate_range(
    model: keras.Model,
    train: Split,
    *,
    optimizer: str = "sgd",
    weight_decay: float = 0.0,
    batch_size: int = 128,
    lowest: float = 1e-5,
    highest: float = 10.0,
    steps: int = 100,
    seed: int = 0,
) -> LearningRateRange:
    """Raise the learning rate at every step, until the loss blows up (Smith, arXiv:1506.01186).

    The rate rises by the same factor at each step. The loss has blown up when its moving average is
    four times the lowest one, or not a number. The model keeps its weights.

    Parameters
    ----------
    model
        From inputs to logits; a new model, as for :func:`~cifar_utils.training.fit`.
    optimizer, weight_decay
        See :func:`~cifar_utils.training.make_optimizer`.
    lowest, highest
        Learning rates of the first step and the last.
    steps
        Number of steps, of one batch each, over as many epochs as they take.
    seed
        Draws the batches' order, augmentation and dropout.

    Raises
    ------
    InputError
        Where an argument is out of range or unknown, or there are fewer images than a batch.

    """
    check_bounds("lowest", lowest, "above 0")
    check_bounds("highest", highest, f"above {lowest}")
    check_bounds("steps", steps, "at least 2")
    batches = Batches(model, train, batch_size, seed)
    whole = len(train.labels) // batch_size  # whole batches only: a smaller one would be noisier
    if not whole:
        raise InputError(
            f"batch_size is {batch_size}, and there are {len(train.labels):,} images; take fewer"
        )
    rates = np.geomspace(lowest, highest, steps)
    made = make_optimizer(optimizer, lowest, weight_decay, batch_size, model.dtype_policy.name)
    losses: list[float] = []
    blew_up = False
    with _steps(model, made, batches, seed) as step, progress_bar("rates", steps) as bar:
        for count, rate in enumerate(rates):
            made.learning_rate = rate
            loss = step(*divmod(count, whole))
            blew_up = not math.isfinite(loss)
            if not blew_up:
                losses.append(loss)
                smoothed = smooth(losses)
                blew_up = smoothed[-1] > BLOWN_UP * smoothed.min()
            if blew_up:
                break
            bar.update()
    if not losses:
        raise InputError(f"the loss is {loss} at once, at a learning rate of {lowest:.2g}")
    return LearningRateRange(rates[: len(losses)], np.array(losses), blew_up)


def gradient_norms(
    model: keras.Model, split: Split, *, batch_size: int = 128, seed: int = 0
) -> pd.DataFrame:
    """The norm of each kernel's gradient in a training step. The model keeps its weights.

    Parameters
    ----------
    model
        From inputs to logits.
    split
        Images and labels. The first batch that ``seed`` draws is used, with augmentation and
        dropout on.

    Returns
    -------
    pd.DataFrame
        A row for each trained kernel of a convolution or dense layer, from the input on. The index
        is the ``layer``'s name. ``shape`` is text, ``weights`` their number, and ``norm`` the L2
        norm of the mean loss's gradient.

    Raises
    ------
    InputError
        Where ``batch_size`` is below 1.
    FloatingPointError
        Where a gradient is NaN or infinite.

    """
    optimizer, batches = _RecordNorms(), Batches(model, split, batch_size, seed)
    with _steps(model, optimizer, batches, seed, once=True) as step:
        step(0, 0)
    rows = [
        {
            "layer": variable.path.rsplit("/")[-2],
            "shape": "×".join(map(str, variable.shape)),
            "weights": math.prod(variable.shape),
            "norm": math.sqrt(ops.convert_to_numpy(square)),
        }
        for variable, square in zip(model.trainable_variables, optimizer.squares, strict=True)
        if len(variable.shape) > 1
    ]
    for row in rows:
        if not math.isfinite(row["norm"]):
            raise FloatingPointError(
                f"the gradient of {row['layer']} is not finite; try precision float32"
            )
    return pd.DataFrame(rows).set_index("layer")


@contextmanager
def _steps(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    batches: Batches,
    seed: int,
    once: bool = False,
) -> Iterator[Callable[[int, int], float]]:
    """A function that trains on one batch of an epoch and returns its loss.

    At the end of the block the model has its earlier state again.
    """
    # Another model of the same layers, so that the given one stays compiled as it is.
    probe = keras.Model(model.input, model.output)
    probe.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",
        # TensorFlow would need longer to compile a single step than to run it.
        run_eagerly=once and keras.backend.backend() == "tensorflow",
    )
    optimizer.build(probe.trainable_variables)
    seeds = SeedEpoch(batches, seed)
    seeds.set_model(probe)

    def step(epoch: int, batch: int) -> float:
        if batch == 0:
            seeds.on_epoch_begin(epoch)
        probe.reset_metrics()  # else the loss would be the mean of all steps so far
        return float(probe.train_on_batch(*batches[batch]))

    variables = [*probe.trainable_variables, *probe.non_trainable_variables]
    kept = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    try:
        yield step
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


class _RecordNorms(keras.optimizers.Optimizer):
    """Keeps the square of each gradient's norm, and changes nothing."""

    def __init__(self):
        super().__init__(0.0, name="norms")

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self.squares = [
            self.add_variable((), "zeros", "float32", name=f"square_{place}")
            for place in range(len(variables))
        ]

    def update_step(self, gradient, variable, learning_rate):
        square = ops.sum(ops.square(ops.cast(gradient, "float32")))
        self.assign(self.squares[self._get_variable_index(variable)], square)
