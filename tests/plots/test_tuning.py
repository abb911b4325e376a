import re
from dataclasses import replace

import matplotlib.text
import pytest

from cifar_utils.plots import plot_best_so_far, plot_parallel_coordinates
from cifar_utils.tuning import Outcome, parse_space

SPACE = "learning_rate(0.001, 0.5), weight_decay(0.0001, 0.01), dropout(0, 0.4), width(8, 32, 8)"


def trials_of(count):
    return [
        Outcome(
            name=str(number + 1),
            continues=None,
            values={
                "learning_rate": 0.001 * (1 + number),
                "weight_decay": 0.001,
                "dropout": 0.1,
                "width": 8 + 8 * (number % 4),
            },
            val_accuracy=0.5 + 0.4 * number / count,
            val_loss=1.0,
            epochs=3,
            seconds=1.0,
        )
        for number in range(count)
    ]


@pytest.fixture
def space():
    return parse_space(SPACE)


def texts(figure):
    figure.png()
    return [found.get_text() for found in figure.figure.findobj(matplotlib.text.Text)]


@pytest.mark.parametrize("count", [1, 30])
def test_figures_of_any_number_of_trials(space, count):
    for figure in (
        plot_parallel_coordinates(trials_of(count), space),
        plot_best_so_far(trials_of(count)),
    ):
        assert figure.png().startswith(b"\x89PNG")
        assert re.search(r'alt="[^"]{40,}', figure._repr_html_())


def test_each_axis_shows_its_name_and_bounds(space):
    shown = texts(plot_parallel_coordinates(trials_of(4), space))
    assert {"learning\nrate", "weight\ndecay", "dropout", "width"} <= set(shown)
    assert {"0.001", "0.5", "0.01", "0.1", "0", "0.4", "8", "32"} <= set(shown)
    assert "epochs" not in shown


def test_the_best_values_are_told(space):
    figure = plot_parallel_coordinates(trials_of(4), space)
    assert "runs from 50.0% to 80.0%; best: learning rate 0.004, weight decay 0.001" in figure.alt
    so_far = plot_best_so_far(trials_of(4), 0.6)
    assert "The best is trial 4, with 80.0%. The first guess has 60.0%." in so_far.alt
    assert "the first guess" in texts(so_far)
    assert "first guess" not in plot_best_so_far(trials_of(4)).alt
    first, *_, fourth = trials_of(4)  # two more drew the values of the first
    assert "of 2 trials. The best is trial 4" in plot_best_so_far([first, fourth]).alt


def test_a_trial_that_another_one_continues_is_drawn_once(space):
    first, second, third = trials_of(3)
    further = replace(second, name="4", continues="2", epochs=9, val_accuracy=0.9)
    figure = plot_parallel_coordinates([first, second, third, further], space)
    assert "of 3 sets of values" in figure.alt
    assert "Grey: 2 of fewer epochs" in figure.caption
    lost = replace(further, val_accuracy=None)
    figure = plot_parallel_coordinates([first, second, third, lost], space)
    assert "of 4 sets of values" in figure.alt


def test_the_best_so_far_is_the_best_of_those_with_as_many_epochs():
    first, second, third = trials_of(3)
    whole = [replace(trial, epochs=9, val_accuracy=0.3) for trial in (first, second)]
    better = replace(third, epochs=9, val_accuracy=0.9)
    drawn = [third, *whole, better]
    figure = plot_best_so_far([replace(x, name=str(n)) for n, x in enumerate(drawn, 1)])
    assert "of 4 trials" in figure.alt
    assert "trial of fewer epochs" in texts(figure)
    (line,) = (each for each in figure.figure.axes[0].lines if each.get_label() == "best so far")
    assert list(line.get_ydata()[1:]) == [0.3, 0.3, 0.9]


def test_trials_that_diverged_are_shown_as_such(space):
    first, second, third = trials_of(3)
    lost = [replace(trial, val_accuracy=None, val_loss=None) for trial in (first, second)]
    figure = plot_parallel_coordinates([*lost, third], space)
    assert "Dotted: 2 whose loss diverged" in figure.caption
    so_far = plot_best_so_far([*lost, third])
    assert "Crosses" in so_far.caption
    assert "The best is trial 3" in so_far.alt
