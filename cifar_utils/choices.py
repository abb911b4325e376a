"""What a user may choose: a notebook's parameters, and registered names with options.

The tagged cell of a notebook is the one source of truth on its parameters. Each line gives a name,
a type, a default and, in its comment, what is allowed and what it means::

    epochs: int = 20  # at least 1: passes over the training set
    validation_fraction: float = 0.1  # above 0, below 1: share of the training images held out
    optimizer: str = "sgd"  # sgd | adam: how weights follow the gradient
    views: int = 1  # 1 | 2 | 6: views of each test image, whose logits are averaged
    train_limit: int = None  # at least 1: training images to use; None for all

A parameter whose default is ``None`` may be ``None``. A choice may carry options, written as a
call: ``"resnet18(dropout=0.5)"``; :func:`parse_calls` reads such text and the registry it names
checks the options. It may carry a place too: ``"folder:/path"``. (The equals sign of the assignment
is the only one in a line: papermill reads no line with two.)
"""

import ast
import contextlib
import inspect
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cifar_utils.errors import InputError, known_name

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
# What ast.literal_eval raises on text that is no literal, or one too deep or too large to read.
LITERAL_ERRORS = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
COMPARISONS = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}
BOUND = re.compile(rf"({'|'.join(COMPARISONS)}) (-?[\d.]+(?:e-?\d+)?)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    type: str
    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()

    @property
    def allowed(self) -> str:
        """The values allowed, in words: ``"sgd | adam"``, ``"above 0, below 1"`` or nothing."""
        bounds = ", ".join(f"{words} {bound:g}" for words, bound in self.bounds)
        return bounds or " | ".join(self.choices)

    def check(self, value: Any) -> Any:
        """Return ``value`` as this parameter's type (text is read as the command line gives it).

        Raises
        ------
        InputError
            Where the type is another, or the value is outside of what is allowed.

        """
        if isinstance(value, str) and self.type != "str":
            with contextlib.suppress(*LITERAL_ERRORS):
                value = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        if self.default is None and (value is None or value in ("None", "null", "none")):
            return None
        if self.type == "float" and type(value) is int:
            with contextlib.suppress(OverflowError):
                value = float(value)
        if type(value) is not TYPES[self.type] or (
            self.type == "float" and not math.isfinite(value)
        ):
            raise InputError(f"{self.name} is {value!r}; it takes {self._kind()}")
        if not all(COMPARISONS[words](value, bound) for words, bound in self.bounds):
            raise InputError(f"{self.name} is {value!r}; it must be {self.allowed}")
        if self.choices:
            known_name("", re.split(r"[(:]", str(value))[0].strip(), self.choices, label=self.name)
        return value

    def _kind(self) -> str:
        kinds = {
            "int": "a whole number",
            "float": "a number",
            "str": "text",
            "bool": "True or False",
        }
        return kinds[self.type] + (" or None" if self.default is None else "")


def parse_parameters(source: str, where: str = "the parameters cell") -> dict[str, Parameter]:
    """Read the text of a parameters cell: ``name: type = default  # allowed: meaning`` a line."""
    lines = source.split("\n")
    found = {}
    try:
        nodes = ast.parse(source).body
    except SyntaxError as error:
        raise InputError(f"{where} can't be read (line {error.lineno}: {error.msg})") from error
    for node in nodes:
        line = lines[node.end_lineno - 1]
        comment = line.encode()[node.end_col_offset :].decode().strip().lstrip("#").strip()
        try:
            name, kind, default = node.target.id, node.annotation.id, ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            comment = ""
        if not comment:
            raise InputError(
                f"{where}: {line!r} is not of the form 'name: type = default  # meaning'"
            )
        if kind not in TYPES:
            raise InputError(f"{where}: {line!r} has a type other than {', '.join(TYPES)}")
        allowed, _, meaning = comment.partition(": ")
        bounds = tuple((words, float(bound)) for words, bound in BOUND.findall(allowed))
        choices = tuple(allowed.split(" | ")) if " | " in allowed else ()
        if not (bounds or choices):
            meaning = comment
        found[name] = Parameter(name, kind, default, meaning, choices, bounds)
    return found


def check_parameters(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """All of a notebook's parameters: the ``given`` ones, checked, over the ``known`` defaults."""
    for name in given:
        known_name("parameter", name, known)
    return {name: row.check(given.get(name, row.default)) for name, row in known.items()}


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a notebook's parameters have now: ``parameters_in(globals())``."""
    annotated = namespace.get("__annotations__") or namespace["__annotate__"](1)
    return {name: namespace[name] for name in annotated}


@dataclass(frozen=True, repr=False)
class Call:
    """A registered function with options; it prints as text gives it: ``crop(padding=4)``."""

    name: str
    function: Callable
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any) -> Any:
        """Call the function: ``args`` first, then this call's own options."""
        return self.function(*args, **self.options)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def parse_calls(
    kind: str, text: str, registry: Mapping[str, Callable], given: int = 0
) -> list[Call]:
    """Read comma-separated calls, ``"crop(padding=4), flip"``, of functions in a registry.

    Parameters
    ----------
    kind
        What the registry holds, for messages: ``"augmentation"``.
    given
        How many positional arguments the caller itself will pass first.

    Raises
    ------
    InputError
        Where the text does not parse, a name is unknown, or an option is none of the function's.

    """
    form = "is not of the form 'name' or 'name(option=value)'"
    try:
        row = ast.parse(f"[{text}]", mode="eval").body
    except LITERAL_ERRORS as error:
        raise InputError(f"{kind} {text!r} {form}") from error
    calls = []
    for node in row.elts if isinstance(row, ast.List) else [row]:
        source = ast.unparse(node)
        function = node.func if isinstance(node, ast.Call) else node
        if not isinstance(function, ast.Name):
            raise InputError(f"{kind} {source!r} {form}")
        target = registry[known_name(kind, function.id, registry)]
        try:
            args = tuple(ast.literal_eval(a) for a in getattr(node, "args", []))
            kwargs = {str(k.arg): ast.literal_eval(k.value) for k in getattr(node, "keywords", [])}
        except LITERAL_ERRORS as error:
            raise InputError(f"{kind} {source!r} has an option that is no plain value") from error
        options = dict(list(inspect.signature(target).parameters.items())[given:])
        for name in kwargs:
            known_name(f"option of {kind} {function.id!r}", name, options)
        taken = [*list(options)[: len(args)], *(k.arg for k in getattr(node, "keywords", []))]
        if len(args) > len(options) or len(set(taken)) < len(taken):
            raise InputError(
                f"{kind} {source!r} has too many options; it takes: {', '.join(options)}"
            )
        values = {
            name: _option(f"{name} in {kind} {source!r}", options[name], value)
            for name, value in zip(taken, (*args, *kwargs.values()), strict=True)
        }
        calls.append(Call(function.id, target, values))
    return calls


def _option(label: str, option: inspect.Parameter, value: Any) -> Any:
    """Check an option's value by its annotation in the registered function."""
    kind = getattr(option.annotation, "__name__", "")
    return Parameter(label, kind, option.default, "").check(value) if kind in TYPES else value


def parse_call(kind: str, text: str, registry: Mapping[str, Callable], given: int = 0) -> Call:
    """Read one call, as :func:`parse_calls` does; more or fewer than one is an InputError."""
    calls = parse_calls(kind, text, registry, given)
    if len(calls) != 1:
        raise InputError(f"{kind} is {text!r}; it takes exactly one of: {', '.join(registry)}")
    return calls[0]
