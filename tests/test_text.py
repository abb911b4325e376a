import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from cifar_utils.text import Told, as_given, compact, first_three, listed, percent


def test_a_notebook_shows_the_names_in_a_text_as_they_are():
    told = Told("“resnet20” of folder:/_old_/<b>é.\n\nTested: $x$ *now*")
    # As IPython displays it.
    html = DisplayFormatter().format(told)[0]["text/html"]
    shown = [paragraph.get_text() for paragraph in BeautifulSoup(html, "html.parser")("p")]
    assert shown == told.split("\n\n")


@pytest.mark.parametrize(
    ("share", "words"), [(0.8865, "88.7%"), (0.9035, "90.4%"), (0.88649, "88.6%"), (1.0, "100.0%")]
)
def test_halves_of_a_percentage_round_up(share, words):
    assert percent(share) == words


@pytest.mark.parametrize(("share", "words"), [(0.7, "70%"), (0.867, "86.70%"), (0.9401, "94.01%")])
def test_reported_percentages_have_no_decimals_that_nobody_gave(share, words):
    assert as_given(share) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        *((0, "0"), (999, "999"), (1000, "1 k"), (87_316_426, "87.3 M")),
        *((999_499, "999 k"), (999_500, "1 M"), (999_999_999, "1 G")),  # the next unit, rounded
    ],
)
def test_a_count_has_three_digits(number, words):
    assert compact(number) == words


@pytest.mark.parametrize(
    ("items", "words"),
    [
        *(("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")),
        *(("abcd", "a, b, c and d"), ("abcde", "a, b, c and 2 more")),  # never one more
    ],
)
def test_a_long_list_says_how_many_it_leaves_out(items, words):
    assert listed(first_three(list(items))) == words
