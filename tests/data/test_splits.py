import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.data.splits import held_out, limited, shares, stratified


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


@settings(max_examples=25)
@given(labelled(smallest=10), st.floats(0.2, 0.8), st.integers(0, 10**6))
def test_training_and_validation_are_disjoint_and_together_everything(made, fraction, seed):
    labels, _ = made
    kept, held = held_out(labels, fraction, seed)
    assert (kept ^ held).all()
    assert held.sum() == round(fraction * len(labels))
    np.testing.assert_array_equal(held_out(labels, fraction, seed)[1], held)


@settings(max_examples=25)
@given(labelled(smallest=30), st.integers(0, 1000))
def test_another_seed_is_another_split(made, seed):
    labels, _ = made
    splits = [held_out(labels, 0.3, s)[1] for s in range(seed, seed + 3)]
    assert len({split.tobytes() for split in splits}) > 1


def test_a_seed_means_the_same_images_for_ever():
    labels = np.arange(40) % 4
    assert np.flatnonzero(stratified(labels, 8, seed=1)).tolist() == [2, 9, 16, 18, 21, 31, 36, 39]


@settings(max_examples=25)
@given(labelled(smallest=1), st.floats(0, 0.9), st.data())
def test_a_limit_is_divided_too(made, fraction, data):
    labels, _ = made
    limit = data.draw(st.integers(1, len(labels)))
    kept, held = held_out(labels, fraction, 0, limit)
    assert not (kept & held).any()
    assert held.sum() == round(limit * fraction)
    assert kept.sum() == limit - held.sum()


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_outside_of_what_there_is(refused, limit):
    labels = np.arange(100) % 10
    with refused(f"test_limit is {limit}; it must be at least 1, at most 100"):
        limited(labels, limit, 0, "test_limit")
