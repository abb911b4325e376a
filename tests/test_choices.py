import functools
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
    Registry,
    check_parameters,
    describe_option,
    parameters_in,
    parse_call,
    parse_calls,
    parse_parameters,
)
from cifar_utils.errors import InputError, check_bounds, known_name

CELL = """\
epochs: int = 20  # at least 1: passes over the training set
rate: float = 1e-2  # above 0, below 1: share of it

# A line of its own says more.
method: str = "sgd # é"  # sgd # é | adam: how weights follow
limit: int = None  # at least 1: images to use; None for all
shuffle: bool = True  # whether to; no choice of words: two
note: str = ""  # anything
mode: Literal["fast", "slow"] = "fast"  # how fast
count: int | None = 3  # above 0: how many
views: int = 6  # 1 | 2 | 6: of each image
factor: float = 1.0  # 1 | 2: how much more
place: str = "here"  # here | folder:/path: where they are
ending: Literal["", "s"] = ""  # what follows"""
KNOWN = parse_parameters(CELL)
DEFAULTS = {name: row.default for name, row in KNOWN.items()}


def crop(padding: int = 4, mode: str = "constant", scale: float = 1.0, again: bool = False):
    """Stands for a registered function; nothing runs it but a test."""
    return padding, mode, scale, again


@pytest.fixture(autouse=True, scope="module")
def things():
    """A registry of the test's own, of the kind "thing"."""
    registry = Registry({}, several=True)
    registry |= {"crop": crop, "flip": lambda direction="horizontal": direction}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REGISTRIES, "thing", registry)
        yield registry


def refused(function, *arguments):
    """The one line of an InputError."""
    with pytest.raises(InputError) as error:
        function(*arguments)
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
        "epochs", "int", 20, "passes over the training set", bounds="at least 1"
    )
    assert KNOWN["method"].choices == ("sgd # é", "adam")
    assert KNOWN["method"].meaning == "how weights follow"
    assert KNOWN["shuffle"].meaning == "whether to; no choice of words: two"
    assert [row.allowed for row in KNOWN.values()] == [
        "at least 1", "above 0, below 1", "sgd # é | adam", "at least 1", "", "", "fast | slow",
        "above 0", "1 | 2 | 6", "1 | 2", "here | folder:/path", " | s",
    ]  # fmt: skip
    assert DEFAULTS == {
        "epochs": 20, "rate": 0.01, "method": "sgd # é", "limit": None, "shuffle": True,
        "note": "", "mode": "fast", "count": 3, "views": 6, "factor": 1.0, "place": "here",
        "ending": "",
    }  # fmt: skip


def test_bounds_are_of_numbers_alone():
    known = parse_parameters('names: str = "cat"  # at least 1 name: whom to look for')
    assert check_parameters(known, {"names": "dog"}) == {"names": "dog"}
    assert known["names"].meaning == "at least 1 name: whom to look for"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("epochs = 3  # untyped", "epochs = 3"),
        ("epochs: int = 3", "not of the form"),
        ("epochs: int = 2 * 3  # an expression", "not of the form"),
        ("epochs: complex = 3  # another type", "with a type of int, float, str, bool"),
        ("import os  # a statement", "not of the form"),
        ("%matplotlib inline", "line 2"),
    ],
)
def test_a_line_that_is_not_typed_and_commented_is_named(line, word):
    message = refused(parse_parameters, f"seed: int = 0  # fine\n{line}", "a cell")
    assert word in message
    assert "a cell" in message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": "3"}, 3),
        ({"rate": "1e-3"}, 0.001),
        ({"limit": "None"}, None),
        ({"count": "none"}, None),
        ({"shuffle": "false"}, False),
        ({"factor": "2"}, 2.0),
        ({"shuffle": "True"}, True),
        ({"place": "folder:/a/b:c"}, "folder:/a/b:c"),
        ({"note": "None"}, "None"),
        ({"note": "3"}, "3"),
        ({"views": "2"}, 2),
    ],
)
def test_values_are_taken_as_text_or_as_they_are(given, expected):
    (name,) = given
    for value in (given[name], expected):
        values = check_parameters(KNOWN, {name: value})
        assert type(values[name]) is type(expected)
        assert values == DEFAULTS | {name: expected}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", "2.5", "whole number"),
        ("epochs", "(" * 10_000, "whole number"),
        ("epochs", "3\n4", "whole number"),
        ("epochs", "-3", "at least 1"),
        ("limit", "some", "whole number or None"),
        ("rate", "nan", "a number"),
        ("rate", 10**400, "a number"),
        ("shuffle", 1, "True or False"),
        ("method", 3, "text"),
        ("method", "adan", "did you mean 'adam'?"),
        ("method", "adam(0.5)", "did you mean 'adam'?"),
        ("views", 3, "known: 1, 2, 6"),
        ("factor", 3.0, "known: 1, 2"),
        ("place", "folder:", "known: here, folder:/path"),
        ("place", "here:/path", "known: here, folder:/path"),
        ("ending", "z", "known: , s"),
    ],
)
def test_a_bad_value_is_one_line_with_the_thing_the_value_and_the_way_out(name, value, words):
    message = refused(check_parameters, KNOWN, {name: value})
    assert message.startswith(f"{name} is ")
    assert repr(value).strip("'")[:4] in message
    assert words in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("architectures", "resnet20"),
        ("patience", 2),
        ("schedule", "plateau(factor=0.5)"),
        ("target_accuracy", 0.9),
    ],
)
def test_what_goes_by_validation_images_is_refused_without_them(name, value):
    source = (
        "validation_fraction: float = 0.0  # at least 0, below 1: share held out\n"
        f"{name}: {type(value).__name__} = None  # what goes by them"
    )
    known = parse_parameters(source)
    words = f"{name} {value!r} goes by validation images, and there are none"
    assert refused(check_parameters, known, {name: value}).startswith(words)
    namespace = run_as_cells(source, f"{name} = {value!r}")
    assert refused(parameters_in, namespace).startswith(words)
    given = {name: value, "validation_fraction": 0.1}
    assert check_parameters(known, given) == given
    assert check_parameters(known, {})[name] is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"architectures": "resnet56;"}, "architectures has nothing between two semicolons"),
        ({"architectures": "resnet56; resnet56()"}, "architectures has resnet56 twice"),
        ({"augmentations": "none; none"}, "augmentations has none twice; leave one out"),
        (
            {"optimizer": "muon(0.9)", "fine_tune_layers": 2},
            "optimizer muon does not fit fine_tune",
        ),
        (
            {"optimizer": " muon(0.9)", "fine_tune_layers": 2},
            "optimizer muon does not fit fine_tune",
        ),
        ({"space": "learning_rate(0.1, 1), width(8, 16)"}, "space for resnet20 is 'width'; known"),
    ],
)
def test_parameters_that_do_not_fit_each_other_are_refused(given, words):
    known = parse_parameters(
        'architecture: str = "resnet20"  # the network\n'
        "architectures: str = None  # others\n"
        "augmentations: str = None  # what is compared\n"
        'schedule: str = "constant"  # the course\n'
        "schedules: str = None  # other courses\n"
        "learning_rate: float = 0.1  # above 0: its peak\n"
        "optimizer: str = 'adam'  # what trains it\n"
        "fine_tune_layers: int = 0  # at least 0: layers of the base\n"
        "space: str = None  # what is tuned"
    )
    assert refused(check_parameters, known, given).startswith(words)
    # The run's network may be replaced by the reader's own, which then stands beside resnet20.
    fine = {"architectures": "resnet56(residual=False); resnet20", "space": "dropout(0, 0.5)"}
    assert check_parameters(known, fine).items() >= fine.items()


def test_an_unknown_name_is_refused_with_the_nearest_one():
    words = "unknown parameter 'epoch'; did you mean 'epochs'?"
    assert refused(check_parameters, KNOWN, {"epoch": 3}).startswith(words)
    assert refused(known_name, "thing is", 3, ["ab", "cd"]) == "thing is 3; known: ab, cd"
    assert refused(known_name, "thing is", 3, []) == "thing is 3; known: none"


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ("at least 1", (1, 7.5), (0.999, -1, math.nan)),
        ("above 0, at most 1", (1e-9, 1), (0, 1.001)),
        ("at least -2e+3, below 1e-05", (-2000, 9e-6), (-2001, 1e-5)),
    ],
)
def test_numbers_are_held_to_bounds_in_words(bounds, inside, outside):
    for value in inside:
        check_bounds("it", value, bounds)
    for value in outside:
        assert refused(check_bounds, "it", value, bounds) == f"it is {value!r}; it must be {bounds}"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


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
        (" crop( 2 ) ", {"padding": 2}),
        ("crop(2, 'reflect', scale=3)", {"padding": 2, "mode": "reflect", "scale": 3.0}),
        ("crop(again=True)", {"again": True}),
        ("crop()", {}),
    ],
)
def test_a_call_is_read_and_makes_the_call(things, text, options):
    call = parse_call("thing", text)
    assert call == Call("crop", things, options)
    assert call.function is crop
    assert call() == crop(**options)
    assert parse_call("thing", str(call)) == call


def test_the_caller_s_own_arguments_come_first_and_are_no_options(monkeypatch):
    registry = Registry({}, given=2)
    registry["step"] = lambda rate, steps, every=10: (rate, steps, every)
    monkeypatch.setitem(REGISTRIES, "pace", registry)
    assert parse_call("pace", "step(3)")(0.1, 7) == (0.1, 7, 3)
    assert "option of pace step is 'steps'" in refused(parse_call, "pace", "step(steps=3)")


@pytest.mark.parametrize(
    ("text", "read"),
    [("crop(2), flip,crop", "[crop(padding=2), flip, crop]"), ("none", "[]")],
)
def test_calls_are_read_in_order(text, read):
    assert repr(parse_calls("thing", text)) == read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crp(2)", "unknown thing 'crp'; did you mean 'crop'?"),
        ("no", "did you mean 'none'? known: crop, flip, none"),
        ("none, flip", "thing 'none, flip' has none beside others; leave it out"),
        ("", "thing is ''; it takes one or more of crop, flip, none"),
        ("crop(2, reflect)", "write a number, True, False, None or text in quotes"),
        ("crop(pading=2)", "did you mean 'padding'?"),
        ("crop(2, padding=3)", "its options: padding, mode, scale, again"),
        ("crop(padding=2, padding=3)", "given twice"),
        ("crop(1, 'a', 1.0, True, 5)", "too many"),
        ("crop(2.5)", "crop padding is 2.5; it takes a whole number"),
        ("crop(", "not of the form 'name' or 'name(option=value)'"),
        ("crop\x00", "not of the form"),
        ("a] + [b", "not of the form"),
        ("(" * 1000, "not of the form"),
        ("crop(*[2])", "no plain value"),
        ("crop({[]: 1})", "no plain value"),
    ],
)
def test_text_that_is_no_call_is_one_line(text, words):
    assert words in refused(parse_calls, "thing", text)


@pytest.mark.parametrize("text", ["none", "crop, crop"])
def test_one_call_is_neither_none_nor_two(text):
    message = refused(parse_call, "thing", text)
    assert "exactly one of: crop, flip" in message
    assert repr(text) in message


@pytest.mark.filterwarnings("ignore:invalid")  # Python's own, at an odd literal
@settings(max_examples=500)
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
    calls = unless_refused(parse_calls, "thing", text)
    if isinstance(calls, InputError):
        return
    assert {call.name for call in calls} <= {"crop", "flip"}
    assert parse_calls("thing", ", ".join(map(str, calls)) or "none") == calls


@pytest.mark.parametrize(
    "text",
    [
        "__import__('pathlib').Path({0!r}).touch()",
        "crop(padding=open({0!r}, 'w'))",
        "crop(f'{{open({0!r}, \"w\")}}')",
        "crop(2)] + [open({0!r}, 'w')",
    ],
)
def test_hostile_text_is_never_evaluated(tmp_path, text):
    file = tmp_path / "made"
    text = text.format(str(file))
    assert KNOWN["note"].read(text) == text
    for row in KNOWN.values():
        if row.name != "note":
            refused(row.read, text)
    refused(parse_calls, "thing", text)
    refused(parse_parameters, f"epochs: int = {text}  # hostile")
    assert not file.exists()


def run_as_cells(*sources):
    """The variables of a notebook of these cells."""
    namespace = {"In": ["", *sources], "Literal": Literal}
    for source in sources:
        exec(compile(source, "cell", "exec", dont_inherit=True), namespace)
    return namespace


def test_the_values_in_a_notebook_are_those_of_its_annotated_names():
    namespace = run_as_cells(CELL, "other = 3\nepochs = 5\nrate = 0")
    assert refused(parameters_in, namespace) == "rate is 0.0; it must be above 0, below 1"
    namespace["In"][1] += "\nfoo = 3\nbar: list = []"  # more lines, of the reader's own
    assert refused(parameters_in, namespace) == "rate is 0.0; it must be above 0, below 1"
    del namespace["In"]  # in a script, no comment is known
    assert parameters_in(namespace) == DEFAULTS | {"epochs": 5, "rate": 0}
    namespace["epochs"] = "5"
    assert refused(parameters_in, namespace).startswith("epochs is '5'; it takes a whole number")
    assert parameters_in({}) == {}
    namespace["__annotations__"]["later"] = int  # not given yet
    namespace["epochs"] = 5
    assert "later" not in parameters_in(namespace)


def test_a_function_goes_by_its_name():
    cell = "architecture: str = 'cifarnet'  # the network"
    namespace = run_as_cells(cell, "def mine(x, classes): pass\narchitecture = mine")
    assert parameters_in(namespace) == {"architecture": "mine"}
    namespace["architecture"] = functools.partial(namespace["mine"], classes=3)  # without a name
    assert parameters_in(namespace) == {"architecture": repr(namespace["architecture"])}


def test_a_notebook_shows_an_input_error_as_its_line(capsys):
    InteractiveShell().run_cell("from cifar_utils.errors import *\nraise InputError('no weights')")
    assert capsys.readouterr().out == "InputError: no weights\n"


REAL = sorted(REGISTRIES)


@pytest.mark.parametrize("kind", REAL)
def test_functions_are_read_as_they_are_imported(kind):
    registry = REGISTRIES[kind]
    for name, real in registry.items():
        read = registry.read(name)
        options = list(inspect.signature(read).parameters.values())
        defaults = {option.name: option.default for option in options}
        assert [(option.name, option.default) for option in options] == [
            (option.name, option.default) for option in inspect.signature(real).parameters.values()
        ]
        assert inspect.getdoc(read) == inspect.getdoc(real)
        for option in options[registry.given :]:
            if option.default not in (option.empty, None):
                row = describe_option(option, option.name, defaults)
                assert row.check(option.default) == option.default, (name, option)
                assert row.type in ("str", "bool") or row.bounds, f"{name} {row.name} has no bounds"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("augmentation", "flipp", "unknown augmentation 'flipp'; did you mean 'flip'?"),
        ("augmentation", "flip('horizontl')", "did you mean 'horizontal'?"),
        ("augmentations", "none; crop(0)", "crop padding is 0; it must be at least 1"),
        ("schedule", "linear, step", "exactly one"),
        ("optimizer", "sgd(momentun=0.9)", "did you mean 'momentum'?"),
        ("architecture", "resnet20(dropout=2)", "resnet20 dropout is 2.0; it must be at least 0"),
        ("augmentation", "contrast(0.9)", "contrast upper is 0.75; it must be at least 0.9"),
        ("space", "width(8)", "missing a required argument: 'high'"),
    ],
)
def test_a_parameter_that_is_a_call_is_checked_as_one(name, value, words):
    assert words in refused(Parameter(name, "str", "", "").check, value)


def test_none_is_a_value_of_what_takes_several():
    text = "augmentation: str = None  # what to train with\nlimit: int = None  # how many"
    augmentation, limit = parse_parameters(text).values()
    assert (augmentation.read("none"), limit.read("none")) == ("none", None)
    assert augmentation.read("None") is None


def test_a_notebook_s_own_choices_need_no_registry():
    (row,) = parse_parameters("optimizer: str = 'sgd'  # sgd | mine: how").values()
    assert row.check("mine(any=1)") == "mine(any=1)"
    assert "did you mean 'momentum'" in refused(row.check, "sgd(momentun=1)")
