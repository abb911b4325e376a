"""Training: optimizers, schedules, callbacks, :func:`fit`, which ties them together, and probes."""

from cifar_utils import later
from cifar_utils.backend import keras  # the first import of Keras, a quiet one
from cifar_utils.errors import TrainingDiverged
from cifar_utils.training.fit import fit
from cifar_utils.training.history import History
from cifar_utils.training.optimizers import make_optimizer

__getattr__ = later(
    __name__,
    {
        "probes": "gradient_norms",
        "trials": "Trial best_trial compare_trials run_trials",
    },
)
