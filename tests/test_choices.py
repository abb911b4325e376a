import inspect
import math
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from cifar_utils.choices import (
    REGISTRIES,
    Call,
    Parameter,
    check_calls,
    check_parameters,
    parameters_in,
    parse_call,
    parse_calls,
    parse_parameters,
    read_registry,
)
from cifar_utils.errors import InputError, known_name
from cifar_utils.models import ARCHITECTURES, AUGMENTATIONS
from cifar_utils.training import OPTIMIZERS, SCHEDULES
from cifar_utils.tuning import RANGES

CELL = """\
epochs: int = 20  # at least 1: passes over the training set
rate: float = 1e-2  # above 0, below 1: share of it

# A line of its own says more.
method: str = "sgd # é"  # sgd # é | adam: how weights follow
limit: int = None  # at least 1: images to use; None for all
shuffle: bool = True  # whether to; no choice of words: two
note: str = ""  # anything
mode: Literal["fast", "slow"] = "fast"  # how fast
count: int | None = 3  # above 0: how many"""
KNOWN = parse_parameters(CELL)


def crop(padding: int = 4, mode: str = "constant", scale: float = 1.0, again: bool = False):
    """Stands for a registered function; nothing runs it but a test."""
    return padding, mode, scale, again


REGISTRY = {"crop": crop, "flip": lambda direction="horizontal": direction}


def one_line(error):
    message = str(error.value)
    assert len(message.splitlines()) == 1, message
    return message


def unless_refused(function, *arguments):
    """What a function gives, or its InputError, which must be of one line."""
    try:
        return function(*arguments)
    except InputError as refusal:
        if len(str(refusal).splitlines()) != 1:
            raise
        return refusal


def test_a_cell_is_read_with_types_defaults_choices_bounds_and_meanings():
    assert KNOWN["epochs"] == Parameter(
        "epochs", "int", 20, "passes over the training set", bounds=(("at least", 1),)
    )
    assert KNOWN["rate"].bounds == (("above", 0), ("below", 1))
    assert KNOWN["method"].choices == ("sgd # é", "adam")
    assert KNOWN["method"].meaning == "how weights follow"
    assert KNOWN["shuffle"].meaning == "whether to; no choice of words: two"
    assert [row.allowed for row in KNOWN.values()] == [
        "at least 1", "above 0, below 1", "sgd # é | adam", "at least 1", "", "", "fast | slow",
        "above 0",
    ]  # fmt: skip
    assert {name: row.default for name, row in KNOWN.items()} == {
        "epochs": 20, "rate": 0.01, "method": "sgd # é", "limit": None, "shuffle": True,
        "note": "", "mode": "fast", "count": 3,
    }  # fmt: skip


def test_numbers_may_be_a_choice_too():
    (views,) = parse_parameters("views: int = 6  # 1 | 2 | 6: of each image").values()
    assert [views.read(value) for value in (1, "2", 6)] == [1, 2, 6]
    with pytest.raises(InputError, match="views is '3'; known: 1, 2, 6"):
        views.check(3)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("epochs = 3  # untyped", "epochs = 3"),
        ("epochs: int = 3", "not of the form"),
        ("epochs: int = 3  #", "not of the form"),
        ("epochs: int  # no default", "not of the form"),
        ("epochs: int = 2 * 3  # an expression", "not of the form"),
        ("a.epochs: int = 3  # of something", "not of the form"),
        ("epochs: list[int] = 3  # another type", "not of the form"),
        ("epochs: complex = 3  # another type", "with a type of int, float, str, bool"),
        ("import os  # a statement", "not of the form"),
        ("%matplotlib inline", "line 2"),
    ],
)
def test_a_line_that_is_not_typed_and_commented_is_named(line, word):
    with pytest.raises(InputError) as error:
        parse_parameters(f"seed: int = 0  # fine\n{line}", where="a cell")
    assert word in one_line(error)
    assert "a cell" in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": "3"}, 3),
        ({"epochs": 3}, 3),
        ({"rate": "0.5"}, 0.5),
        ({"rate": "1e-3"}, 0.001),
        ({"limit": "None"}, None),
        ({"limit": "none"}, None),
        ({"limit": "7"}, 7),
        ({"shuffle": "false"}, False),
        ({"shuffle": "True"}, True),
        ({"method": "adam(beta_1=0.5)"}, "adam(beta_1=0.5)"),
        ({"note": "None"}, "None"),
        ({"note": "3"}, "3"),
        ({"mode": "slow"}, "slow"),
        ({"count": "none"}, None),
    ],
)
def test_values_are_taken_as_text_or_as_they_are(given, expected):
    values = check_parameters(KNOWN, given)
    (name,) = given
    assert values[name] == expected
    assert type(values[name]) is type(expected)
    assert values == {name: row.default for name, row in KNOWN.items()} | {name: expected}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", "many", "whole number"),
        ("epochs", "2.5", "whole number"),
        ("epochs", True, "whole number"),
        ("epochs", None, "whole number"),
        ("epochs", "{[]: 1}", "whole number"),
        ("epochs", "(" * 10_000, "whole number"),
        ("epochs", "-" * 10_000 + "1", "whole number"),
        ("epochs", "1\x00", "whole number"),
        ("epochs", "3\n4", "whole number"),
        ("epochs", 0, "at least 1"),
        ("epochs", "-3", "at least 1"),
        ("limit", 0, "at least 1"),
        ("limit", "some", "whole number or None"),
        ("rate", "fast", "a number"),
        ("rate", "nan", "a number"),
        ("rate", math.nan, "a number"),
        ("rate", "inf", "a number"),
        ("rate", 10**400, "a number"),
        ("rate", 0, "above 0, below 1"),
        ("rate", "1", "above 0, below 1"),
        ("shuffle", 1, "True or False"),
        ("shuffle", "yes", "True or False"),
        ("method", 3, "text"),
        ("method", "adan", "did you mean 'adam'?"),
        ("mode", "slo", "did you mean 'slow'?"),
        ("count", 0, "above 0"),
        ("count", "x", "whole number or None"),
        ("method", "sgdd(momentum=0.9)", "known: sgd # é, adam"),
    ],
)
def test_a_bad_value_is_one_line_with_the_thing_the_value_and_the_way_out(name, value, words):
    with pytest.raises(InputError) as error:
        check_parameters(KNOWN, {name: value})
    message = one_line(error)
    assert message.startswith(f"{name} is ")
    assert repr(value).strip("'")[:4] in message
    assert words in message


def test_an_unknown_parameter_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match=r"^unknown parameter 'epoch'; did you mean 'epochs'\?"):
        check_parameters(KNOWN, {"epoch": 3})
    with pytest.raises(InputError, match=r"^unknown thing 'xyz'; known: ab, cd$"):
        known_name("thing", "xyz", ["ab", "cd"])
    with pytest.raises(InputError, match="unknown thing 3"):
        known_name("thing", 3, ["ab", "cd"])


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@settings(deadline=None)
@given(st.sampled_from(list(KNOWN.values())), SCALARS | st.lists(SCALARS, max_size=2))
@example(KNOWN["epochs"], "9" * 5000)
def test_any_value_is_either_of_the_type_and_allowed_or_refused_in_a_line(row, value):
    checked = unless_refused(row.read, value)
    if isinstance(checked, InputError):
        return
    if checked is None:
        assert row.optional
        return
    assert type(checked).__name__ == row.type
    assert row.check(checked) == checked
    if row.name == "rate":
        assert 0 < checked < 1


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("crop", {}),
        ("crop()", {}),
        (" crop( 2 ) ", {"padding": 2}),
        ("crop(2, 'reflect', scale=3)", {"padding": 2, "mode": "reflect", "scale": 3.0}),
        ("crop(again=True)", {"again": True}),
    ],
)
def test_a_call_is_read_and_makes_the_call(text, options):
    call = parse_call("augmentation", text, REGISTRY)
    assert call == Call("crop", crop, options)
    assert call() == crop(**options)
    assert parse_call("augmentation", str(call), REGISTRY) == call


def test_the_caller_s_own_arguments_come_first_and_are_no_options():
    registry = {"step": lambda rate, steps, every=10: (rate, steps, every)}
    assert parse_call("schedule", "step(3)", registry, given=2)(0.1, 7) == (0.1, 7, 3)
    with pytest.raises(InputError, match="unknown option of schedule 'step' 'steps'"):
        parse_call("schedule", "step(steps=3)", registry, given=2)


def test_calls_are_read_in_order():
    calls = parse_calls("augmentation", "crop(2), flip,crop", REGISTRY)
    assert repr(calls) == "[crop(padding=2), flip, crop]"
    assert parse_calls("augmentation", "", REGISTRY) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crp(2)", "unknown augmentation 'crp'; did you mean 'crop'?"),
        ("crop(pading=2)", "did you mean 'padding'?"),
        ("crop(2, padding=3)", "its options: padding, mode, scale, again"),
        ("crop(padding=2, padding=3)", "given twice"),
        ("crop(1, 'a', 1.0, True, 5)", "too many"),
        ("crop(2.5)", "padding in augmentation 'crop(2.5)' is 2.5; it takes a whole number"),
        ("crop(mode=3)", "is 3; it takes text"),
        ("crop(scale='wide')", "is 'wide'; it takes a number"),
        ("crop(scale=1e999)", "is inf; it takes a number"),
        ("crop(again=2)", "it takes True or False"),
        ("crop(", "not of the form 'name' or 'name(option=value)'"),
        ("crop; flip", "not of the form"),
        ("crop\x00", "not of the form"),
        ("'crop'", "not of the form"),
        ("crop.x", "not of the form"),
        ("crop(2)(3)", "not of the form"),
        ("a] + [b", "not of the form"),
        ("x for x in y", "not of the form"),
        ("(" * 1000, "not of the form"),
        ("crop(*[2])", "no plain value"),
        ("crop(**{'padding': 2})", "unknown option"),
        ("crop(2 * 3)", "no plain value"),
        ("crop({[]: 1})", "no plain value"),
    ],
)
def test_text_that_is_no_call_is_one_line(text, words):
    with pytest.raises(InputError) as error:
        parse_calls("augmentation", text, REGISTRY)
    assert words in one_line(error)


@pytest.mark.parametrize("text", ["", "crop, crop"])
def test_one_call_is_neither_none_nor_two(text):
    with pytest.raises(InputError, match="exactly one of: crop, flip") as error:
        parse_call("augmentation", text, REGISTRY)
    assert repr(text) in one_line(error)


@pytest.mark.filterwarnings("ignore:invalid")  # Python's own, at an odd literal
@settings(max_examples=500, deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from(
            [*"()[]{},=*.:'\"\\ \n#;", "crop", "flip", "padding", "2", "None", "for", "x", "lambda"]
        ),
        max_size=12,
    ).map("".join)
)
def test_any_text_is_calls_of_the_registry_or_refused_in_a_line(text):
    calls = unless_refused(parse_calls, "augmentation", text, REGISTRY)
    if isinstance(calls, InputError):
        return
    assert all(call.function is REGISTRY[call.name] for call in calls)
    assert parse_calls("augmentation", ", ".join(map(str, calls)), REGISTRY) == calls


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path({0!r}).touch()",
        "open({0!r}, 'w')",
        "(lambda: open({0!r}, 'w'))()",
        "[open({0!r}, 'w') for _ in 'a']",
        "crop(open({0!r}, 'w'))",
        "crop(padding=open({0!r}, 'w'))",
        "crop(f'{{open({0!r}, \"w\")}}')",
        "crop(2); open({0!r}, 'w')",
        "crop(2)] + [open({0!r}, 'w')",
    ],
)
def test_hostile_text_is_never_evaluated(tmp_path, text):
    file = tmp_path / "made"
    text = text.format(str(file))
    for row in KNOWN.values():
        if row.name == "note":
            assert row.read(text) == text
        else:
            with pytest.raises(InputError):
                row.read(text)
    with pytest.raises(InputError):
        parse_calls("augmentation", text, REGISTRY)
    with pytest.raises(InputError):
        parse_parameters(f"epochs: int = {text}  # hostile")
    assert not file.exists()


def run_as_cells(*sources):
    """The variables of a notebook of these cells."""
    namespace = {"In": ["", *sources], "Literal": Literal}
    for source in sources:
        exec(compile(source, "cell", "exec", dont_inherit=True), namespace)
    return namespace


def test_the_values_in_a_notebook_are_those_of_its_annotated_names():
    namespace = run_as_cells(CELL, "other = 3\nepochs = 5\nrate = 0")
    defaults = {name: row.default for name, row in KNOWN.items()}
    with pytest.raises(InputError, match=r"^rate is 0.0; it must be above 0, below 1$"):
        parameters_in(namespace)
    del namespace["In"]  # in a script, no comment is known
    assert parameters_in(namespace) == defaults | {"epochs": 5, "rate": 0}
    namespace["epochs"] = "5"
    with pytest.raises(InputError, match=r"^epochs is '5'; it takes a whole number"):
        parameters_in(namespace)


def test_a_function_goes_by_its_name():
    cell = "architecture: str = 'cifarnet'  # the network"
    namespace = run_as_cells(cell, "def mine(x, classes): pass\narchitecture = mine")
    assert parameters_in(namespace) == {"architecture": "mine"}


def test_a_notebook_shows_an_input_error_as_its_line(capsys):
    InteractiveShell().run_cell("from cifar_utils.errors import *\nraise InputError('no weights')")
    assert capsys.readouterr().out == "InputError: no weights\n"


# Registries, read without Keras

REAL = {
    "architecture": ARCHITECTURES, "augmentation": AUGMENTATIONS, "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES, "space": RANGES,
}  # fmt: skip


@pytest.mark.parametrize("kind", REGISTRIES)
def test_a_registry_is_read_as_it_is_imported(kind):
    read, given = read_registry(kind), REGISTRIES[kind][2]
    assert list(read) == list(REAL[kind])
    for name, real in REAL[kind].items():
        options = list(inspect.signature(read[name]).parameters.values())
        assert [(option.name, option.default) for option in options] == [
            (option.name, option.default) for option in inspect.signature(real).parameters.values()
        ]
        assert inspect.getdoc(read[name]) == inspect.getdoc(real)
        for option in options[given:]:
            if option.default not in (option.empty, None):
                assert type(option.default).__name__ == option.annotation, (name, option)


@pytest.mark.parametrize("kind", sorted(REGISTRIES.keys() - {"architecture"}))
def test_what_is_refused_without_keras_is_refused_with_it(kind):
    given = REGISTRIES[kind][2]
    for name, function in read_registry(kind).items():
        options = [*inspect.signature(function).parameters.values()][given:]
        needed = {option.name: 1 + i for i, option in enumerate(options[:2]) if kind == "space"}
        for option in options:
            for value in (-1, 0, 1, 2, "nonsense"):
                call = Call(name, None, needed | {option.name: value})
                if isinstance(unless_refused(check_calls, kind, str(call)), InputError):
                    checked = unless_refused(parse_call, kind, str(call), REAL[kind], given)
                    if isinstance(checked, Call):
                        with pytest.raises(InputError):
                            checked(*[1] * given)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("augmentation", "flipp", "unknown augmentation 'flipp'; did you mean 'flip'?"),
        ("augmentation", "flip('horizontl')", "did you mean 'horizontal'?"),
        ("augmentations", "none; crop(0)", "crop padding is 0"),
        ("architecture", "resnet20(dropuot=0.5)", "did you mean 'dropout'?"),
        ("schedule", "cosine(warmup=2.0", "is not of the form"),
        ("schedule", "cosine(warmup=2.0)", "cosine warmup is 2.0"),
        ("schedules", "linear; step(every=0)", "every 0"),
        ("schedule", "linear, step", "exactly one"),
        ("optimizer", "adamw(default_decay=-1.0)", "default_decay is -1.0"),
        ("space", "width(8)", "missing a required argument: 'high'"),
    ],
)
def test_a_parameter_that_is_a_call_is_checked_as_one(name, value, words):
    with pytest.raises(InputError) as error:
        Parameter(name, "str", "", "").check(value)
    assert words in one_line(error)


def test_a_notebook_s_own_choices_need_no_registry():
    (row,) = parse_parameters("optimizer: str = 'sgd'  # sgd | mine: how").values()
    assert row.check("mine(any=1)") == "mine(any=1)"
    with pytest.raises(InputError, match="did you mean 'momentum'"):
        row.check("sgd(momentun=1)")
