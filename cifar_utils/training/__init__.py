"""Training: :func:`fit`, with its optimizers, schedules and callbacks; trials; gradients."""

from cifar_utils import later
from cifar_utils.backend import keras  # the first import of Keras, a quiet one
from cifar_utils.errors import TrainingDiverged
from cifar_utils.training.fit import fit
from cifar_utils.training.history import History
from cifar_utils.training.optimizers import make_optimizer

__getattr__ = later(
    __name__,
    {
        "gradients": "gradient_norms",
        "trials": "Trial best_trial compare_trials run_trials",
    },
)
