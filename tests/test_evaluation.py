import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.data.dataset import Split
from cifar_utils.evaluation import (
    Scores,
    compare_top_k,
    compare_views,
    evaluate,
    evaluate_views,
    read_predicted,
    read_scores,
)
from cifar_utils.models import build_model

NAMES = ("cat", "dog", "frog")
BY_HAND = Scores(
    NAMES,
    np.array([0, 0, 1, 2]),
    np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0]], np.float32),
)


@st.composite
def some_scores(draw):
    n, k = draw(st.integers(1, 30)), draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Rounding makes ties, which top-k has to break as the predictions do.
    weights = np.round(rng.random((n, k)), draw(st.integers(1, 3))) + 0.1
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    names = tuple(f"class {i}" for i in range(k))
    return Scores(names, rng.integers(0, k, n), probabilities.astype(np.float32))


def test_scores_counted_by_hand():
    assert BY_HAND.predictions.tolist() == [0, 1, 1, 0]
    assert (BY_HAND.n, BY_HAND.top1) == (4, 0.5)
    assert [BY_HAND.top_k(k) for k in (1, 2, 3, 5)] == [0.5, 0.75, 1.0, 1.0]
    assert BY_HAND.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert BY_HAND.per_class == {"cat": 0.5, "dog": 1.0, "frog": 0.0}
    assert BY_HAND.hits(1) == 2


def test_loss_is_the_mean_log_and_finite_where_a_probability_is_zero():
    expected = -(np.log(0.5) + np.log(0.1) + np.log(0.5) + np.log(np.finfo(np.float32).tiny)) / 4
    assert BY_HAND.loss == pytest.approx(expected, rel=1e-6)


def test_calibration_counted_by_hand():
    # Three images at 0.5, two of them right; one at 0.8, wrong.
    assert BY_HAND.calibration_error == pytest.approx((abs(2 - 1.5) + abs(0 - 0.8)) / 4, rel=1e-6)


@given(some_scores())
def test_calibration_is_a_fraction_of_all_images(scores):
    bins = scores.confidence_bins
    assert (len(bins), bins["n"].sum(), bins["hits"].sum()) == (15, scores.n, scores.hits())
    full = bins[bins["n"] > 0]
    assert (full["confidence"] > full["low"] - 1e-6).all()
    assert (full["confidence"] < full["high"] + 1e-6).all()
    sure = scores.probabilities.max(axis=1).mean()
    assert abs(sure - scores.top1) - 1e-6 <= scores.calibration_error <= 1


def test_dict_holds_plain_fractions():
    kept = BY_HAND.to_dict()
    assert kept.keys() == {
        "n", "loss", "top1", "top1_interval", "top5", "top5_interval", "calibration_error",
        "per_class", "top_k", "most_frequent",
    }  # fmt: skip
    assert all(type(kept[key]) is float for key in ("loss", "top1", "top5"))
    assert kept["top1_interval"] == list(BY_HAND.top_k_interval(1))
    assert kept["top_k"] == [BY_HAND.top_k(k) for k in (1, 2, 3)]
    assert kept["most_frequent"] == 0.5


def test_words_give_intervals_and_leave_out_a_trivial_top5():
    assert repr(BY_HAND).startswith("top-1 50.0% (95% interval 15.0 to 85.0%), loss ")
    assert "n = 4" in BY_HAND._repr_html_()
    assert "top-5" not in repr(BY_HAND)
    ten = Scores(tuple("abcdefghij"), np.arange(10), np.eye(10, dtype=np.float32))
    assert "top-5 100.0%" in repr(ten)


def test_a_split_without_images_can_not_be_evaluated(digits, refused):
    none = Split(digits.test.images[:0], digits.test.labels[:0])
    model = build_model("resnet20", digits)
    for classify in (evaluate, evaluate_views):
        with refused("the split has no images to classify"):
            classify(model, none, digits.class_names)


def test_classes_without_images_have_no_accuracy():
    scores = Scores(NAMES, np.array([0]), np.array([[0.2, 0.7, 0.1]], np.float32))
    assert scores.per_class == {"cat": 0.0}


@pytest.mark.parametrize(("images", "shape"), [(4, (2, 3)), (4, (4, 2)), (4, (4,)), (0, (0, 3))])
def test_shapes_that_do_not_fit_are_refused(images, shape):
    with pytest.raises(ValueError, match="shape"):
        Scores(NAMES, BY_HAND.labels[:images], np.ones(shape, np.float32))


@given(some_scores())
def test_scores_agree_with_one_another(scores):
    k = len(scores.class_names)
    tops = [scores.top_k(i) for i in range(1, k + 3)]
    assert tops == sorted(tops)
    assert tops[k - 1 :] == [1.0, 1.0, 1.0]
    assert scores.top1 == np.mean(scores.predictions == scores.labels)
    for k in (1, 5):
        low, high = scores.top_k_interval(k)
        assert 0 <= low <= scores.top_k(k) + 1e-12
        assert scores.top_k(k) - 1e-12 <= high <= 1
    assert scores.confusion.sum() == scores.n
    assert scores.confusion.trace() == scores.hits(1)
    counts = dict(zip(scores.class_names, scores.confusion.sum(axis=1), strict=True))
    weighted = sum(share * counts[name] for name, share in scores.per_class.items())
    assert weighted / scores.n == pytest.approx(scores.top1)


@settings(max_examples=20)
@given(some_scores())
def test_scores_read_are_the_ones_written(folder, scores):
    path = scores.write(folder)
    read = read_scores(path)
    assert path == folder / "predictions.npz"
    assert read.class_names == scores.class_names
    for name in ("labels", "probabilities"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scores, name), strict=True)
    assert read.to_dict() == scores.to_dict()
    assert {file.name for file in folder.iterdir()} == {"predictions.npz", "predicted.npz"}
    predicted = read_predicted(folder / "predicted.npz")
    np.testing.assert_array_equal(predicted.classes, scores.predictions)
    np.testing.assert_array_equal(predicted.labels, scores.labels)
    assert predicted.right.mean() == pytest.approx(scores.top1)
    np.testing.assert_allclose(predicted.probabilities, scores.probabilities.max(1), atol=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scores")


def test_predictions_that_cannot_be_read_are_one_line(refused, tmp_path):
    path = tmp_path / "predictions.npz"
    with refused("can't be read"):
        read_scores(path)
    whole = BY_HAND.write(tmp_path).read_bytes()
    np.savez(tmp_path / "other.npz", labels=BY_HAND.labels)
    other = (tmp_path / "other.npz").read_bytes()
    objects = io.BytesIO()
    np.save(objects, np.array([object()]), allow_pickle=True)
    middle = len(whole) // 4
    cut = whole[:middle] + b"\0" * 40 + whole[middle + 40 :]
    for content in (b"", b"text", whole[:-30], cut, other, objects.getvalue()):
        path.write_bytes(content)
        with refused("predictions.npz can't be read (", "run its"):
            read_scores(path)


class Logits:
    """Stands for a model: gives the logits it was made of."""

    layers = ()

    def __init__(self, logits):
        self.logits = np.asarray(logits)

    def predict(self, images, batch_size, verbose):
        assert verbose == 0
        return self.logits[: len(images)]


def split_of(n):
    return Split(np.zeros((n, 4, 4, 3), np.uint8), np.arange(n) % 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_named(bad):
    with pytest.raises(FloatingPointError, match=r"not finite for 1 of 2 images.*lower learning"):
        evaluate(Logits([[1.0, 2.0, bad], [1.0, 2.0, 3.0]]), split_of(2), NAMES)


def test_large_logits_do_not_overflow():
    scores = evaluate(Logits([[9e4, 0.0, 0.0]]), split_of(1), NAMES)
    assert (scores.top1, scores.loss) == (1.0, 0.0)


class LooksAtOnePixel:
    """Two logits: the pixel at row 1, column 1 of an image, and a half."""

    layers = ()

    def predict(self, images, **_):
        pixel = images[:, 1, 1, 0].astype(float)
        return np.stack([pixel, np.full_like(pixel, 0.5)], axis=1)


def test_views_are_the_image_its_mirror_and_both_shifted_along_the_diagonal():
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(3, axis=-1)
    split, names = Split(image, np.array([0])), ("a", "b")
    by_views = evaluate_views(LooksAtOnePixel(), split, names, unsure=1)
    # The image holds 5 there and its mirror 6; shifted, they hold 0 and 1, then 10 and 11.
    expected = {1: 5, 6: (5.5 + (0.5 + 10.5) / 2) / 2}
    for views, logit in expected.items():
        odds = np.log(np.divide(*by_views[views].probabilities[0].astype(float)))
        assert odds == pytest.approx(logit - 0.5, rel=1e-3)
    plain = evaluate(LooksAtOnePixel(), split, names)
    assert np.array_equal(by_views[1].probabilities, plain.probabilities)
    table = compare_views(by_views)
    assert list(table.index) == ["1 view", "6 views"]
    assert set(table["top-1"]) == {"100.00% (20.7 to 100.0%)"}


@pytest.mark.parametrize(("unsure", "moved"), [(0, 0), (0.1, 1), (0.5, 5), (1, 10)])
def test_the_least_certain_images_alone_have_six_views(unsure, moved):
    images = np.zeros((10, 4, 4, 3), np.uint8)
    images[:, 1, 1] = np.arange(10)[::-1, None] + 1  # the lower the less certain, and 0 all around
    split = Split(images, np.zeros(10, int))
    one, six = evaluate_views(LooksAtOnePixel(), split, ("a", "b"), unsure).values()
    differ = (one.probabilities != six.probabilities).any(axis=1)
    assert list(np.flatnonzero(differ)) == list(range(10))[10 - moved :]


def test_a_share_of_unsure_images_is_one(refused):
    with refused("unsure is 1.5; it must be"):
        evaluate_views(LooksAtOnePixel(), split_of(2), ("a", "b"), 1.5)


def test_top_k_side_by_side():
    table = compare_top_k({"by hand": BY_HAND})
    assert table.loc["by hand", "top-1"] == "50.0% (15.0 to 85.0%)"
    assert table.loc["by hand", "top-2"].startswith("75.0% (")
    assert table.loc["by hand", "94% reached at"] == "top-3"
    assert "top-3" not in table, "of three classes it is always 100%"
