"""The command line, ``cifar-reports``: a thin layer over reports, series and data."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import re
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from cifar_utils import __version__
from cifar_utils.choices import REGISTRIES, read_registry
from cifar_utils.errors import InputError, known_name
from cifar_utils.files import FACTS, NOTEBOOK, PAGE, write_atomically
from cifar_utils.reporting.parameters import describe, read_parameters
from cifar_utils.reporting.runs import (
    find_notebook,
    list_notebooks,
    plan_run,
    project_folder,
)
from cifar_utils.runs.folder import Run, Status, read_cells
from cifar_utils.text import compact

INTERRUPTED = 130  # as a shell says it
PATH = click.Path(path_type=Path)


class Folder(click.Path):
    """The folder of runs; an address, which may hold a secret, is refused and not repeated."""

    def convert(self, value: str, *context: object) -> Path:
        if "://" in str(value):
            way_out = "mount it, or share it, and give the folder's path"
            raise InputError(f"--output takes a folder, not an address; {way_out}")
        return Path(super().convert(value, *context))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def commands() -> None:
    """Run notebooks about CIFAR and read them as pages.

    \b
    Examples:
      cifar-reports list                                     the notebooks and what they ask
      cifar-reports parameters 1                             what 01_vgg_like can be told
      cifar-reports options architecture                     the networks, and their options
      cifar-reports run 1 -p dataset cifar10 -p epochs 20    one run; ends in a page
      cifar-reports series                                   all runs of the quick profile
    """  # noqa: D301


class _Assignments(click.Command):
    """A command whose option -p takes NAME=VALUE too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        pairs = zip(["", *args], args, strict=False)
        split = [each.split("=", 1) if before == "-p" else [each] for before, each in pairs]
        return super().parse_args(ctx, [*itertools.chain.from_iterable(split)])


@commands.command(cls=_Assignments)
@click.argument("notebook")
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("--output", type=Folder(), metavar="DIR", help="The run's folder.")
@click.option("--force", is_flag=True, help="Run afresh, replacing the run that the folder holds.")
def run(notebook: str, given: tuple[tuple[str, str], ...], output: Path | None, force: bool) -> int:
    """Execute a notebook and export its page.

    NOTEBOOK is a name (01_vgg_like), its number (1), a part of it (vgg) or a path.

    The run's folder gets notebook.ipynb (as executed), report.html and record.json. Without
    --output it is reports/<notebook>-<dataset>-<architecture>-s<seed> in the project. A run that is
    done is not done again; one that was stopped goes on from its last checkpoint.

    \b
    Examples:
      cifar-reports run 01
      cifar-reports run 02_resnet -p dataset cifar10 -p architecture resnet18 --output reports/mine
      cifar-reports run resnet -p train_limit=5000 -p learning_rate=0.1 --force

    Exit status: 0 done, 1 the notebook failed (its page shows where), 2 bad input, 130 Ctrl-C.
    """  # noqa: D301
    planned = plan_run(find_notebook(notebook), dict(given), output)
    from cifar_utils.reporting.execute import execute

    try:
        with _interruptible():
            status = execute(planned, force=force, console=_console())
    except KeyboardInterrupt:
        return _interrupted(force)
    _tell(planned.name, planned, status, " before; --force runs it again")
    if status.word != "running":
        click.echo(f"page: {_short(planned.page)}")
    return int(status.word == "failed")


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

    A table of what -p takes: name, type, default, and what is allowed: what it means.
    """
    rows = [
        (p.name, p.type, repr(p.default), f"{p.allowed}: {p.meaning}".removeprefix(": "))
        for p in read_parameters(find_notebook(notebook)).values()
    ]
    _print_table(("name", "type", "default", "meaning"), rows)


@commands.command()
@click.argument("kind", type=click.Choice(list(REGISTRIES)))
@click.argument("name", required=False)
def options(kind: str, name: str | None) -> None:
    """List what a parameter such as architecture may be, or the options of one NAME.

    \b
    Examples:
      cifar-reports options schedule           each with what it does
      cifar-reports options schedule cosine    its options, as in: -p schedule "cosine(warmup=0.1)"
    """  # noqa: D301
    known = read_registry(kind)
    if name is None:
        rows = [(each, describe(known[each])[0].partition("\n")[0]) for each in known]
        return _print_table((kind, "what it is"), rows)
    function = known[known_name(kind, name, known)]
    text, meanings = describe(function)
    click.echo(f"{text}\n")
    taken = [*inspect.signature(function).parameters.values()][REGISTRIES[kind][2] :]
    rows = []
    for each in taken:
        default = "" if each.default is each.empty else repr(each.default)
        rows.append((each.name, each.annotation, default, meanings.get(each.name, "")))
    return _print_table(("option", "type", "default", "meaning"), rows)


@commands.command()
@click.argument("source", metavar="NOTEBOOK_OR_RUN_FOLDER", type=PATH)
def export(source: Path) -> None:
    """Export the page of an executed notebook, or of a run's folder.

    \b
    Examples:
      cifar-reports export reports/mine      writes reports/mine/report.html
      cifar-reports export executed.ipynb    writes executed.html beside it
    """  # noqa: D301
    from cifar_utils.reporting.export import export_page

    notebook = source / NOTEBOOK if source.is_dir() else source
    of_run = notebook.name == NOTEBOOK and notebook.with_name(FACTS).exists()
    page = notebook.with_name(PAGE) if of_run else notebook.with_suffix(".html")
    click.echo(f"page: {_short(export_page(notebook, page))}")


@commands.command()
@click.argument("file", required=False, type=PATH)
@click.option("--profile", default="quick", show_default=True, help="Which of the file's lists.")
@click.option("--only", multiple=True, metavar="GLOB", help="Runs whose name fits; repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Runs that have it; repeatable.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at once; else one on each GPU, or on each two cores.",
)
@click.option("--scheduler", metavar="ADDRESS", help="A dask scheduler whose workers to use.")
@click.option("--output", type=Folder(), metavar="DIR", help="Where the runs' folders go.")
@click.option("--force", is_flag=True, help="Run all of them afresh.")
@click.option("--dry-run", is_flag=True, help="Say how far each run has got, and run nothing.")
def series(
    file: Path | None,
    profile: str,
    only: tuple[str, ...],
    tags: tuple[str, ...],
    jobs: int | None,
    scheduler: str | None,
    output: Path | None,
    force: bool,
    dry_run: bool,
) -> int:
    """Run a series, several runs at once, and make the site of its runs.

    FILE says which runs make it; the default is notebooks/series.yaml. Runs that are done are
    skipped. A run whose parameters, notebook, code or data have changed since is run afresh. A
    failed run does not affect the others; it is tried again where its kernel died or its time ran
    out. Their folders go to reports/<profile> in the project unless --output names another. With
    --scheduler that is one which all machines share.

    \b
    Examples:
      cifar-reports series --profile cpu --dry-run
      cifar-reports series mine.yaml --only "resnet*" --tag cifar10 --jobs 2
      cifar-reports series --scheduler tcp://10.0.0.1:8786 --output /shared/reports

    Exit status: 0 all done, 1 runs failed (the last line says how many), 2 bad input, 130 Ctrl-C.
    """  # noqa: D301
    from cifar_utils.reporting.series import run_series, select
    from cifar_utils.reporting.series_file import read_series
    from cifar_utils.reporting.site import build_index

    if jobs and scheduler:
        raise InputError("--jobs is for workers of this machine's own; leave it or --scheduler out")
    folder = output or project_folder() / "reports" / profile
    runs = read_series(file or project_folder() / "notebooks" / "series.yaml", profile, folder)
    runs = select(runs, only, tags)
    if dry_run:
        rows = [(run.name, *run.status()[:2]) for run in runs]
        afresh = {"other": "stale"}  # a run of other parameters is run afresh, too
        _print_table(("run", "status", "why"), [(n, afresh.get(s, s), why) for n, s, why in rows])
        return 0
    failed = 0
    try:
        ended = run_series(runs, force=force, jobs=jobs, scheduler=scheduler, console=_console())
        with _interruptible(), contextlib.closing(ended):
            for number, (run, status) in enumerate(ended, 1):
                failed += status.word == "failed"
                _tell(f"[{number}/{len(runs)}] {run.name}", run, status, " before, skipped")
    except KeyboardInterrupt:
        return _interrupted(force)
    if folder.is_dir():
        click.echo(f"index: {_short(build_index(folder))}")
    if failed:
        click.echo(f"{failed} of {len(runs)} runs failed", err=True)
    return int(failed > 0)


def _tell(name: str, run: Run, status: Status, before: str) -> None:
    """Say in a line how a run ended."""
    if status.word == "failed":
        details = "".join(f"\n    {line}" for line in status.details)
        click.echo(f"{name} failed: {status.why}{details}", err=True)
    elif status.word == "running":
        click.echo(f"{name}: {status.why}")
    else:
        click.echo(f"{name}: {_results(run.folder)}done{before if status.word == 'done' else ''}")


@commands.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def site(folder: Path) -> None:
    """Make the site of all runs below FOLDER: index.html, curves.html, and the runs' pages.

    Pages are exported anew where their notebook, record or the template has changed, and linked
    with one another; nothing is executed.
    """
    from cifar_utils.reporting.site import build_index

    click.echo(f"index: {_short(build_index(folder, say=click.echo))}")


@commands.command()
@click.argument("folder", required=False, type=PATH)
@click.option("--dataset", metavar="NAME", help="Runs on one dataset only.")
@click.option("--csv", type=PATH, metavar="FILE", help="Write CSV instead; - is the terminal.")
@click.option("--json", type=PATH, metavar="FILE", help="Write JSON instead; - is the terminal.")
def leaderboard(
    folder: Path | None, dataset: str | None, csv: Path | None, json: Path | None
) -> None:
    """Show the finished runs below FOLDER, the best first within a dataset.

    Without FOLDER it is reports/published in the project. Accuracy is top-1 on the test images with
    its 95% interval; reported is what a report gives for the same architecture and dataset. CSV and
    JSON have more columns, and fractions and seconds as they are.

    \b
    Examples:
      cifar-reports leaderboard
      cifar-reports leaderboard reports/quick --dataset digits
      cifar-reports leaderboard --csv runs.csv
    """  # noqa: D301
    from cifar_utils.runs.leaderboard import in_words
    from cifar_utils.runs.leaderboard import leaderboard as read_leaderboard

    folder = folder or project_folder() / "reports" / "published"
    board = read_leaderboard(folder)
    if board.empty:
        raise InputError(f"no finished run below {_short(folder)}; make some: cifar-reports series")
    if dataset is not None:
        board = board[board["dataset"] == known_name("dataset", dataset, set(board["dataset"]))]
    texts = {
        csv: board.to_csv(index=False),
        json: board.to_json(orient="records", indent=1, double_precision=15) + "\n",
    }
    for file in filter(None, texts):
        _write_text(file, texts[file], "leaderboard")
    if not csv and not json:
        names = ("run", "dataset", "architecture")
        figures = ("top1", "interval", "reported", "parameters", "train_seconds", "date")
        words = in_words(board, (*names, *figures))
        _print_table(tuple(words), words.to_numpy().tolist())


@commands.command()
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=PATH)
@click.option("--figure", type=PATH, metavar="FILE.png", help="Draw curves and accuracies too.")
def compare(runs: tuple[Path, ...], figure: Path | None) -> None:
    """Compare runs, given by their folders, each with the first one.

    A table of the parameters in which they differ and of what came of it; then, for runs that were
    tested on the same images, McNemar's exact test of their top-1 accuracies, with the difference.
    """
    from cifar_utils.runs.compare import compare_runs

    if figure and figure.suffix != ".png":
        raise InputError(f"figure {figure} is no .png; give a name that ends so")
    comparison = compare_runs(runs)
    words = comparison.words.reset_index()
    _print_table(tuple(words), words.to_numpy().tolist())
    click.echo("\n".join(comparison.findings))
    if figure:
        write_atomically(figure, comparison.figure.png())
        click.echo(f"figure: {_short(figure)}")


@commands.command()
@click.argument("run", type=PATH)
@click.argument("pictures", metavar="PICTURE...", nargs=-1, required=True, type=PATH)
@click.option("--top", type=click.IntRange(1), default=3, help="How many classes of each picture.")
@click.option("--csv", type=PATH, metavar="FILE", help="Write CSV instead; - is the terminal.")
def predict(run: Path, pictures: tuple[Path, ...], top: int, csv: Path | None) -> None:
    """Classify pictures by the model of a run.

    RUN is the run's folder. PICTURE is a PNG, JPEG, WebP or BMP file of any size, or a folder of
    such files. The table has the most probable classes of each picture.

    \b
    Examples:
      cifar-reports predict reports/resnet20-cifar10-resnet20-s0 cat.jpg
      cifar-reports predict reports/mine holiday/ --top 1 --csv holiday.csv
    """  # noqa: D301
    from cifar_utils.runs.folder import load_run

    found = load_run(run).predict(*pictures, top=top)
    if csv:
        _write_text(csv, found.to_csv(index=False), "predictions")
        return
    shares = [f"{share:.1%}" for share in found["probability"]]
    _print_table(tuple(found), [*zip(found["picture"], found["class"], shares, strict=True)])


@commands.command("clean")
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--yes", is_flag=True, help="Delete them; else they are listed.")
def clean_command(folder: Path | None, yes: bool) -> None:
    """Delete the checkpoints of the finished runs below FOLDER.

    Without FOLDER it is reports/ in the project. Finished runs keep their record, page, model and
    predictions. Runs that can go on keep their checkpoints.
    """
    from cifar_utils.reporting.clean import clean

    size = 0
    for path, each in clean(folder or project_folder() / "reports", delete=yes):
        click.echo(f"{compact(each):>7}B  {_short(path)}")
        size += each
    click.echo(f"{compact(size)}B {'deleted' if yes else 'to delete; --yes deletes it'}")


@commands.command("publish")
@click.argument("runs", metavar="[RUN]...", nargs=-1, type=PATH)
@click.option("--anyway", is_flag=True, help="Publish runs of no known commit too.")
def publish_command(runs: tuple[Path, ...], anyway: bool) -> None:
    """Copy finished runs to reports/published, and rebuild the site, RESULTS.md and README's table.

    A published run keeps record.json, run.json, notebook.ipynb, report.html and predicted.npz.
    A run whose commit is unknown, or had changes that were not committed, is refused. Without RUN
    nothing is copied.
    """
    from cifar_utils.reporting.publish import publish
    from cifar_utils.reporting.results import write_results
    from cifar_utils.reporting.site import build_index

    root = project_folder()
    for folder in publish(runs, root / "reports" / "published", anyway):
        click.echo(f"published: {_short(folder)}")
    click.echo(f"index: {_short(build_index(root / 'reports' / 'published', say=click.echo))}")
    for written in write_results(root):
        click.echo(f"results: {_short(written)}")


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
    os.environ.pop("MPLBACKEND", None)  # a kernel's figures are inline
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack some letters
        stream.reconfigure(errors="replace")
    try:
        arguments = [_as_utf8(each) for each in (sys.argv[1:] if arguments is None else arguments)]
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


def _as_utf8(argument: str) -> str:
    try:
        return os.fsencode(argument).decode()
    except UnicodeError as error:
        raise InputError(f"argument {argument!a} is not UTF-8; write it so") from error


def _interrupted(force: bool) -> int:
    same = "the same command without --force" if force else "the same command"
    click.echo(f"interrupted; {same} goes on from the last checkpoint", err=True)
    return INTERRUPTED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP act as Ctrl-C while the block lasts, unless they are ignored."""
    kinds = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    kinds = [kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN]

    def interrupt(*_: object) -> None:
        for kind in kinds:  # once is enough: what is begun is being ended
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(kind, interrupt) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _console() -> Console:
    return Console(markup=False, highlight=False, emoji=False)


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    console = _console()
    console.width = console.width if console.is_terminal else 10_000  # a row a line
    console.print(as_table(titles, rows, console.width))


def as_table(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table | str:
    """Rows of text as a table; where it would break words, each row over several lines.

    Cells of fewer than 30 characters are not broken either.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    total = 0
    for title, *cells in zip(titles, *rows, strict=True):
        parts = [part for cell in cells for part in ([cell] if len(cell) < 30 else cell.split())]
        least = max(map(len, [title, *parts]))
        table.add_column(title, overflow="fold", min_width=least)
        total += least + 2
    if total <= width:
        for row in rows:
            table.add_row(*row)
        return table
    stacked = []
    for name, *cells in rows:
        told = [f"{title} {cell}" for title, cell in zip(titles[1:], cells, strict=True) if cell]
        lines = textwrap.wrap("; ".join(told), width - 4, break_long_words=False)
        stacked.append("\n    ".join([name, *lines]))
    return "\n".join(stacked)


def _write_text(file: Path, text: str, kind: str) -> None:
    """Write a file, and say so; ``-`` is the terminal."""
    if file == Path("-"):
        click.echo(text, nl=False)
        return
    try:
        write_atomically(file, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{file} can't be written ({reason}); name another file") from error
    click.echo(f"{kind}: {_short(file)}")


def _question(notebook: Path) -> str:
    """The first sentence of a notebook's prose, on one line."""
    sources = [source for kind, source in read_cells(notebook) if kind == "markdown"]
    lines = [line.strip() for source in sources for line in [*source.splitlines(), ""]]
    prose = itertools.dropwhile(lambda line: not line or line.startswith("#"), lines)
    paragraph = " ".join(itertools.takewhile(bool, prose)).replace("*", "")
    return re.split(r"(?<=[.?!]) ", paragraph, maxsplit=1)[0]


def _results(folder: Path) -> str:
    from cifar_utils.reporting.facts import record_facts
    from cifar_utils.runs.record import read_record

    facts = record_facts(read_record(folder))
    told = [fact for fact in facts if fact[0].startswith("test") or fact[0] == "time"]
    return "".join(f"{label} {value}{detail and f' ({detail})'}, " for label, value, detail in told)


def _short(path: Path) -> str:
    """A path as seen from the current folder where it is below it."""
    path = path.absolute()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
