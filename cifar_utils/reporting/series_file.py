"""The file that names a series' runs, read with the lines of its mistakes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cifar_utils.choices import Parameter
from cifar_utils.errors import InputError, known_name
from cifar_utils.reporting.runs import Run, find_notebook, known_parameters
from cifar_utils.text import slug

# What a run takes, and the kind of value in words.
FIELDS = {
    "name": (str, "text"),
    "notebook": (str, "text"),
    "parameters": (dict, "a mapping"),
    "seeds": (list, "a list of whole numbers"),
    "matrix": (dict, "a mapping of parameters to their values"),
    "tags": (list, "a list of words"),
    "timeout": (str, "text such as '90 min' or '2 h'"),
    "retries": (int, "a whole number, at least 0"),
}
SECONDS = {"s": 1, "min": 60, "h": 3600}
TIMEOUT = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(SECONDS)})")
MERGE = "tag:yaml.org,2002:merge"


def read_series(file: Path, profile: str, folder: Path) -> list[Run]:
    """Read a series file, check all of it, and return the runs of one profile.

    Parameters
    ----------
    file
        YAML: ``profiles`` maps names to lists of runs, each with ``name``, ``notebook`` (a name in
        the project, or a path seen from the file) and, where they are wanted, ``parameters`` that
        differ from the notebook's own, ``seeds``, ``matrix``, ``tags``, ``timeout`` and
        ``retries``. A ``matrix`` maps parameters to lists of values, or to labels with values; it
        stands for a run of each combination. Names get ``-label`` for each of its parameters and
        ``-s<seed>`` for ``seeds``. What several runs share may lie under ``shared``, for anchors.
    profile
        Which of the lists.
    folder
        Each run goes to its name below it.

    Raises
    ------
    InputError
        Where the file is not as it should be: a line for each mistake, ``file:line: what``.

    """
    reader = _Reader(file)
    profiles = reader.read_profiles()
    known_name("profile", profile, list(profiles))
    runs = {name: reader.read_runs(node, folder) for name, node in profiles.items()}
    if reader.mistakes:
        lines = sorted(set(reader.mistakes))
        raise InputError("\n".join(f"{file}:{line}: {what}" for line, what in lines))
    return runs[profile]


class _Reader:
    """Reads the nodes of a YAML file, which know their lines, and gathers what is wrong."""

    def __init__(self, file: Path):
        self.file = file
        self.mistakes: list[tuple[int, str]] = []
        self.notebooks: dict[str, tuple[Path, dict[str, Parameter]] | None] = {}
        self.flat: set[int] = set()

    def read_profiles(self) -> dict[str, yaml.Node]:
        try:
            self.loader = yaml.SafeLoader(self.file.read_text("utf-8"))
            root = self.loader.get_single_node()
            self._flatten(root or yaml.SequenceNode("", []))
            top = self._pairs(root) if isinstance(root, yaml.MappingNode) else {}
            for key, (line, _) in top.items():
                self._check(line, lambda key=key: known_name("key", key, ("profiles", "shared")))
            profiles = top["profiles"][1] if "profiles" in top else None
            if not isinstance(profiles, yaml.MappingNode) or not profiles.value:
                raise InputError(f"{self.file} has no 'profiles', which map names to lists of runs")
            return {name: node for name, (_, node) in self._pairs(profiles).items()}
        except OSError as error:
            why = f"can't be read ({error.strerror}); name a series file"
            raise InputError(f"{self.file} {why}") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.file}:{mark.line + 1}" if mark else str(self.file)
            raise InputError(f"{where}: it is no YAML ({error.problem})") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{self.file} is no YAML ({why})") from error

    def read_runs(self, node: yaml.Node, folder: Path) -> list[Run]:
        runs: dict[str, Run] = {}
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._mistake(node, "a profile is a list of runs, and has at least one")
            return []
        for row in node.value:
            for run in self._read_run(row, folder):
                if run.name in runs:
                    what = f"name {run.name!r} is another run's already; give each its own"
                    self._mistake(row, what)
                runs[run.name] = run
        return list(runs.values())

    def _read_run(self, node: yaml.Node, folder: Path) -> list[Run]:
        before = len(self.mistakes)
        if not isinstance(node, yaml.MappingNode):
            value = _short(self._value(node))
            self._mistake(node, f"{value} is not a run; it takes {', '.join(FIELDS)}")
            return []
        row: dict[str, Any] = {}
        nodes: dict[str, yaml.Node] = {}
        for key, (line, value_node) in self._pairs(node).items():
            if not self._check(line, lambda key=key: known_name("key", key, FIELDS)):
                continue
            value, (kind, wanted) = self._value(value_node), FIELDS[key]
            if type(value) is not kind or value == "":
                self._at(line, f"{key} is {_short(value)}; it must be {wanted}")
                row[key] = None  # it is there, but of no use
            else:
                row[key], nodes[key] = value, value_node
        for key in ("name", "notebook"):
            if key not in row:
                self._mistake(node, f"it has no {key}; a run takes {', '.join(FIELDS)}")
        name = row.get("name")
        if name and (Path(name).name != name or name.startswith(".")):
            what = f"name {name!r} names no folder; leave out slashes and first dots"
            self._mistake(nodes["name"], what)
        timeout = self._timeout(nodes.get("timeout"))
        tags = row.get("tags") or []
        if not all(isinstance(tag, str) for tag in tags):
            self._mistake(nodes["tags"], f"tags is {_short(tags)}; it must be {FIELDS['tags'][1]}")
        if (row.get("retries") or 0) < 0:
            what = f"retries is {row['retries']}; it must be {FIELDS['retries'][1]}"
            self._mistake(nodes["retries"], what)
        found = self._notebook(nodes.get("notebook"))
        if found is None:
            return []
        notebook, known = found
        given = {
            key: self._parameter(known, key, line, value)
            for key, (line, value) in self._pairs(nodes.get("parameters")).items()
        }
        axes = [*self._axes(nodes.get("matrix"), known, given)]
        if "seeds" in nodes:
            axes.append(self._seeds(nodes["seeds"], known, given, axes))
        if len(self.mistakes) > before:
            return []
        runs = []
        for combination in itertools.product(*(axis[1] for axis in axes)):
            parts = [row["name"], *(label for label, _ in combination)]
            chosen = {axis[0]: value for axis, (_, value) in zip(axes, combination, strict=True)}
            defaults = {key: parameter.default for key, parameter in known.items()}
            runs.append(
                Run(
                    folder / "-".join(parts),
                    notebook,
                    defaults | given | chosen,
                    tuple(tags),
                    timeout,
                    row.get("retries", Run.retries),
                )
            )
        return runs

    def _notebook(self, node: yaml.Node | None) -> tuple[Path, dict[str, Parameter]] | None:
        if node is None:
            return None
        name = self._value(node)
        if name not in self.notebooks:
            beside = self.file.parent / name
            is_path = beside.suffix == ".ipynb" and beside.is_file()

            def find() -> tuple[Path, dict[str, Parameter]]:
                notebook = beside if is_path else find_notebook(name)
                return notebook, known_parameters(notebook)

            self.notebooks[name] = self._check(node.start_mark.line + 1, find)
        elif self.notebooks[name] is None:
            self._check(node.start_mark.line + 1, lambda: find_notebook(name))
        return self.notebooks[name]

    def _parameter(
        self, known: Mapping[str, Parameter], key: str, line: int, node: yaml.Node
    ) -> Any:
        def check() -> Any:
            if key == "output":
                raise InputError("output is no parameter to give; a run's folder is its name")
            return known[known_name("parameter", key, known)].check(self._value(node))

        return self._check(line, check)

    def _axes(
        self, node: yaml.Node | None, known: Mapping[str, Parameter], given: Mapping[str, Any]
    ) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
        for key, (line, axis) in self._pairs(node).items():
            if key in given:
                self._at(line, f"{key} is in matrix and in parameters; leave it out of one")
            if isinstance(axis, yaml.MappingNode) and axis.value:
                items = [(label, line, value) for label, (line, value) in self._pairs(axis).items()]
            elif isinstance(axis, yaml.SequenceNode) and axis.value:
                items = [(None, value.start_mark.line + 1, value) for value in axis.value]
            else:
                what = f"{key} in matrix is {_short(self._value(axis))}; it must be a list of "
                self._at(line, what + "values, or labels with values")
                continue
            values = []
            for label, at, value_node in items:
                value = self._parameter(known, key, at, value_node)
                label = slug(value if label is None else label)
                if not label:
                    self._at(at, f"a value of {key} makes no name; write it as 'label: value'")
                values.append((label, value))
            yield key, values

    def _seeds(
        self,
        node: yaml.Node,
        known: Mapping[str, Parameter],
        given: Mapping[str, Any],
        axes: Sequence[tuple[str, Any]],
    ) -> tuple[str, list[tuple[str, Any]]]:
        line = node.start_mark.line + 1
        if "seed" in given or any(key == "seed" for key, _ in axes):
            self._at(line, "seed is given, and seeds too; leave one out")
        if not node.value:
            self._at(line, f"seeds is []; it must be {FIELDS['seeds'][1]}")
        items = [(item.start_mark.line + 1, item) for item in node.value]
        values = [self._parameter(known, "seed", at, item) for at, item in items]
        return "seed", [(f"s{value}", value) for value in values]

    def _timeout(self, node: yaml.Node | None) -> float | None:
        if node is None:
            return None
        text = self._value(node)
        match = TIMEOUT.fullmatch(text)
        seconds = float(match[1]) * SECONDS[match[2]] if match else 0
        if not seconds:
            self._mistake(node, f"timeout is {text!r}; it must be {FIELDS['timeout'][1]}")
        return seconds

    def _flatten(self, node: yaml.Node) -> None:
        """Follow each ``<<`` below a node, and say what is in a mapping twice."""
        if id(node) in self.flat or isinstance(node, yaml.ScalarNode):
            return
        self.flat.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._flatten(item)
            return
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE and key.value in seen:
                self._mistake(key, f"{_short(key.value)} is here twice; leave one out")
            seen.add(str(key.value))
            self._flatten(value)
        try:
            self.loader.flatten_mapping(node)
        except yaml.YAMLError as error:
            self._mistake(node, "'<<' takes a mapping: " + " ".join(str(error).split()))

    def _pairs(self, node: yaml.Node | None) -> dict[str, tuple[int, yaml.Node]]:
        """A mapping's keys, each with its line and value node."""
        # What is merged comes first, so that the mapping's own keys win.
        pairs = node.value if node else []
        return {str(key.value): (key.start_mark.line + 1, value) for key, value in pairs}

    def _value(self, node: yaml.Node) -> Any:
        try:
            return self.loader.construct_document(node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self._mistake(node, " ".join(str(error).split()))
            return None

    def _check(self, line: int, check: Callable[[], Any]) -> Any:
        try:
            return check()
        except InputError as error:
            self._at(line, str(error))
            return None

    def _mistake(self, node: yaml.Node, what: str) -> None:
        self._at(node.start_mark.line + 1, what)

    def _at(self, line: int, what: str) -> None:
        self.mistakes.append((line, what))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
