import pytest

from cifar_utils.text import compact


@pytest.mark.parametrize(
    ("number", "words"),
    [
        *((0, "0"), (999, "999"), (1000, "1 k"), (87_316_426, "87.3 M")),
        *((999_499, "999 k"), (999_500, "1 M"), (999_999_999, "1 G")),  # the next unit, rounded
    ],
)
def test_a_count_has_three_digits(number, words):
    assert compact(number) == words
