import numpy as np
import pytest

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.choices import REGISTRIES
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


@pytest.mark.filterwarnings("error", "default::ResourceWarning")
def test_each_augmentation_is_a_row_that_begins_with_the_original(digits):
    names = [*REGISTRIES["augmentation"]]
    figure = plot_augmentations(digits, *names)
    rows = pictures(figure)
    assert len(rows) == len(names)
    for name, row in zip(names, rows, strict=True):
        assert len(row) == 6
        np.testing.assert_array_equal(row[0], rows[0][0])
        assert name.replace("_", " ") in figure.alt
    assert {"original", "epoch 1", "alternating flip"} <= set(texts(figure))


def test_a_row_may_show_smaller_images_first_as_a_network_sees_them(digits):
    (row,) = pictures(plot_augmentations(digits, "shrink(16, 2), shrink(24, 4)"))
    assert [len(picture) for picture in row] == [32, 16, 16, 24, 24, 32]


def test_the_figure_follows_the_seed(digits):
    first, same, other = (
        plot_augmentations(digits, "rotation", seed=seed).png() for seed in (1, 1, 2)
    )
    assert first == same != other


def test_batches_are_changed_before_layers_whatever_the_order(digits):
    images = digits.train.images[:50]
    first, last = (
        augmented(text, images, 7, 2)
        for text in ("alternating_flip, flip('vertical',1)", "flip('vertical',1), alternating_flip")
    )
    np.testing.assert_array_equal(first, last)
    (flip,) = augmentation_layers("alternating_flip")
    np.testing.assert_array_equal(first, flip.change(images, np.arange(50), 7, 2)[:, ::-1])
