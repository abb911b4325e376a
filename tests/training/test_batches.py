import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cifar_utils.backend import keras
from cifar_utils.data import Split
from cifar_utils.training.batches import Batches


def drawn(batches):
    """The images of an epoch, in order, each the number that it is all of."""
    pairs = [batches[index] for index in range(len(batches))]
    images = np.concatenate([images for images, _ in pairs])
    labels = np.concatenate([labels for _, labels in pairs])
    np.testing.assert_array_equal(images.ravel() % 1000, labels)
    return images.ravel()


def split(count, variants=0):
    numbers = np.arange(count)
    images = numbers.reshape(-1, 1, 1)
    if variants:
        images = images[:, None] + 1000 * np.arange(variants)[:, None, None]
    return Split(images, numbers)


MODEL = keras.Sequential([keras.Input((1, 1)), keras.layers.Identity()])
SIZES = {"count": st.integers(1, 50), "size": st.integers(1, 60)}


@given(**SIZES, seed=st.integers(0, 2**40), epoch=st.integers(0, 500))
def test_an_epoch_is_all_images_once_in_an_order_of_seed_and_epoch(count, size, seed, epoch):
    batches, later = (Batches(MODEL, split(count), size, seed) for _ in range(2))
    batches.begin_epoch(epoch)
    order = drawn(batches)
    assert sorted(order) == list(range(count))
    assert len(batches) == -(-count // size)
    assert all(len(batches[i][1]) == size for i in range(len(batches) - 1))
    later.begin_epoch(epoch + 1)
    later.begin_epoch(epoch)
    np.testing.assert_array_equal(drawn(later), order)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = set()
    for seed in (0, 1):
        batches = Batches(MODEL, split(30), 8, seed)
        for epoch in (0, 1):
            batches.begin_epoch(epoch)
            orders.add(tuple(drawn(batches)))
    assert len(orders) == 4


@given(**SIZES, variants=st.integers(1, 4))
def test_of_variants_each_image_draws_one_an_epoch(count, size, variants):
    batches = Batches(MODEL, split(count, variants), size, 0)
    numbers = drawn(batches)
    assert sorted(numbers % 1000) == list(range(count))
    assert numbers.max() // 1000 < variants


class Change(keras.layers.Layer):
    """Adds the number of an image, times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, images):
        return images

    def change(self, images, index, seed, epoch):
        assert (seed, epoch) == (5, 3)
        return self.factor * (images + index[:, None, None])


def test_layers_change_batches_in_turn():
    model = keras.Sequential([keras.Input((1, 1)), Change(2), Change(3)])
    batches = Batches(model, split(4), 3, 5)
    batches.begin_epoch(3)
    for images, labels in (batches[0], batches[1]):
        np.testing.assert_array_equal(images.ravel(), 3 * (2 * (labels + labels) + labels))


def test_all_variants_are_drawn_in_time():
    batches, seen = Batches(MODEL, split(5, 4), 2, 0), set()
    for epoch in range(40):
        batches.begin_epoch(epoch)
        seen |= set(drawn(batches))
    assert len(seen) == 5 * 4
