"""The command line, ``cifar-reports``: a thin layer over reports, series and data."""

import itertools
import os
import re
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from cifar_utils import __version__
from cifar_utils.parameters import InputError, read_parameters
from cifar_utils.reports.runs import (
    find_notebook,
    list_notebooks,
    plan_run,
    project_folder,
    read_cells,
)

INTERRUPTED = 130  # as a shell says it
PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def commands() -> None:
    """Run notebooks about CIFAR and read them as pages.

    \b
    Examples:
      cifar-reports list                                     the notebooks and what they ask
      cifar-reports parameters 01                            what 01_vgg_like can be told
      cifar-reports run 01 -p dataset cifar10 -p epochs 20   one run; ends in a page
      cifar-reports series                                   all runs of the quick profile
    """  # noqa: D301


@commands.command()
@click.argument("notebook")
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("--output", type=PATH, metavar="DIR", help="The run's folder.")
@click.option("--force", is_flag=True, help="Run afresh, replacing the run that the folder holds.")
def run(notebook: str, given: tuple[tuple[str, str], ...], output: Path | None, force: bool) -> int:
    """Execute a notebook and export its page.

    NOTEBOOK is a name (01_vgg_like), the beginning of one (01) or a path.

    The run's folder gets notebook.ipynb (as executed), report.html and record.json. Without
    --output it is reports/<notebook>-<dataset>-<architecture>-s<seed> in the project. A run that is
    done is not done again; one that was stopped goes on from its last checkpoint.

    \b
    Examples:
      cifar-reports run 01
      cifar-reports run 02_resnet -p dataset cifar10 -p architecture resnet18 --output reports/mine
      cifar-reports run 02 -p train_limit 5000 -p learning_rate 0.1 --force

    Exit status: 0 done, 1 the notebook failed (its page shows where), 2 bad input, 130 Ctrl-C.
    """  # noqa: D301
    planned = plan_run(find_notebook(notebook), dict(given), output)
    from cifar_utils.reports.execute import execute

    try:
        outcome = execute(planned, force=force, console=_console())
    except KeyboardInterrupt:
        return _interrupted(force)
    if outcome.status == "failed":
        click.echo(f"{planned.name} failed: {outcome.error}", err=True)
    else:
        before = " before; --force runs it again" if outcome.status == "done" else ""
        click.echo(f"{planned.name}: {_results(planned.folder)}, done{before}")
    click.echo(f"page: {_short(planned.page)}")
    return int(outcome.status == "failed")


@commands.command("list")
def list_command() -> None:
    """List the notebooks, each with the question it asks."""
    rows = [(name, _question(path)) for name, path in list_notebooks().items()]
    if not rows:
        raise InputError(f"no notebooks in {_short(project_folder())}; go where notebooks/ is")
    _print_table(("notebook", "question"), rows)


@commands.command()
@click.argument("notebook")
def parameters(notebook: str) -> None:
    """Show what a notebook can be told.

    A table of what -p takes: name, type, default, allowed values, meaning.
    """
    known = read_parameters(find_notebook(notebook))
    known.pop("output", None)
    rows = [(p.name, p.type, repr(p.default), p.allowed, p.meaning) for p in known.values()]
    _print_table(("name", "type", "default", "allowed", "meaning"), rows)


@commands.command()
@click.argument("source", metavar="NOTEBOOK_OR_RUN_FOLDER", type=PATH)
def export(source: Path) -> None:
    """Export the page of an executed notebook, or of a run's folder.

    \b
    Examples:
      cifar-reports export reports/mine      writes reports/mine/report.html
      cifar-reports export executed.ipynb    writes executed.html beside it
    """  # noqa: D301
    from cifar_utils.reports.export import export_page

    notebook = source / "notebook.ipynb" if source.is_dir() else source
    of_run = notebook.name == "notebook.ipynb" and notebook.with_name("run.json").exists()
    page = notebook.with_name("report.html") if of_run else notebook.with_suffix(".html")
    click.echo(f"page: {_short(export_page(notebook, page))}")


@commands.command()
@click.argument("file", required=False, type=PATH)
@click.option("--profile", default="quick", show_default=True, help="Which of the file's lists.")
@click.option("--output", type=PATH, metavar="DIR", help="Where the runs' folders go.")
@click.option("--force", is_flag=True, help="Run all of them afresh.")
def series(file: Path | None, profile: str, output: Path | None, force: bool) -> int:
    """Run a series, and make the index page of its runs.

    FILE says which runs make it; the default is notebooks/series.yaml. Runs that are done are
    skipped; a run whose parameters or notebook have changed since is run afresh; one that fails
    stops no other. Their folders go to reports/<profile> in the project unless --output names
    another.

    Exit status: 0 all done, 1 a run failed, 2 bad input, 130 Ctrl-C.
    """
    from cifar_utils.series import read_series, run_series

    folder = output or project_folder() / "reports" / profile
    runs = read_series(file or project_folder() / "notebooks" / "series.yaml", profile, folder)
    from cifar_utils.reports.site import build_index

    failed = 0
    try:
        outcomes = run_series(runs, force=force, console=_console())
        for number, outcome in enumerate(outcomes, 1):
            name = f"[{number}/{len(runs)}] {outcome.run.name}"
            if outcome.status == "failed":
                failed += 1
                click.echo(f"{name} failed: {outcome.error}", err=True)
            elif outcome.status == "done":
                click.echo(f"{name}: done before, skipped")
            else:
                click.echo(f"{name}: {_results(outcome.run.folder)}, done")
    except KeyboardInterrupt:
        return _interrupted(force)
    if folder.is_dir():
        click.echo(f"index: {_short(build_index(folder))}")
    if failed:
        click.echo(f"{failed} of {len(runs)} runs failed", err=True)
    return int(failed > 0)


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def site(folder: Path) -> None:
    """Make the index page of all runs below FOLDER."""
    from cifar_utils.reports.site import build_index

    click.echo(f"index: {_short(build_index(folder))}")


@commands.group()
def data() -> None:
    """Fetch datasets, or tell about them."""


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download dataset NAME unless it is there, check it, and say where it is."""
    from cifar_utils.data import fetch as fetch_dataset

    click.echo(f"{name}: {_short(fetch_dataset(name))}")


@data.command()
@click.argument("name")
def info(name: str) -> None:
    """Tell about dataset NAME, downloading nothing: where it is, images, classes, fingerprint."""
    from cifar_utils.data import describe_dataset

    for key, value in describe_dataset(name).items():
        text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        click.echo(f"{key.replace('_', ' '):13}{text}".rstrip())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        The exit status: 0, 1 (a run failed), 2 (bad input) or 130 (Ctrl-C).

    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return commands.main(arguments or ["--help"], "cifar-reports", standalone_mode=False) or 0
    except InputError as error:
        click.echo(str(error), err=True)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "cifar-reports"
        click.echo(f"{error.format_message().rstrip('.')}; see {command} --help", err=True)
    except OSError as error:
        click.echo(f"{error.filename or 'the system'}: {error.strerror or error}", err=True)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    return 2


def _interrupted(force: bool) -> int:
    same = "the same command without --force" if force else "the same command"
    click.echo(f"interrupted; {same} goes on from the last checkpoint", err=True)
    return INTERRUPTED


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)


def _print_table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(*titles, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console = _console()
    console.width = console.width if console.is_terminal else 120
    console.print(table)


def _question(notebook: Path) -> str:
    """The first sentence of a notebook's prose, on one line."""
    sources = [source for kind, source in read_cells(notebook) if kind == "markdown"]
    lines = [line.strip() for source in sources for line in [*source.splitlines(), ""]]
    prose = itertools.dropwhile(lambda line: not line or line.startswith("#"), lines)
    paragraph = " ".join(itertools.takewhile(bool, prose)).replace("*", "")
    return re.split(r"(?<=[.?!]) ", paragraph, maxsplit=1)[0]


def _results(folder: Path) -> str:
    from cifar_utils.record import read_record
    from cifar_utils.reports.facts import record_facts

    facts = record_facts(read_record(folder))
    told = [fact for fact in facts if fact[0].startswith("test") or fact[0] == "time"]
    return ", ".join(f"{label} {value}{detail and f' ({detail})'}" for label, value, detail in told)


def _short(path: Path) -> str:
    """A path as seen from the current folder where it is below it."""
    path = path.absolute()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
