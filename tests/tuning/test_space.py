import pytest

from cifar_utils.parameters import InputError
from cifar_utils.tuning import RANGES, parse_space


def test_a_space_is_read_from_text():
    space = parse_space("learning_rate(0.01, 1), width(8, 32, step=8), dropout(0, 0.5)")
    assert list(map(repr, space.values())) == [
        "learning_rate from 0.01 to 1, on a logarithmic scale",
        "width from 8 to 32, in steps of 8",
        "dropout from 0 to 0.5",
    ]
    assert (space["width"].low, space["width"].high, space["width"].step) == (8, 32, 8)
    assert parse_space("weight_decay(1e-5, 1e-2)")["weight_decay"].log


def test_values_are_those_that_a_table_shows():
    space = parse_space("learning_rate(0.01, 1), width(8, 32)")
    assert space["learning_rate"].value(0.012345678) == 0.0123
    assert space["learning_rate"].value(0.012345679104328156) == 0.0123
    assert repr(space["width"].value(17.0)) == "17"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "takes one or more of learning_rate, weight_decay, dropout, width"),
        ("width(8, 16), width(16, 32)", "once"),
        ("width", "width(low, high)"),
        ("width(8)", "lacks a bound"),
        ("width(8, 8)", "is empty"),
        ("width(16, 8)", "lower bound first"),
        ("width(0, 8)", "from 1 on"),
        ("width(8, 16, 0)", "from 1 on"),
        ("width(8.5, 16)", "a whole number"),
        ("wdith(8, 16)", "did you mean 'width'?"),
        ("learning_rate(0, 1)", "bounds above 0"),
        ("weight_decay(-1, 1)", "bounds above 0"),
        ("dropout(0, 1)", "no range in [0, 1)"),
        ("dropout(-0.1, 0.5)", "no range in [0, 1)"),
        ("dropout('a', 0.5)", "a number"),
        ("dropout(0, 0.5", "is not of the form"),
    ],
)
def test_a_space_that_is_none_is_one_line(text, words):
    with pytest.raises(InputError) as error:
        parse_space(text)
    assert words in str(error.value)
    assert "space" in str(error.value)
    assert "\n" not in str(error.value)


def test_every_range_is_named_as_it_is_written():
    assert all(
        function(1e-3, 0.5).name == name for name, function in RANGES.items() if name != "width"
    )
    assert RANGES["width"](1, 2).name == "width"
