import numpy as np
import pytest

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.models import AUGMENTATIONS
from cifar_utils.plots.augmentation import augmented, plot_augmentations


def texts(figure):
    import matplotlib.text

    assert figure.png().startswith(b"\x89PNG")
    return [text.get_text() for text in figure.figure.findobj(matplotlib.text.Text)]


def pictures(figure):
    """The images shown, a list a row."""
    shown = [axes.images[0].get_array() for axes in figure.figure.axes]
    columns = sum(text.startswith(("original", "epoch ")) for text in texts(figure))
    return [shown[start : start + columns] for start in range(0, len(shown), columns)]


@pytest.mark.filterwarnings("error")
def test_each_augmentation_is_a_row_that_begins_with_the_original(digits):
    figure = plot_augmentations(digits, *AUGMENTATIONS)
    rows = pictures(figure)
    assert len(rows) == len(AUGMENTATIONS)
    for name, row in zip(AUGMENTATIONS, rows, strict=True):
        assert len(row) == 6
        np.testing.assert_array_equal(row[0], rows[0][0])
        assert name.replace("_", " ") in figure.alt
    assert {"original", "epoch 1", "colour jitter"} <= set(texts(figure))


def test_a_mixed_image_s_label_is_told_in_words(digits):
    figure = plot_augmentations(digits, "mixup(5)", "flip")
    below = [text for text in texts(figure) if "%" in text]
    assert 2 <= len(below) <= 5  # another of the same class leaves the label as it was
    for text in below:
        assert text.replace("\n", ", ") in figure.alt
        shares = [float(line.rstrip("%").split()[-1]) for line in text.split("\n")]
        assert sum(shares) == pytest.approx(100, abs=1)
    assert "what its label became" in figure.caption
    plain = plot_augmentations(digits, "flip(probability=1), crop(2)")
    assert "label" not in plain.caption + plain.alt
    assert "flip(probability=1), crop(2)" in plain.alt


def test_the_figure_follows_the_seed(digits):
    first, same, other = (
        plot_augmentations(digits, "rotation", seed=seed).png() for seed in (1, 1, 2)
    )
    assert first == same != other


def test_batches_are_changed_before_layers_whatever_the_order(digits):
    images, labels = digits.train
    shares = np.eye(10, dtype=np.float32)[labels]
    first, last = (
        augmented(text, images, shares, 7, 2)
        for text in ("mixup, flip(probability=1)", "flip(probability=1), mixup")
    )
    for one, other in zip(first, last, strict=True):
        np.testing.assert_array_equal(one, other)
    (mixup,) = augmentation_layers("mixup")
    mixed, expected = mixup.change(images, shares, np.arange(len(images)), 7, 2)
    np.testing.assert_array_equal(first[0], mixed[:, :, ::-1])
    np.testing.assert_array_equal(first[1], expected)
