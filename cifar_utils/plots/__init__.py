"""Figures of a page. A caption explains the figure, and alternative text states the finding."""

from cifar_utils.plots.curves import by_epoch, plot_curves, plot_history, plot_trials
from cifar_utils.plots.figure import STYLE, CaptionedFigure
from cifar_utils.plots.gradients import plot_gradient_norms
from cifar_utils.plots.images import plot_mistakes, plot_samples, plot_whitening
from cifar_utils.plots.scores import plot_calibration, plot_confusion, plot_per_class
from cifar_utils.plots.tuning import plot_best_so_far, plot_parallel_coordinates
