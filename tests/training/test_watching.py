"""What a cell shows while it trains."""

import pytest

from cifar_utils.plots import plot_history
from cifar_utils.training import TrainingDiverged, callbacks, fit


@pytest.mark.parametrize("watched", [True, False])
def test_only_a_watched_cell_shows_curves_and_none_after_training(
    build, digits, monkeypatch, watched
):
    shown = []

    def display_line(text):
        return lambda text, html="": shown.append((text, html))

    monkeypatch.setattr(callbacks, "is_watched", lambda: watched)
    monkeypatch.setattr(callbacks, "display_line", display_line)
    history = fit(build(), digits.train, digits.validation, epochs=3, plot=plot_history)
    assert "3 epochs in" in history._repr_html_()
    *lines, last = shown
    assert len(lines) >= 3
    assert all(text.startswith("epoch ") for text, _ in lines)
    assert last == ("", "")
    drawn = [html for _, html in lines if html]
    assert bool(drawn) == watched
    if watched:
        assert "<img" in drawn[0]
        assert "Learning curves of 1 epoch" in drawn[0]


def test_a_training_that_diverges_leaves_no_line_of_its_progress(build, digits, monkeypatch):
    shown = []
    monkeypatch.setattr(callbacks, "display_line", lambda text: lambda text, *_: shown.append(text))
    with pytest.raises(TrainingDiverged):
        fit(
            build(precision="float32"),
            digits.train,
            digits.validation,
            epochs=1,
            learning_rate=1e30,
        )
    assert shown[-1] == ""
