import math
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from cifar_utils.data.dataset import Dataset, Split
from cifar_utils.evaluation import Scores, percent
from cifar_utils.models import build_model
from cifar_utils.plots import (
    STYLE,
    CaptionedFigure,
    by_epoch,
    plot_calibration,
    plot_confusion,
    plot_curves,
    plot_history,
    plot_mistakes,
    plot_per_class,
    plot_samples,
    plot_trials,
    plot_whitening,
)
from cifar_utils.runs.reported import reported_curve, reported_per_class
from cifar_utils.training.history import History

PNG = b"\x89PNG"


def dataset_of(classes, n=300, side=8):
    rng = np.random.default_rng(0)

    def split(size):
        images = rng.integers(0, 256, (size, side, side, 3), np.uint8)
        return Split(images, np.arange(size) % classes)

    names = tuple(rf"long_name of {i} at $5_\q$" for i in range(classes))  # no formula
    return Dataset("made", names, split(n), split(n // 2), split(n), "embedded", "0")


def scores_of(dataset, right=0.7):
    rng = np.random.default_rng(1)
    labels, k = dataset.test.labels, len(dataset.class_names)
    said = np.where(rng.random(len(labels)) < right, labels, rng.integers(0, k, len(labels)))
    weights = rng.random((len(labels), k)) + 8 * np.eye(k)[said]
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return Scores(dataset.class_names, labels, probabilities.astype(np.float32))


def history_of(epochs, validation=True):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": epoch, "loss": 2 / epoch, "accuracy": 1 - 0.5 / epoch, "seconds": 1.0}
        row["learning_rate"] = 0.1 * 0.1 ** (3 * epoch // (epochs + 1))
        if validation:
            row |= {"val_loss": 2.2 / epoch, "val_accuracy": 0.9 - 0.5 / epoch}
        rows.append(row)
    return History(rows, epochs)


def labels_of(figure):
    """The texts that the figure shows."""
    import matplotlib.text

    figure.png()
    return {text.get_text() for text in figure.figure.findobj(matplotlib.text.Text)}


def check(figure):
    assert figure.png().startswith(PNG)
    assert figure.figure.dpi == STYLE["figure.dpi"], "all figures have one style"
    assert figure.caption.endswith(".")
    assert figure.alt.endswith(".")
    assert not re.search(r"nan|None|array\(|\[", figure.alt + figure.caption)


@pytest.mark.filterwarnings("error", "default::ResourceWarning")
@pytest.mark.parametrize("classes", [2, 100])
def test_every_figure_of_a_run_renders(classes):
    dataset = dataset_of(classes)
    scores = scores_of(dataset)
    for figure in (
        plot_samples(dataset),
        plot_per_class(scores),
        plot_confusion(scores),
        plot_calibration(scores),
        plot_mistakes(scores, dataset.test),
    ):
        check(figure)
    assert percent(scores.top1) in plot_per_class(scores).alt
    assert percent(scores.top1) in plot_confusion(scores).alt


def test_html_is_escaped_and_needs_no_other_file():
    figure = plot_samples(dataset_of(3))
    html = CaptionedFigure(figure.figure, "a < b & c", 'says "yes" <script>')._repr_html_()
    assert html.startswith('<figure class="report-figure"><img alt="says &quot;yes&quot; &lt;scr')
    assert 'src="data:image/png;base64,iVBORw0KGgo' in html
    assert html.endswith("<figcaption>a &lt; b &amp; c</figcaption></figure>")


def test_samples_show_each_of_few_classes_and_some_of_many():
    few, many = plot_samples(dataset_of(10)), plot_samples(dataset_of(100, n=200))
    assert "of each class" in few.caption
    assert "8 of the 100 classes" in many.caption
    assert "300 images for training" in few.alt
    assert "8 by 8 pixels" in few.alt


def test_samples_follow_the_seed():
    dataset = dataset_of(10)
    assert plot_samples(dataset, seed=1).png() == plot_samples(dataset, seed=1).png()
    assert plot_samples(dataset, seed=1).png() != plot_samples(dataset, seed=2).png()


@pytest.mark.filterwarnings("error", "default::ResourceWarning")
@pytest.mark.parametrize(("epochs", "validation"), [(1, True), (60, False)])
def test_history_of_any_length(epochs, validation):
    figure = plot_history(history_of(epochs, validation), title="made")
    check(figure)
    shown = labels_of(figure)
    kept = f"best epoch: {epochs}" if validation else f"kept: epoch {epochs}"
    assert any(text.startswith(kept) for text in shown)
    assert ("validation" in shown) == validation
    assert ("Validation accuracy" in figure.alt) == validation
    assert "made" in shown


def test_history_states_its_figures():
    alt = plot_history(history_of(5)).alt
    assert "best after epoch 5: 80.0%, where training accuracy is 90.0%" in alt
    assert "learning rate goes from 0.1 to 0.001" in alt


def test_where_a_second_training_begins_is_marked():
    figure = plot_history(history_of(3).followed_by(history_of(4)))
    assert "second training begins" in labels_of(figure)
    assert "A second training begins after epoch 3." in figure.caption
    assert "second training begins" not in labels_of(plot_history(history_of(7)))


def test_a_reported_curve_is_drawn_as_far_as_the_run_goes():
    curve = reported_curve("preact", "cifar100")
    figure = plot_history(history_of(20), reported=curve)
    assert "report D, training" in labels_of(figure)
    assert len(figure.figure.axes[0].lines[0].get_xdata()) == 20
    assert "report D" in figure.caption
    assert "100 epochs" in figure.caption


def test_a_reported_top_5_curve_stands_beside_top_5_and_not_top_1():
    rows = [row | {"top5": 0.9, "val_top5": 0.8} for row in history_of(4).epochs]
    loss, top1, top5, _ = plot_history(
        History(rows, 4), reported_curve("preact", "cifar100")
    ).figure.axes
    assert [len(axes.lines) for axes in (loss, top1, top5)] == [4, 3, 4]
    assert (top1.get_ylabel(), top5.get_ylabel()) == ("accuracy", "top-5 accuracy")


def test_classes_are_sorted_and_of_many_the_ends_are_shown():
    many = scores_of(dataset_of(100, n=1000))
    figure = plot_per_class(many)
    assert "10 best and the 10 worst of 100 classes" in figure.caption
    shown = [text for text in labels_of(figure) if text.startswith("long name")]
    assert len(shown) == 20
    ranked = sorted(many.per_class.values(), reverse=True)
    assert f"from {percent(ranked[0])}" in figure.alt
    assert f"down to {percent(ranked[-1])}" in figure.alt


def test_reported_classes_are_drawn_beside_ours():
    names = tuple(reported_per_class("cifarnet", "cifar10"))
    scores = Scores(names, np.arange(10), np.eye(10, dtype=np.float32))
    figure = plot_per_class(scores, reported=reported_per_class("cifarnet", "cifar10"))
    assert "Diamonds" in figure.caption
    assert "reported" in labels_of(figure)


def test_names_in_chinese_are_drawn_with_an_installed_font(tmp_path):
    """A font with one letter stands for an installed one; the figure is made by a new process."""
    blank = TTGlyphPen(None).glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "sun"])
    font.setupCharacterMap({ord("日"): "sun"})
    font.setupGlyf({".notdef": blank, "sun": blank})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "sun": (1000, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Made Sans CJK", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "made.ttf")
    code = """
import sys, warnings
import numpy as np
from matplotlib.font_manager import fontManager
fontManager.addfont(sys.argv[1])
from cifar_utils.evaluation import Scores
from cifar_utils.plots import plot_confusion
warnings.simplefilter("error")  # of a letter that no font has
plot_confusion(Scores(("日", "cat"), np.array([0, 1]), np.eye(2, dtype="float32"))).png()
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "made.ttf"], check=True)


def test_confusion_counts_few_classes_and_names_pairs_of_many():
    labels = np.repeat(np.arange(3), 4)
    said = labels.copy()
    said[:3] = 1
    scores = Scores(("cat", "dog", "frog"), labels, np.eye(3, dtype=np.float32)[said])
    figure = plot_confusion(scores)
    assert "cat taken for dog (3 of 4)" in figure.alt
    assert {"3", "4", "1"} <= labels_of(figure)
    pairs = [text for text in labels_of(plot_confusion(scores_of(dataset_of(100)))) if "→" in text]
    assert len(pairs) == 15


def test_confident_mistakes_come_first():
    truth, said = np.array([0, 0, 1]), np.array([1, 0, 0])
    probabilities = np.array([[0.3, 0.7], [0.6, 0.4], [0.9, 0.1]], np.float32)
    scores = Scores(("cat", "dog"), truth, probabilities)
    assert (scores.predictions == said).all()
    figure = plot_mistakes(scores, dataset_of(2, n=3).test)
    titles = [axes.get_title() for axes in figure.figure.axes if axes.get_title()]
    assert titles == ["dog\n→ cat 90.0%", "cat\n→ dog 70.0%"]
    assert "2 of 3 images (66.7%) are misclassified" in figure.alt
    images = dataset_of(2, n=3).test
    captions = [plot_mistakes(scores, images, count=count).caption for count in (1, 2)]
    assert captions[0].startswith("The 1 most confident of 2 mistakes in 3 images")
    assert captions[1].startswith("The 2 mistakes in 3 images")


def test_calibration_says_how_sure_and_how_right():
    rows = np.array([[0.9, 0.1]] * 4, np.float32)
    figure = plot_calibration(Scores(("a", "b"), np.array([0, 0, 0, 1]), rows))
    assert "Expected calibration error 15.0%" in figure.caption
    assert "confidence is 90.0%, and its accuracy 75.0% of 4 images: it is over" in figure.alt
    points = figure.figure.axes[0].containers[0]
    np.testing.assert_allclose(points.lines[0].get_xydata(), [[0.9, 0.75]], rtol=1e-6)
    modest = plot_calibration(Scores(("a", "b"), np.zeros(4, int), rows))
    assert "underconfident" in modest.alt


def test_whitening_filters_are_shown_from_the_most_common_pattern_on():
    data = dataset_of(10, side=32)
    figure = plot_whitening(build_model("airbench(width=0.1)", data))
    titles = [axes.get_title() for axes in figure.figure.axes]
    assert len(titles) == 12
    weights = [float(title.removeprefix("×")) for title in titles]
    assert weights == sorted(weights)
    assert f"from {weights[0]} to {weights[-1]}" in figure.alt
    check(figure)


def test_of_grey_images_each_pattern_is_shown_once():
    data = dataset_of(10, side=32)
    data.train.images[:] = data.train.images[..., :1]
    figure = plot_whitening(build_model("airbench(width=0.1)", data))
    assert sum(bool(axes.images) for axes in figure.figure.axes) == 4
    assert figure.alt.startswith("4 colour patterns")


def test_without_whitening_the_first_convolution_is_shown():
    figure = plot_whitening(
        build_model("airbench(width=0.1,whitening=False)", dataset_of(10, side=32))
    )
    assert len(figure.figure.axes) == 24
    assert "as training starts" in figure.caption
    check(figure)


def trial_of(name, epochs, diverged=""):
    history = history_of(epochs)
    accuracy = history.best["val_accuracy"] if epochs else math.nan
    return SimpleNamespace(name=name, history=history, accuracy=accuracy, diverged=diverged)


def test_trials_are_told_apart_and_the_alternative_text_says_how_each_went():
    trials = [trial_of("plain", 4), trial_of("steep", 2, "the loss became nan")]
    figure = plot_trials([*trials, trial_of("steeper", 0, "the loss became nan")], target=0.7)
    assert {"plain", "steep", "steeper"} <= set(labels_of(figure))
    assert "plain 77.5% after epoch 4, 77.5% after epoch 4" in figure.alt
    assert "steep 65.0% after epoch 2, then it diverged" in figure.alt
    assert "steeper diverged in its first epoch" in figure.alt
    assert "cross" in figure.caption
    assert "70%" in figure.caption
    assert "cross" not in plot_trials(trials[:1]).caption


def test_trials_of_several_seeds_share_a_line_with_a_band():
    one, other = trial_of("plain", 4), trial_of("plain", 4)
    other.history.epochs[3]["val_accuracy"] = 0.5
    figure = plot_trials([one, trial_of("steep", 4), other, trial_of("steep", 4)])
    panel = figure.figure.axes[1]
    lines = {line.get_label(): line.get_ydata() for line in panel.lines}
    assert lines["plain"][3] == pytest.approx((0.775 + 0.5) / 2)
    (band,), _ = [each.get_paths() for each in panel.collections]
    assert {*band.vertices[band.vertices[:, 0] == 4, 1].round(3)} == {0.5, 0.775}
    assert "bands" in figure.caption
    lost = [trial_of("steep", 2, "nan"), trial_of("gone", 0, "nan"), one, trial_of("steep", 4)]
    crossed = plot_trials([*lost, trial_of("gone", 0, "nan"), other])
    crosses = [
        line.get_xdata() for line in crossed.figure.axes[1].lines if line.get_marker() == "x"
    ]
    assert [list(place) for place in crosses] == [[2], [], []], "where the one training ended"
    check(crossed)
    assert "bands" not in plot_trials([one]).caption
    check(figure)


def test_learning_rates_are_drawn_where_trials_differ_in_them():
    trials = [trial_of("plain", 4), trial_of("residual", 4), trial_of("one_cycle", 4)]
    assert len(plot_trials(trials).figure.axes) == 2
    for trial, rates in zip(trials, ([0.1] * 4, [0.1] * 4, [0.05, 0.1, 0.03, 0.001]), strict=True):
        for row, rate in zip(trial.history.epochs, rates, strict=True):
            row["learning_rate"] = rate
    figure = plot_trials(trials)
    assert "learning rate" in labels_of(figure)
    panel = figure.figure.axes[2]
    assert panel.get_yscale() == "linear", "one of them changes smoothly"
    assert {line.get_drawstyle() for line in panel.lines} == {"default"}
    assert "learning rate" in figure.caption
    check(figure)


def test_a_loss_far_above_all_others_is_cut_off_and_that_is_said():
    history = history_of(20)
    assert not any("cut off" in text for text in labels_of(plot_history(history)))
    history.epochs[0]["val_loss"] = 34.0
    figure = plot_history(history)
    assert "↑ cut off: values up to 34" in labels_of(figure)
    assert figure.figure.axes[0].get_ylim()[1] < 3


def test_a_legend_of_long_names_stays_within_the_figure():
    table = by_epoch(history_of(3).epochs, {"loss": "loss"})
    names = [f"{'a-name-without-a-space' * 4}-{number} or with $" for number in range(30)]
    figure = plot_curves(dict.fromkeys(names, table))
    CaptionedFigure(figure, "", "").png()
    legend, bounds = figure.legends[0].get_window_extent(), figure.bbox
    assert (legend.x0, legend.y0) >= (bounds.x0, bounds.y0)
    assert (legend.x1, legend.y1) <= (bounds.x1, bounds.y1)
    assert figure.axes[0].get_window_extent().height > 200


def test_marks_of_an_axis_differ_however_little_the_values_do():
    rows = [row | {"val_accuracy": 0.1 + row["epoch"] / 1000} for row in history_of(9).epochs]
    figure = plot_trials(
        [SimpleNamespace(name="flat", history=History(rows, 9), accuracy=0.109, diverged="")]
    )
    figure.png()
    marks = [label.get_text() for label in figure.figure.axes[1].get_yticklabels()]
    assert len(set(marks)) == len(marks) > 2
