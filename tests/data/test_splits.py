import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.data.splits import held_out, shares, stratified


@st.composite
def labelled(draw, smallest=0):
    sizes = draw(st.lists(st.integers(smallest, 60), min_size=1, max_size=12).filter(any))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(sum(sizes))
    return np.repeat(np.arange(len(sizes)), sizes)[order], np.array(sizes)


@settings(max_examples=25)
@given(labelled(), st.integers(0, 10**6), st.data())
def test_each_class_is_chosen_within_one_of_its_share(made, seed, data):
    labels, sizes = made
    count = data.draw(st.integers(0, len(labels)))
    taken = np.bincount(labels[stratified(labels, count, seed)], minlength=len(sizes))
    np.testing.assert_array_equal(taken, shares(sizes, count))
    assert taken.sum() == count
    assert (np.abs(taken - sizes * count / sizes.sum()) < 1).all()


def test_a_seed_means_the_same_images_for_ever():
    labels = np.arange(40) % 4
    assert np.flatnonzero(stratified(labels, 8, seed=1)).tolist() == [2, 9, 16, 18, 21, 31, 36, 39]


@settings(max_examples=25)
@given(labelled(smallest=1), st.floats(0, 0.9), st.integers(0, 10**6), st.data())
def test_training_and_validation_are_disjoint_and_together_everything(made, fraction, seed, data):
    labels, _ = made
    limit = data.draw(st.none() | st.integers(1, len(labels)))
    kept, held = held_out(labels, fraction, seed, limit)
    assert not (kept & held).any()
    taken = limit or len(labels)
    assert held.sum() == round(taken * fraction)
    assert kept.sum() == taken - held.sum()
    np.testing.assert_array_equal(held_out(labels, fraction, seed, limit)[1], held)
