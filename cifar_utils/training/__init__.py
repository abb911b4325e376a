"""Training: optimizers, schedules, callbacks, :func:`fit`, which ties them together, and probes."""

from cifar_utils.backend import keras  # noqa: F401  (the first import of Keras, a quiet one)
from cifar_utils.training.callbacks import TrainingDiverged
from cifar_utils.training.fit import fit
from cifar_utils.training.history import History
from cifar_utils.training.optimizers import OPTIMIZERS, make_optimizer
from cifar_utils.training.probes import LearningRateRange, gradient_norms, learning_rate_range
from cifar_utils.training.schedules import SCHEDULES
from cifar_utils.training.trials import (
    Trial,
    best_trial,
    compare_trials,
    describe_trials,
    run_trials,
)

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "History",
    "LearningRateRange",
    "TrainingDiverged",
    "Trial",
    "best_trial",
    "compare_trials",
    "describe_trials",
    "fit",
    "gradient_norms",
    "learning_rate_range",
    "make_optimizer",
    "run_trials",
]
