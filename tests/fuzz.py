"""What is given wrong inputs of every kind, and what has to come of it.

A target makes a function of a random generator, which takes one input: it returns where the input
is taken, and raises a ``GradbenchError`` where it is refused. Whatever else it raises is a fault,
as is a number that is read from a damaged file and is not that of the file before.
"""

import ast
import contextlib
import io
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock
from urllib.parse import unquote

import click
import numpy as np
import tiny
import trained
from mutate import WORDS, changed_text, crafted, damaged
from small_data import FORMATS, small_sources, tarred, zipped
from stored import as_bytes, write_run

from gradbench.cli import options
from gradbench.cli.commands.plot import read_labels
from gradbench.cli.group import cli
from gradbench.cli.main import main
from gradbench.core import names, plugins
from gradbench.core.atomic import digest, to_json
from gradbench.core.errors import GradbenchError
from gradbench.core.index import FILE as INDEX
from gradbench.core.registry import KINDS, registry
from gradbench.core.specs import canonical, family, label
from gradbench.estimators import ESTIMATORS, check_spec, make_estimator
from gradbench.metrics.budget import budget as read_budget
from gradbench.models.network import dense_network
from gradbench.results import runs
from gradbench.results.drawn import current_figures, record_figures, state
from gradbench.results.manifest import _SUITE
from gradbench.results.published import load_estimates
from gradbench.results.shape import fault
from gradbench.results.store import Results
from gradbench.suites import datasets
from gradbench.suites.budget import budget
from gradbench.suites.datasets import cache, sources
from gradbench.suites.instance import build
from gradbench.suites.own_data import file as own_data
from gradbench.suites.plan import read_optimiser
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import _resolve
from gradbench.suites.suite import load_suite

PACKAGE = INDEX.parents[1]
One = Callable[[Random], object]


class Target(NamedTuple):
    """Something that takes inputs, and how many it gets in `make test` and in `make slow`."""

    few: int
    many: int
    make: Callable[[Path], One]


TARGETS: dict[str, Target] = {}


def target(few, many):
    def enter(make):
        TARGETS[make.__name__] = Target(few, many, make)
        return make

    return enter


def survived(name, count, folder):
    """How many of so many inputs were taken, and how many refused; each has a seed of its own."""
    with contextlib.ExitStack() as ends:
        ends.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of numbers beyond those of float64, and of gradbench
        one = TARGETS[name].make(folder)
        if isinstance(one, contextlib.AbstractContextManager):  # in which it takes inputs
            one = ends.enter_context(one)
        found = Counter()
        for number in range(count):
            try:
                found[answer(one, Random(f"{name} {number}"))] += 1
            except BaseException as error:
                error.add_note(f"input {number} of {name!r}")
                raise
    return found


def answer(one, rng):
    """What comes of an input, "taken" or "refused"."""
    try:
        one(rng)
    except GradbenchError as error:
        said = str(error)
        assert said.strip() and said.count("\n") <= 20 and len(said) < 90_000, said
        return "refused"
    return "taken"


# ------------------------------------------------------------------------------- what users write


def _texts(folder):
    return [path.read_text() for path in sorted((PACKAGE / "suites" / folder).glob("*.toml"))]


@target(few=40, many=6_000)
def suites(folder):
    """Suites in TOML: what is taken has a budget, and is what results may hold."""
    known = [*_texts("."), tiny.SUITE, trained.SUITE]
    tiny.write(folder, tiny=tiny.PROBLEM)
    path = folder / "suite.toml"

    def one(rng):
        path.write_text(changed_text(rng, rng.choice(known), known), errors="replace")
        suite = load_suite(path, quick=rng.random() < 0.2)
        suite = _resolve(suite, None, False, None, ())
        assert not (at := fault(suite.as_dict(), _SUITE, "suite")), at
        found = budget(suite)
        assert found.cells >= 0 and found.hours >= 0 and found.gigabytes >= 0
        found.check(suite.name)

    return one


@target(few=40, many=6_000)
def problems(folder):
    """Problems in TOML: what is small and is taken is built, or refused."""
    known = [*_texts("problems"), tiny.PROBLEM, trained.PROBLEM]
    path = folder / "problem.toml"

    def one(rng):
        path.write_text(changed_text(rng, rng.choice(known), known), errors="replace")
        problem = load_problem(path)
        numbers = [n for part in (problem.data, problem.measured) for n in part.arguments.values()]
        if rng.random() < 0.02 and all(type(n) is not int or n < 1000 for n in numbers):
            build(problem, rng.randrange(3))

    return one


@target(few=150, many=20_000)
def estimators(_):
    """Specifications of estimators: the canonical text of one that is taken is its own."""
    known = [*ESTIMATORS, *(spec for text in _texts(".") for spec in _specs(text))]
    network = dense_network((2, 3, 1), "logistic_loss")

    def one(rng):
        spec = changed_text(rng, rng.choice(known), known)
        try:
            found = canonical(spec)
        finally:
            read_optimiser(spec) if rng.random() < 0.1 else None
        assert canonical(found) == found
        assert isinstance(label(found), str) and isinstance(family(found), str)
        check_spec(spec)
        make_estimator(spec, network)

    return one


def _specs(text):
    import tomllib

    return tomllib.loads(text)["estimators"]


@target(few=150, many=15_000)
def texts_of_options(_):
    """Budgets, precisions, shares, labels and kinds of failures, as options have them."""
    readers = [
        (read_budget, ["100-evaluations", "1ms", "64-draws", "1e3 s", "2.5 us"]),
        (options.read_precision, ["rel_se=1%", "rel_se=0.01"]),
        (options.read_failures, ["worse", "different", "5%"]),
        (lambda text: read_labels([text]), ["psa=Ours", "concrete(temperature=0.1)=C"]),
        (lambda text: options.read_format(text, False), ["latex", "csv", "json", "terminal"]),
        (lambda text: options.WHOLE.convert(text, None, None), ["1", "100000", "-3"]),
    ]

    def one(rng):
        read, known = rng.choice(readers)
        found = read(changed_text(rng, rng.choice(known), [*known, *WORDS]))
        if isinstance(found, tuple) and hasattr(found, "amount"):
            assert 0 < found.amount < float("inf") and str(found)

    return one


@target(few=200, many=20_000)
def texts(_):
    """Names: the way to a file and back, a literal of Python, a line of a terminal."""
    known = ["psa", "epoch 10", "concrete(temperature=0.1)", "a[width=4]", "layer 1", *WORDS]

    def one(rng):
        name = changed_text(rng, rng.choice(known), known)
        with contextlib.suppress(UnicodeEncodeError):  # half of a pair is no text
            name.encode()
            assert len(found := names.figure_name(name)) <= 200 and "/" not in found
            assert ast.literal_eval(names.literal(name)) is not None
        assert "\n" not in names.visible(name) and "\x1b" not in names.visible(name)
        for shown in (names.in_latex, names.in_markdown, names.in_csv):
            assert "\x1b" not in shown(name)
        found = names.file_name(name)
        assert unquote(found) == name and not {"/", "\\", "\0"} & set(found) and found[0] != "."

    return one


PLUGIN = '''\
"""Things of several kinds."""

import jax.numpy as jnp

from gradbench.core.noise import NOISES, make_noise
from gradbench.estimators import register
from gradbench.estimators.reinforce import reinforce
from gradbench.suites import add_problem
from gradbench.suites.data import Examples, data_set


@register(family="mine", exactness="unbiased", source="here")
def mine(model, scale=1.0):
    """REINFORCE under another name."""
    return reinforce(model)


@data_set
def my_points(rng, points: int = 8):
    """Points."""
    return Examples(rng.standard_normal((points, 2)), rng.choice([-1.0, 1.0], points))


add_problem("mine", {"title": "Mine", "data": {"name": "my_points"}})
'''


@contextlib.contextmanager
def _forgotten():
    """What plugins that are loaded here have left in the process is gone afterwards."""
    with contextlib.ExitStack() as after:
        for kind in KINDS:
            after.enter_context(registry(kind).restored())
        after.enter_context(mock.patch.dict(plugins._loaded))
        yield


@target(few=8, many=500)
def plugin_files(folder):
    """Plugins, which may do anything: whatever they raise is told as theirs."""
    numbers = iter(range(10**9))

    def one(rng):
        path = folder / f"plugin_{next(numbers)}.py"
        text = changed_text(rng, PLUGIN, [PLUGIN, tiny.PROBLEM])
        path.write_bytes(text.encode(rng.choice(["utf-8", "utf-16"]), "surrogatepass"))
        modules, quiet = mock.patch.dict("sys.modules"), contextlib.redirect_stdout(io.StringIO())
        with _forgotten(), modules, quiet:
            plugins.load(path)

    return one


# --------------------------------------------------------------------------------- command lines

# What takes long, or needs a network: that it is asked for is enough here.
_LONG = [
    "gradbench.suites.runner.run",
    "gradbench.suites.runner.describe",
    "gradbench.advise.evaluate.evaluate",
    "gradbench.advise.recommend.recommend",
    "gradbench.plots.suite.plot",
    "gradbench.report.html.write_report",
    "gradbench.testing.check_all",
    "gradbench.testing.check_estimator",
    "gradbench.suites.datasets.download_files",
]


_LONG_SAID = "this would take long"


def _asked(*_, **__):
    raise GradbenchError(_LONG_SAID)


@target(few=30, many=4_000)
@contextlib.contextmanager
def command_lines(folder):
    """Words after `gradbench`: the exit code is 0, 1 or 2, and one sentence says what is wrong."""
    folder = folder / "a/b/c/d/e"  # so that no way up leads out of it
    folder.mkdir(parents=True)
    write_run(folder / "results", problems=("a",), replicates=1, checkpoints=(1,))
    shutil.copytree(folder / "results", folder / "copy")
    trained.write_runs(folder / "training", seeds=2, estimators=["exact", "psa"])
    tiny.write(folder)
    (folder / "mine.py").write_text("def problem():\n    return None\n")
    (folder / "empty").mkdir()
    words = [one for one in WORDS if "/" not in one and "\0" not in one]

    def one(rng):
        arguments = _arguments(rng, cli, words)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        said = err.getvalue()
        assert code in (0, 1, 2), (arguments, code, said)
        assert "Traceback" not in said and "\x1b" not in out.getvalue() + said, (arguments, said)
        if code == 2:
            assert said.startswith("gradbench: "), (arguments, said)
        if code == 2 and _LONG_SAID not in said:
            raise GradbenchError(said.strip())

    with contextlib.ExitStack() as patches, contextlib.chdir(folder), _forgotten():
        for name in _LONG:
            patches.enter_context(mock.patch(name, _asked))
        patches.enter_context(mock.patch.dict("os.environ", GRADBENCH_CACHE=str(folder / "cache")))
        yield one


# Values that are right for a parameter, by its name.
_RIGHT = {
    "directory": ["results", "results", "training", "gradbench:psa", "estimator", "noise"],
    "before": ["results", "gradbench:psa"],
    "after": ["results", "gradbench:psa"],
    "directories": ["results", "copy", "empty"],
    "suite": ["quick", "suite.toml", "mine.py:problem", "train-digits", "tiny.toml"],
    "name": ["psa", "logistic", "mnist", "r8"],
    "names": ["mnist", "r8"],
    "kind": ["suite", "problem", "estimator"],
    "problem": ["a", "tiny", "mine.py:problem"],
    "estimator": ["psa", "reinforce", "psa=Ours"],
    "estimators": ["psa", "arm", "mine.py:problem"],
    "layer": ["layer 1", "network", "hidden layers"],
    "metrics": ["rmse", "bias,std", "cosine"],
    "by": ["rmse", "bias", "training"],
    "form": ["latex", "csv", "json", "markdown"],
    "at_cost": ["100-evaluations", "1ms"],
    "budget": ["100-evaluations", "64-draws"],
    "reach": ["10%", "0.1"],
    "until": ["rel_se=1%"],
    "fail_on": ["worse", "different", "5%"],
    "time_limit": ["10", "inf"],
    "figure": ["rmse", "overview"],
    "label": ["psa=Ours"],
    "width": ["single", "3.5"],
    "plugin": ["mine.py"],
    "path": ["new.toml", "empty", "results"],
    "shell": ["bash", "fish"],
    "out": ["new", "merged", "results"],
    "checkpoint": ["epoch 1", "1"],
    "claim": ["unbiased", "biased"],
    "dask": ["tcp://127.0.0.1:1"],
}


def _arguments(rng, group, words):
    """A command with options and arguments, most of them right."""
    with click.Context(group) as context:
        name = rng.choice(group.list_commands(context))
        command = group.get_command(context, name)
    found = [name if rng.random() < 0.97 else changed_text(rng, name)]
    if isinstance(command, click.Group):
        return [*found, *_arguments(rng, command, words)]

    def value(parameter):
        right = rng.choice(_RIGHT.get(parameter.name, ["1", "2", "7"]))
        if rng.random() < 0.8:
            return right
        others = [one for several in _RIGHT.values() for one in several]
        wrong = [rng.choice(others), rng.choice(words), changed_text(rng, right, words)]
        return rng.choice(wrong)

    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            count = rng.choice([2, 2, 3, 1] if parameter.nargs < 0 else [1] * 8 + [0, 2])
            found += [value(parameter) for _ in range(count)]
        elif rng.random() < 0.2:
            flag = rng.choice(parameter.opts)
            flag = flag if rng.random() < 0.95 else changed_text(rng, flag)
            is_flag = getattr(parameter, "is_flag", False)
            found += [flag] if is_flag else [flag, value(parameter)]
    if rng.random() < 0.05:
        rng.shuffle(found)
    # Without what no process can get, or what leads elsewhere.
    return [one.replace("\0", "").replace("//", "").lstrip("/~")[:2000] for one in found]


# -------------------------------------------------------------------------------------- results


def _read_files(results):
    """By each file of results, what readers get of it, as bytes."""
    directory, found = results.directory, {}
    content = results.manifest["suite"]
    found[directory / "manifest.json"] = lambda: to_json(Results.open(directory).manifest).encode()
    for cell in results.cells():
        place, spec = cell.place, cell.estimator
        for path in cell.shards():
            found[path] = lambda cell=cell: b"".join(
                part for block in cell.load()[1] for part in as_bytes(block)
            )
        for kind, load in (
            ("checkpoints", lambda place, _: results.load_checkpoint(place)),
            ("references", lambda place, _: results.load_reference(place)),
            ("moments", results.load_moments),
            ("costs", results.load_cost),
        ):
            path = results._path(
                kind, place, None if kind in ("checkpoints", "references") else spec
            )
            if path.exists():
                found[path] = lambda load=load, place=place, spec=spec: _bytes(load(place, spec))
    for kind in runs.KINDS:
        for one in runs.stored(results, kind):
            path = runs.path_of(results, kind, one.identity)
            found[path] = lambda kind=kind, own=one.identity: _bytes(runs.load(results, kind, own))
    assert content and len(found) == sum(
        path.is_file() and path.suffix in (".json", ".npz", ".parquet")
        for path in directory.rglob("*")
    )
    return found


def _bytes(value):
    """All that is in a value, None where there is nothing."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if isinstance(value, dict):
        return b"".join(key.encode() + _bytes(value[key]) for key in value)
    if isinstance(value, tuple | list):
        return b"(" + b"".join(map(_bytes, value)) + b")"
    return repr(value).encode()


@contextlib.contextmanager
def _in_place(path, content, name=None):
    """A file with another content, and perhaps another name, for a moment."""
    whole, moved = path.read_bytes(), path.with_name(name or path.name)
    path.unlink()
    moved.write_bytes(content)
    try:
        yield
    finally:
        moved.unlink()
        path.write_bytes(whole)


def _damage_of(results):
    """Files that are damaged: what is read of one is what it was, or it is refused."""
    readers = _read_files(results)
    whole = {path: read() for path, read in readers.items()}
    content = {path: path.read_bytes() for path in readers}
    paths = sorted(readers)

    def one(rng):
        path = rng.choice(paths)
        like = [content[other] for other in paths if other.suffix == path.suffix]
        new = damaged(rng, content[path], like)
        shard = path.suffix == ".parquet" and rng.random() < 0.3 and new in like
        name = f"{path.name.split('.')[0]}.{digest(new)}.parquet" if shard else None
        with _in_place(path, new, name):
            found = readers[path]()
        assert found == whole[path], f"{path} was read as something else"

    return one


@target(few=100, many=20_000)
def damaged_results(folder):
    """Results of runs, with files cut, with bits flipped, or in each other's places."""
    write_run(folder / "results", problems=("a", "b"), replicates=1)
    return _damage_of(Results.open(folder / "results"))


@target(few=60, many=10_000)
def damaged_training(folder):
    """Results of training, likewise."""
    trained.write_runs(folder / "results", seeds=2, estimators=["exact", "psa", "arm"])
    return _damage_of(Results.open(folder / "results"))


COMMANDS = [["show"], ["table", "--format", "csv"], ["rank"], ["table", "--costs"]]
TIMES = [["rank", "--at-cost", "1ms"], ["rank", "--reach", "10%"], ["table", "--unbiasedness"]]


def _forgery_of(directory, commands, kinds):
    """Files with one thing changed, and a digest that is right, read by a command."""
    paths = [path for kind in kinds for path in sorted(directory.glob(kind))]

    def one(rng):
        path = rng.choice(paths)
        new = crafted(rng, path)
        name = (
            f"{path.name.split('.')[0]}.{digest(new)}.parquet"
            if path.suffix == ".parquet"
            else None
        )
        command = rng.choice(commands)
        with _in_place(path, new, name):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([command[0], str(directory), *command[1:]])
        said = err.getvalue()
        assert code in (0, 2) and (out.getvalue() or code), (command, code, said)
        assert "\x1b" not in out.getvalue() + said
        if code:
            assert said.startswith("gradbench: ") and said.count("\n") == 1, said
            raise GradbenchError(said.strip())

    return one


@target(few=8, many=1_000)
def forged_results(folder):
    """Results of runs whose digests are right: a table, or one sentence."""
    write_run(folder / "results", problems=("a",), replicates=1, checkpoints=(1,))
    kinds = ("manifest.json", "*/*/*/*.npz", "*/*/*/*/*.npz", "shards/*/*/*/*/*.parquet")
    return _forgery_of(folder / "results", [*COMMANDS, *TIMES], kinds)


@target(few=4, many=300)
def forged_training(folder):
    """Results of training whose digests are right: frames, or one sentence."""
    directory = trained.write_runs(folder / "results", seeds=2, estimators=["exact", "psa", "arm"])
    commands = [["show"], ["rank", "--by", "training"]]
    return _forgery_of(directory, commands, ("manifest.json", "*/*/*/*/*.npz"))


@target(few=8, many=500)
def published_estimates(folder):
    """Estimates without draws, damaged or forged."""
    shutil.copytree(PACKAGE / "suites/published/quick", folder / "quick")
    results = Results.open(folder / "quick")
    path, other = folder / "quick/estimates.npz", results.directory / "manifest.json"
    whole = _bytes(load_estimates(results))

    def one(rng):
        if rng.random() < 0.7:
            with _in_place(path, damaged(rng, path.read_bytes(), [other.read_bytes()])):
                assert _bytes(load_estimates(results)) == whole
            return
        with _in_place(path, crafted(rng, path)):
            load_estimates(results)

    return one


@target(few=20, many=300)
def records_of_figures(folder):
    """The record of figures: figures are drawn anew where it is damaged."""
    results = Results.open(write_run(folder / "results", problems=("a",), replicates=1))
    drawn = [results.figures / name for name in ("a.pdf", "b.svg")]
    for path in drawn:
        path.write_bytes(b"x")
    with Results.open_or_create(
        results.directory, results.manifest["suite"], 0, results.manifest["draws"], {"psa": "psa"}
    ) as writer:
        record_figures(writer, state(results), drawn)
    path = results.directory / "figures.json"
    assert current_figures(results) == drawn

    def one(rng):
        with _in_place(path, damaged(rng, path.read_bytes())):
            found = current_figures(results)
        assert found is None or set(found) <= set(drawn)

    return one


# ----------------------------------------------------------------------------------------- data


@target(few=60, many=6_000)
@contextlib.contextmanager
def archives_of_data(folder):
    """Files and archives that hold a data set, damaged: it is the right one, or refused."""
    known = small_sources()
    forms = [(name, files) for name, several in FORMATS.items() for files in several.values()]
    wraps = [zipped, tarred, lambda files: tarred(files, "w")]
    pool = [content for _, files in forms for content in files.values()]

    def one(rng):
        name, files = rng.choice(forms)
        shutil.rmtree(folder / "in", ignore_errors=True)
        (folder / "in").mkdir()
        if rng.random() < 0.5:
            path = folder / "in/archive"
            path.write_bytes(damaged(rng, rng.choice(wraps)(files), pool))
        else:
            path, broken = folder / "in", rng.choice(sorted(files))
            for part, content in files.items():
                new = damaged(rng, content, pool) if part == broken else content
                (path / part).write_bytes(new)
        made = datasets.add(name, path)
        arrays = cache.read(name, known[name])
        assert made == cache.entry(name) and cache.digest_of_all(arrays) == known[name].digest

    with (
        mock.patch.dict(sources.SOURCES, known),
        mock.patch.dict("os.environ", GRADBENCH_CACHE=str(folder / "cache")),
    ):
        yield one


@target(few=40, many=4_000)
@contextlib.contextmanager
def data_on_this_machine(folder):
    """A data set that was added, and data of the user's own: damaged ones are refused."""
    known = small_sources()
    inputs, targets = np.arange(12.0).reshape(4, 3), np.array([0, 1, 1, 0])
    own = folder / "own.npz"
    np.savez(own, inputs=inputs, targets=targets)
    content = own.read_bytes()

    def one(rng):
        if rng.random() < 0.5:
            entry = cache.entry("mnist")
            with _in_place(entry, damaged(rng, entry.read_bytes(), [content])):
                cache._read.cache_clear()
                arrays = cache.read("mnist", known["mnist"])
            assert cache.digest_of_all(arrays) == known["mnist"].digest
            return
        own.write_bytes(damaged(rng, content))
        found = own_data(np.random.default_rng(0), str(own), digest=right)
        assert (found.inputs == inputs).all() and (found.targets == targets).all()

    from gradbench.suites.own_data import digest_of_file

    right = digest_of_file(str(own))
    with (
        mock.patch.dict(sources.SOURCES, known),
        mock.patch.dict("os.environ", GRADBENCH_CACHE=str(folder / "cache")),
    ):
        files = FORMATS["mnist"]["idx"]
        (folder / "in").mkdir()
        for name, data in files.items():
            (folder / "in" / name).write_bytes(data)
        datasets.add("mnist", folder / "in")
        yield one
