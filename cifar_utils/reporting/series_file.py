"""Reads the file that lists a series' runs, and selects some of them."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails

from cifar_utils.choices import Parameter, check_together
from cifar_utils.errors import InputError, known_name, short
from cifar_utils.reporting.notebooks import find_notebook, project_folder, read_parameters
from cifar_utils.runs.folder import Run
from cifar_utils.text import slug

SECONDS = {"s": 1, "min": 60, "h": 3600}
TIMEOUT = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(SECONDS)})")
MOST_BYTES = 200  # of a run's name; file systems allow 255 for a folder's name


def read_series(file: Path, profile: str | None = None, folder: Path | None = None) -> list[Run]:
    """Read a series file, check all of it, and return the runs of one profile.

    Parameters
    ----------
    file
        YAML: ``profiles`` maps names to lists of runs. A run has a ``name`` and a ``notebook`` (a
        name in the project, or a path relative to the file). It may have ``parameters`` that differ
        from the notebook's own, ``seeds``, ``matrix`` and ``timeout``. A ``matrix`` maps
        parameters to lists of values, or to labels with values; each combination is a run. Names
        get ``-label`` for each parameter of the matrix, and ``-s<seed>`` for ``seeds``. ``shared``
        may hold anchors, for values that several runs share.
    profile
        The name of the list; None for the file's only one, or ``quick``.
    folder
        The folder for the runs' folders; None for ``reports/<profile>`` in the project.

    Raises
    ------
    InputError
        Where the file is wrong: a line for each mistake, ``file:line: what``.

    """
    root, content, mistakes = _read_yaml(file)

    @cache
    def find(name: str) -> tuple[Path, dict[str, Parameter]]:
        beside = file.parent / name
        is_path = beside.suffix == ".ipynb" and beside.is_file()
        notebook = beside if is_path else find_notebook(name)
        return notebook, read_parameters(notebook)

    try:
        context = SimpleNamespace(find=find, names=set())
        series = _Series.model_validate(content, context=context)
    except ValidationError as error:
        mistakes += [(_line(root, each["loc"]), _what(each)) for each in error.errors()]
    if mistakes:
        lines = sorted(set(mistakes))
        raise InputError("\n".join(f"{file}:{line}: {what}" for line, what in lines))
    profile = profile or ("quick" if len(series.profiles) > 1 else next(iter(series.profiles)))
    known_name("unknown profile", profile, series.profiles)
    folder = folder or project_folder() / "reports" / profile
    return [
        Run(folder / name, row.notebook[0], parameters, row.timeout)
        for row in series.profiles[profile]
        for name, parameters in row.runs()
    ]


def select(runs: list[Run], only: Sequence[str]) -> list[Run]:
    """The runs whose name is one of ``only`` or fits one of these globs; all without any.

    Raises
    ------
    InputError
        Where no run fits. The message lists the names.

    """
    globs = only or ["*"]
    chosen = [
        run for run in runs if run.name in globs or any(fnmatchcase(run.name, g) for g in globs)
    ]
    if not chosen:
        asked = " ".join(f"--only {glob}" for glob in only)
        raise InputError(f"no run fits {asked}; there are {', '.join(run.name for run in runs)}")
    return chosen


def _check_name(name: str) -> str:
    if not (name and name.isprintable() and Path(name).name == name) or name.startswith("."):
        advice = "leave out slashes, first dots and control characters"
        raise InputError(f"name is {short(name)}; {advice}")
    return name


def _seconds(text: Any) -> float:
    match = TIMEOUT.fullmatch(str(text))
    if not match or not float(match[1]):
        raise InputError(f"timeout is {short(text)}; write it as '90 min' or '2 h'")
    return float(match[1]) * SECONDS[match[2]]


def _axis(values: Any) -> list[tuple[str, Any]]:
    """The labels and values of a parameter in a matrix."""
    if not values or not isinstance(values, dict | list):
        raise InputError(
            f"{short(values)} in matrix; it takes a list of values, or labels with them"
        )
    pairs = values.items() if isinstance(values, dict) else [(value, value) for value in values]
    if not all(slug(label) for label, _ in pairs):
        raise InputError(f"a value in {short(values)} makes no name; write each as 'label: value'")
    return [(slug(label), value) for label, value in pairs]


_Axis = list[tuple[str, Any]]  # values of a parameter, each with its part of the run's name


class _Row(BaseModel, extra="forbid", strict=True):
    """A row of the file: one run, or one for each combination of matrix and seeds."""

    name: Annotated[str, AfterValidator(_check_name)]
    # 2 is its number, as for `run`.
    notebook: Annotated[Any, AfterValidator(lambda name, info: info.context.find(str(name)))]
    parameters: dict[str, Annotated[Any, AfterValidator(lambda value: [("", value)])]] = {}
    matrix: dict[str, Annotated[Any, AfterValidator(_axis)]] = {}
    seeds: Annotated[
        list[int],
        Field(min_length=1),
        AfterValidator(lambda seeds: {"seed": [(f"s{seed}", seed) for seed in seeds]}),
    ] = {}
    timeout: Annotated[Any, AfterValidator(_seconds)] = None

    @field_validator("parameters", "matrix", "seeds")
    @classmethod
    def _read_values(cls, axes: dict[str, _Axis], info: ValidationInfo) -> dict[str, _Axis]:
        if "notebook" not in info.data:  # another message says so
            return axes
        known = info.data["notebook"][1]
        read, mistakes = {name: [] for name in axes}, []
        for name, label, value in [(name, *each) for name, axis in axes.items() for each in axis]:
            try:
                checked = known[known_name("unknown parameter", name, known)].read(value)
                read[name].append((label, checked))
            except InputError as error:
                place = {"loc": (name,), "input": value}
                mistakes.append(InitErrorDetails(type="value_error", ctx={"error": error}, **place))
        if mistakes:
            raise ValidationError.from_exception_data("series", mistakes)
        return read

    @model_validator(mode="after")
    def _check_names(self, info: ValidationInfo) -> Self:
        parameters = [*self.parameters, *self.matrix, *self.seeds]
        for name in parameters:
            if parameters.count(name) > 1:
                raise InputError(f"{name} is given twice, by parameters, matrix or seeds")
        names = info.context.names
        for name, values in self.runs():
            check_together(values)
            if len(name.encode()) > MOST_BYTES:
                raise InputError(f"name {short(name)} has more than {MOST_BYTES} bytes; shorten it")
            if name.casefold() in names:  # upper and lower case may name one folder
                raise InputError(f"name {name!r} is another run's already; give each run its own")
            names.add(name.casefold())
        return self

    def _axes(self) -> dict[str, _Axis]:
        return {**self.parameters, **self.matrix, **self.seeds}

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Name and all parameters of each run."""
        defaults = {name: row.default for name, row in self.notebook[1].items()}
        for combination in itertools.product(*self._axes().values()):
            labels = [label for label, _ in combination if label]
            values = [value for _, value in combination]
            chosen = dict(zip(self._axes(), values, strict=True))
            yield "-".join([self.name, *labels]), defaults | chosen


def _new_profile(rows: Any, info: ValidationInfo) -> Any:
    info.context.names.clear()
    return rows


_Profile = Annotated[list[_Row], Field(min_length=1), BeforeValidator(_new_profile)]


class _Series(BaseModel, extra="forbid", strict=True):
    profiles: dict[str, _Profile] = Field(min_length=1)
    shared: Any = None


# Lines of the file


class _Loader(yaml.SafeLoader):
    """Collects the keys that a mapping has twice, with their lines."""

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.twice: list[tuple[int, str]] = []

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        names = Counter(key.value for key in keys)
        self.twice += [
            (key.start_mark.line + 1, f"{short(key.value)} is here twice; leave one out")
            for key in keys
            if names[key.value] > 1
        ]
        return node


def _read_yaml(file: Path) -> tuple[yaml.Node, Any, list[tuple[int, str]]]:
    """A file's nodes, which have line numbers; its content; and the keys that are there twice."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"series {file} can't be read ({error.strerror}); give the path of a YAML file"
        ) from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        content = loader.construct_document(root) if root else None
    except Exception as error:  # yaml may raise almost anything
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:" if mark else f"{file}:"
        why = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{where} it is not YAML ({why})") from error
    if content is None:
        raise InputError(f"{file} is empty; it takes profiles with lists of runs")
    return root, content, loader.twice


def _line(node: yaml.Node, place: tuple[int | str, ...]) -> int:
    """The line of a place such as ``("profiles", "quick", 0, "name")``, or of its parent."""
    line = node.start_mark.line
    for step in place:
        below = []
        if isinstance(node, yaml.MappingNode):
            below = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            below = [(index, each, each) for index, each in enumerate(node.value)]
        # Merged keys come first, a mapping's own keys last.
        found = [
            (at.start_mark.line, value) for name, at, value in below if name in (step, str(step))
        ]
        if not found:
            break
        line, node = found[-1]
    return line + 1


def _what(mistake: ErrorDetails) -> str:
    """A mistake in words."""
    place, value = mistake["loc"], short(mistake["input"])
    if place[-1:] == ("[key]",) or mistake["type"] == "invalid_key":
        return f"key {value} is not text; write it in quotes"
    name = next((step for step in reversed(place) if isinstance(step, str)), "the file")
    fields = (_Row if len(place) > 2 else _Series).model_fields
    match mistake["type"]:
        case "value_error":
            return str(mistake["ctx"]["error"])
        case "missing":
            return f"it has no {name}; it takes {', '.join(fields)}"
        case "model_type":
            return f"{value} is not a mapping; it takes {', '.join(fields)}"
        case "extra_forbidden":
            try:
                return known_name("unknown key", name, fields)
            except InputError as error:
                return str(error)
        case "list_type":
            return f"{name} is {value}; it takes a list, as in [a, b]"
        case "dict_type":
            return f"{name} is {value}; it takes names with values, as in {{a: 1}}"
        case "string_type":
            return f"{name} is {value}; it takes text"
        case "too_short":
            return f"{name} is empty; give one or more"
        case _:
            return f"{name} is {value}; {mistake['msg'].replace('Input', 'it')}"
