"""The choices of a user: a notebook's parameters, and registered names with options.

The tagged cell of a notebook is the one source of truth on its parameters. Each line gives a name,
a type and a default. Its comment gives the allowed values and the meaning::

    epochs: int = 20  # at least 1: passes over the training set
    validation_fraction: float = 0.1  # above 0, below 1: share of the training images held out
    optimizer: str = "sgd"  # sgd | adam: the rule that turns gradients into steps
    train_limit: int = None  # at least 1: training images to use; None for all

Types may also be written as ``Literal["sgd", "adam"]`` and ``int | None``. A parameter whose
default is ``None`` may be ``None``. The choice ``folder:/path`` stands for ``folder:`` with any
path. A parameter with the name of a registry in :data:`REGISTRIES` is checked by that registry; its
value is a call if it has options: ``"resnet18(dropout=0.5)"``. With an s at the end of its name, it
takes several values, separated by semicolons. A line has one equals sign only: papermill can't read
a line with two.
"""

import ast
import contextlib
import inspect
import math
import re
from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cifar_utils.errors import BOUND, InputError, check_bounds, known_name, need_validation, short

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "True or False"}
# ast.literal_eval raises these on text that is not a literal, or is too deep or too large to read.
LITERAL_ERRORS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
# Types of options of registered functions, with the bounds that a call is checked against.
PositiveInt, NonNegativeInt = Annotated[int, "at least 1"], Annotated[int, "at least 0"]
PositiveFloat, NonNegativeFloat = Annotated[float, "above 0"], Annotated[float, "at least 0"]
Rate, Share = Annotated[float, "at least 0, below 1"], Annotated[float, "above 0, below 1"]


class Registry(UserDict):
    """Functions that a parameter may name. Each is imported when it is used.

    The type of an option gives the values that it takes: ``Literal["horizontal", "vertical"]`` or
    ``Annotated[float, "above 0, at most 1"]``. Bounds may name an earlier option:
    ``"above {low}"``.

    Attributes
    ----------
    given
        Number of a function's arguments before its options.
    several
        Whether one text may name several of them.
    once
        Whether a text names at least one of them, and none twice.

    """

    def __init__(
        self, modules: Mapping[str, str], given: int = 0, several: bool = False, once: bool = False
    ):
        """``modules`` maps a module of this package to its names, separated by spaces."""
        self.given, self.several, self.once = given, several, once
        super().__init__((name, module) for module in modules for name in modules[module].split())

    def __getitem__(self, name: str) -> Callable:
        found = self.data[name]
        return found if callable(found) else getattr(import_module(f"cifar_utils.{found}"), name)

    def read(self, name: str) -> Callable:
        """A function with this one's signature and docstring, without importing Keras."""
        found = self.data[name]
        if callable(found):
            return found
        return _read_function(f"cifar_utils.{found}", name)

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The options of a function, without importing Keras."""
        return dict([*inspect.signature(self.read(name)).parameters.items()][self.given :])


REGISTRIES = {
    "architecture": Registry(
        {
            "models.resnet": "resnet18 resnet20 resnet50 resnet50v2 resnet56 resnet110 preact "
            "gn_resnet separable report_a cifarnet_worst",
            "models.vgg": "cifarnet fan vgg19",
            "models.airbench": "airbench airbench96",
        },
        given=2,
    ),
    "augmentation": Registry(
        {
            "augmentation.geometry": "affine alternating_flip crop cutout flip rotation shrink",
            "augmentation.colour": "colour_jitter contrast",
        },
        several=True,
    ),
    "optimizer": Registry({"training.optimizers": "sgd adam muon"}, given=3),
    "schedule": Registry(
        {
            "training.schedules": "constant exponential step cosine linear one_cycle triangular "
            "plateau"
        },
        given=3,
    ),
    "space": Registry(
        {"tuning": "learning_rate weight_decay dropout width"}, several=True, once=True
    ),
}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    bounds: str = ""
    optional: bool = False  # whether None is allowed

    @property
    def allowed(self) -> str:
        """The values allowed, in words: ``"sgd | adam"``, ``"above 0, below 1"`` or nothing."""
        return self.bounds or " | ".join(self.choices)

    def read(self, value: Any) -> Any:
        """Check a value that may be text, as the command line gives it: ``"3"``, ``"none"``."""
        kind = REGISTRIES.get(self.name.removesuffix("s"))
        own = kind is not None and kind.several  # then "none" is a value of its own
        if self.optional and value in ("None", "null", *([] if own else ["none"])):
            return None
        if isinstance(value, str) and self.type != "str":
            with contextlib.suppress(*LITERAL_ERRORS):
                value = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        return self.check(value)

    def check(self, value: Any) -> Any:
        """Return ``value`` as this parameter's type.

        Raises
        ------
        InputError
            Where the type is wrong, or the value is not allowed.

        """
        if value is None and self.optional:
            return None
        if self.type == "float" and type(value) is int:
            with contextlib.suppress(OverflowError):
                value = float(value)
        if type(value) is not TYPES[self.type] or (
            self.type == "float" and not math.isfinite(value)
        ):
            wanted = KINDS[self.type] + (" or None" if self.optional else "")
            raise InputError(f"{self.name} is {short(value)}; it takes {wanted}")
        check_bounds(self.name, value, self.bounds)
        kind = self.name.removesuffix("s")
        name = first_name(value) if kind in REGISTRIES else value
        if self.choices and not any(_is_choice(name, choice) for choice in self.choices):
            known_name(f"{self.name} is", name, self.choices)
        # A user's notebook may offer choices that are in no registry.
        if kind in REGISTRIES and (not self.choices or name in REGISTRIES[kind]):
            self._check_calls(kind, value.split(";") if self.name != kind else [value])
        return value

    def _check_calls(self, kind: str, texts: list[str]) -> None:
        parse = parse_calls if REGISTRIES[kind].several else parse_call
        if len(texts) > 1 and not all(map(str.strip, texts)):
            raise InputError(f"{self.name} has nothing between two semicolons or after the last")
        calls = [repr(parse(kind, text)) for text in texts]
        if twice := next((call for call in calls if calls.count(call) > 1), None):
            raise InputError(f"{self.name} has {twice.strip('[]') or 'none'} twice; leave one out")


def _is_choice(value: Any, choice: str) -> bool:
    """Whether a value is a choice, or begins like one with a path and has a path."""
    start, colon, _ = choice.partition(":")
    if colon:
        return str(value).startswith(start + colon) and value != start + colon
    return choice in ({str(value), f"{value:g}"} if isinstance(value, float) else {str(value)})


def parse_parameters(source: str, where: str = "the parameters cell") -> dict[str, Parameter]:
    """Read a parameters cell. Each line is ``name: type = default  # allowed: meaning``."""
    lines = source.split("\n")
    found = {}
    try:
        nodes = ast.parse(source).body
    except LITERAL_ERRORS as error:
        raise InputError(f"{where} can't be read ({' '.join(str(error).split())})") from error
    for node in nodes:
        line = lines[node.end_lineno - 1]
        comment = line.encode()[node.end_col_offset :].decode().strip().lstrip("#").strip()
        try:
            name, default = node.target.id, ast.literal_eval(node.value)
            kind, choices, optional = _annotation(node.annotation)
        except (AttributeError, ValueError):
            comment = ""
        if not comment or kind not in TYPES:
            form = "'name: type = default  # meaning', with a type of " + ", ".join(TYPES)
            raise InputError(f"{where}: {line!r} is not of the form {form}")
        allowed, _, meaning = comment.partition(": ")
        bounds = allowed if kind in ("int", "float") and BOUND.search(allowed) else ""
        if " | " in allowed:
            choices = tuple(allowed.split(" | "))
            if choices[-1] == "…":  # the others are in the registry
                choices = tuple(REGISTRIES.get(name.removesuffix("s"), choices))
        elif not bounds:
            meaning = comment
        found[name] = Parameter(
            name, kind, default, meaning, choices, bounds, optional or default is None
        )
    return found


def _annotation(node: ast.expr) -> tuple[str, tuple[str, ...], bool]:
    """The type, the choices and whether None is allowed, by ``int | None`` or ``Literal[1, 2]``."""
    if isinstance(node, ast.BinOp) and ast.unparse(node.right) == "None":
        return *_annotation(node.left)[:2], True
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
        values = ast.literal_eval(node.slice)
        values = values if isinstance(values, tuple) else (values,)
        return type(values[0]).__name__, tuple(map(str, values)), False
    return node.id, (), False


def first_name(text: Any) -> str:
    """The name that a call, or a list of calls, begins with: ``"muon"`` of ``" muon(0.9)"``."""
    return re.split(r"[(,;]", str(text))[0].strip()


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a notebook's parameters: the ``given`` values, checked, and the other defaults."""
    for name in given:
        known_name("unknown parameter", name, known)
    values = {name: row.read(given.get(name, row.default)) for name, row in known.items()}
    check_together(values)
    return values


def check_together(values: Mapping[str, Any]) -> None:
    """Raise an InputError where two parameters of a notebook do not fit each other."""
    needing = ["architectures", "target_accuracy", "patience"]
    if first_name(values.get("schedule")) == "plateau":
        needing.append("schedule")
    for name in needing:
        if values.get(name) is not None:
            need_validation(f"{name} {short(values[name])}", values.get("validation_fraction", 1))
    if values.get("fine_tune_layers") and first_name(values.get("optimizer")) == "muon":
        reason = "it sets the norms of trained filters anew; use adam or sgd"
        raise InputError(f"optimizer muon does not fit fine_tune_layers: {reason}")
    name, registry = first_name(values.get("architecture")), REGISTRIES["architecture"]
    if values.get("space") and name in registry:
        for call in parse_calls("space", values["space"]):
            if call.name not in values:  # what is no parameter is the network's own
                known_name(f"space for {name} is", call.name, registry.options(name))


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The current values of a notebook's parameters, checked: ``parameters_in(globals())``.

    A notebook's values are checked against its parameters cell, a script's only against their
    types. A function, such as the reader's own network, is given by its name.

    Raises
    ------
    InputError
        Where a value is not allowed.

    """
    annotated = namespace.get("__annotations__", {})
    lines = [
        f"{name}: {inspect.formatannotation(annotated[name])} = None  #-" for name in annotated
    ]
    for cell in namespace.get("In", []):  # the cells run so far, in a notebook
        own = cell.splitlines()
        with contextlib.suppress(*LITERAL_ERRORS):  # a cell with a mistake
            nodes = [node for node in ast.parse(cell).body if isinstance(node, ast.AnnAssign)]
            lines += ["\n".join(own[node.lineno - 1 : node.end_lineno]) for node in nodes]
    known: dict[str, Parameter] = {}
    for line in lines:
        with contextlib.suppress(InputError):  # it is annotated, and no parameter
            known |= parse_parameters(line)
    values = {
        name: getattr(value, "__name__", repr(value))
        if callable(value := namespace[name])
        else known[name].check(value)
        for name in annotated
        if name in known and name in namespace
    }
    check_together(values)
    return values


@dataclass(frozen=True, repr=False)
class Call:
    """A function of a registry with options; it prints as a call: ``crop(padding=4)``."""

    name: str
    registry: Mapping[str, Callable]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def function(self) -> Callable:
        """The function itself; this imports it."""
        return self.registry[self.name]

    def __call__(self, *args: Any) -> Any:
        """Call the function: ``args`` first, then this call's own options."""
        return self.function(*args, **self.options)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def parse_calls(kind: str, text: str) -> list[Call]:
    """Read comma-separated calls, ``"crop(padding=4), flip"``, of functions in a registry.

    This does not import Keras.

    Parameters
    ----------
    kind
        Which of :data:`REGISTRIES`: ``"augmentation"``.
    text
        For a kind that takes several, ``"none"`` gives an empty list.

    Raises
    ------
    InputError
        Where the text does not parse, a name or an option is unknown, or an option's value is of
        the wrong type or out of range.

    """
    registry = REGISTRIES[kind]
    offered = [*registry, *(["none"] if registry.several and not registry.once else [])]
    if "none" in offered and str(text).strip() == "none":
        return []
    form = "is not of the form 'name' or 'name(option=value)'"
    try:
        row = ast.parse(f"[{text}]", mode="eval").body
    except LITERAL_ERRORS as error:
        raise InputError(f"{kind} {short(text)} {form}") from error
    calls = []
    for node in row.elts if isinstance(row, ast.List) else [row]:
        source = ast.unparse(node)
        function = node.func if isinstance(node, ast.Call) else node
        if not isinstance(function, ast.Name):
            raise InputError(f"{kind} {short(source)} {form}")
        if known_name(f"unknown {kind}", function.id, offered) == "none":
            raise InputError(f"{kind} {short(text)} has none beside others; leave it out")
        calls.append(Call(function.id, registry, _read_options(kind, function.id, node)))
    once = ", each once" if registry.once else ""
    twice = registry.once and len({call.name for call in calls}) < len(calls)
    if registry.several and (not calls or twice):
        known = ", ".join(offered)
        raise InputError(f"{kind} is {short(text)}; it takes one or more of {known}{once}")
    return calls


def _read_options(kind: str, name: str, node: ast.expr) -> dict[str, Any]:
    """The options that a call, or a name alone, gives to a registered function, checked."""
    source, keywords = ast.unparse(node), getattr(node, "keywords", [])
    try:
        args = [ast.literal_eval(value) for value in getattr(node, "args", [])]
        kwargs = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
    except LITERAL_ERRORS as error:
        raise InputError(
            f"{kind} {source!r} has an option that is no plain value; write a number, True, "
            "False, None or text in quotes"
        ) from error
    options = REGISTRIES[kind].options(name)
    for option in kwargs:
        known_name(f"option of {kind} {name} is", option, options)
    try:
        if len(kwargs) < len(keywords):
            raise TypeError("an option is given twice")
        bound = inspect.Signature([*options.values()]).bind(*args, **kwargs)
    except TypeError as error:
        takes = ", ".join(options) or "none"
        raise InputError(f"{kind} {source!r}: {error}; its options: {takes}") from error
    given = [*bound.arguments]
    bound.apply_defaults()
    checked = {}
    for option, value in bound.arguments.items():
        row = describe_option(options[option], f"{name} {option}", bound.arguments)
        checked[option] = value
        if row.choices:  # without options of their own
            known_name(f"{row.name} is", value, row.choices)
        elif row.type in TYPES:
            checked[option] = row.check(value)
    return {option: checked[option] for option in given}


def describe_option(option: inspect.Parameter, name: str, values: Mapping[str, Any]) -> Parameter:
    """An option of a registered function, by its annotation.

    Parameters
    ----------
    name
        The name in messages.
    values
        Of the function's options, for bounds that name one.

    """
    kind, choices = option.annotation, ()
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    bounds = getattr(kind, "__metadata__", ("",))[0].format(**values)
    kind = getattr(kind, "__origin__", kind)
    kind = getattr(kind, "__name__", str(kind))
    return Parameter(name, kind, option.default, "", choices, bounds, option.default is None)


def parse_call(kind: str, text: str) -> Call:
    """Read one call, as :func:`parse_calls` does; more or fewer than one is an InputError."""
    calls = parse_calls(kind, text)
    if len(calls) != 1:
        names = ", ".join(REGISTRIES[kind])
        raise InputError(f"{kind} is {short(text)}; it takes exactly one of: {names}")
    return calls[0]


@cache
def _read_function(module: str, name: str) -> Callable:
    file = source_file(module)
    namespace = globals() | {"__name__": module}  # with the types of options
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.body, node.returns = node.body[:1], None  # the docstring
            exec(compile(ast.Module([node], []), str(file), "exec"), namespace)
    return namespace[name]


def source_file(module: str) -> Path | None:
    """The file of one of this package's modules; None where there is none of that name."""
    place = Path(__file__).parent.parent.joinpath(*module.split("."))
    return next(filter(Path.is_file, (place.with_suffix(".py"), place / "__init__.py")), None)
