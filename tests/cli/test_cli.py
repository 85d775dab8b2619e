"""The command line: every command, its exit codes, and one sentence for whatever is wrong."""

import contextlib
import io
import json
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys

import pandas as pd
import pytest
import tiny
from pretended import pretend
from tiny import changed

import gradbench
from gradbench.cli import catalogue, commands
from gradbench.cli.commands import list as list_command
from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import KINDS, kind_of
from gradbench.estimators import ESTIMATORS
from gradbench.metrics.tables import table
from gradbench.results.drawn import record_figures, state
from gradbench.results.store import Results
from gradbench.suites.datasets.sources import SOURCES
from gradbench.suites.suite import list_suites, load_suite

COMMAND = [sys.executable, "-m", "gradbench.cli"]


@pytest.fixture
def call(capsys):
    """Runs a command: exit code, output and error."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Whatever is written by default is written here."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "1000")  # lines of tables are whole


@pytest.fixture
def no_figures(monkeypatch):
    """For tests of runs: drawing takes most of the time."""
    monkeypatch.setattr(
        "gradbench.plots.suite.plot", lambda directory: [directory / "figures" / "rmse.pdf"]
    )


# --- what the commands do ---


@pytest.mark.slow
def test_run_measures_draws_the_figures_and_says_where_they_are(finished, call):
    results = finished / "results"
    before = tiny.files(results)
    code, out, error = call("run", finished / "suite.toml", "--out", results)
    assert code == 0 and "Traceback" not in error
    figures = sorted(results.glob("figures/*"))
    assert {"rmse.pdf", "cosine.png"} <= {path.name for path in figures}
    count = len({path.stem for path in figures})
    assert out.splitlines()[0] == f"{count} figures in {results / 'figures'}"
    assert out.splitlines()[1] == f"the table: gradbench show {results}"
    assert before.items() <= tiny.files(results).items()


@pytest.mark.slow
def test_a_run_with_nothing_to_do_measures_and_draws_nothing(finished, call, monkeypatch):
    arguments = ("run", finished / "suite.toml", "--out", finished / "results")
    drawn = []

    def plot(directory):
        drawn.append(directory)
        results = Results.open(directory)
        figure = results.figures / "rmse.pdf"
        figure.touch()
        record_figures(results, state(results), [figure])
        return [figure]

    monkeypatch.setattr("gradbench.plots.suite.plot", plot)
    monkeypatch.setattr("gradbench.suites.runner.run", None)
    first, second = call(*arguments), call(*arguments)
    assert first == second and first[0] == 0 and len(drawn) == 1
    assert f"1 figure in {finished / 'results' / 'figures'}\n" in first[1]
    (finished / "results/figures/rmse.pdf").unlink()
    assert call(*arguments) == first and len(drawn) == 2


@pytest.mark.filterwarnings("always")
@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_run_goes_on_without_a_folder_for_compiled_programs_after_one_sentence(
    finished, call, tmp_path, monkeypatch
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "file" / "cache"))
    arguments = ("run", finished / "suite.toml", "--draws", "2", "--out", tmp_path / "results")
    code, out, error = call(*arguments)
    sentences = [line for line in error.splitlines() if line.startswith("gradbench: ")]
    assert code == 0 and "1 figure in" in out and len(sentences) == 1
    assert "compiled programs cannot be kept" in sentences[0] and "--no-cache" in sentences[0]
    code, _, error = call(*arguments[:-1], tmp_path / "again", "--no-cache")
    assert code == 0 and "gradbench: " not in error


@pytest.mark.usefixtures("no_figures")
def test_run_writes_to_results_and_the_name_of_the_suite_unless_told(call, tmp_path, monkeypatch):
    pretend(monkeypatch)
    suite = tiny.write(tmp_path / "suite")
    code, out, _ = call("run", suite, "--seed", "7", "--draws", "20")
    assert code == 0 and "1 figure in results/suite/figures\n" in out
    manifest = json.loads((tmp_path / "here/results/suite/manifest.json").read_text())
    assert (manifest["seed"], manifest["draws"], manifest["suite"]["averages"]) == (7, 20, [3, 10])


@pytest.mark.parametrize("suite", list_suites())
@pytest.mark.slow
def test_a_dry_run_of_every_suite_says_its_size_and_writes_nothing(suite, call, tmp_path):
    code, out, error = call("run", suite, "--dry-run")
    described = " ".join(str(one.data) for one in load_suite(suite).problems)
    if any(name in described for name in SOURCES):  # which are not on every machine
        assert (code, out) == (2, "") and "is not on this machine; type 'gradbench data" in error
    else:
        counted = "draws in all" if load_suite(suite).plan is None else "methods are trained"
        assert (code, error) == (0, "")
        assert f"suite '{suite}', seed 0" in out and counted in out
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("suite", "lines"),
    [
        (
            "conv",
            ["  problem conv: 9-8 hidden units, epoch 0, epoch 3, epoch 10", "24 cells of 500"],
        ),
        (
            "vae",
            [
                "  problem vae-8: 8 hidden units, epoch 0, epoch 10",
                "  problem vae-8-8: 8-8 hidden units, epoch 0, epoch 10",
            ],
        ),
        (
            "weights",
            [
                "  problem weights[binary-connect]: 4 hidden units, 12 binary weights, epoch 0, "
                "epoch 100",
                "20 cells of 1,000 draws",
            ],
        ),
    ],
)
@pytest.mark.first(1)
def test_a_dry_run_of_a_quick_form_says_what_is_enumerated_and_writes_nothing(
    suite, lines, call, tmp_path
):
    code, out, error = call("run", suite, "--quick", "--dry-run")
    assert (code, error) == (0, "")
    assert out.startswith(f"suite '{suite}-quick', seed 0: ")
    assert all(line in out for line in lines), out
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_a_quick_run_writes_to_a_directory_of_its_own(call, tmp_path):
    text = changed(tiny.SUITE, (', "arm", "straight_through"', ""))
    suite = tiny.write(tmp_path / "suite", f'{text}[quick]\ndraws = 12\n"data.points" = 4\n')
    code, out, _ = call("run", suite, "--quick")
    assert code == 0 and "the table: gradbench show results/suite-quick" in out
    manifest = json.loads((tmp_path / "here/results/suite-quick/manifest.json").read_text())
    assert (manifest["suite"]["name"], manifest["draws"]) == ("suite-quick", 12)
    assert manifest["suite"]["problems"][0]["data"]["arguments"] == {"points": 4}


@pytest.mark.slow
def test_show_prints_the_table_and_plot_draws_the_figures(finished, call):
    code, out, error = call("show", finished / "results")
    assert (code, error) == (0, "")
    assert "tiny, replicate 0, epoch 10, loss" in out and "straight_through" in out
    code, out, error = call("plot", finished / "results")
    assert (code, error) == (0, "")
    figures = sorted((finished / "results").glob("figures/*"))
    assert {"rmse.pdf", "cosine.png"} <= {path.name for path in figures}
    count = len({path.stem for path in figures})
    assert out == f"{count} figures in {finished / 'results' / 'figures'}\n"


def test_table_prints_the_metrics_and_the_layer_that_are_asked_for(finished_run, call):
    results = finished_run / "results"
    code, out, error = call("table", results)
    assert (code, error) == (0, "") and out == f"{table(gradbench.summary(results))}\n"
    asked = ["--metrics", "snr,rmse", "--layer", "output", "--at", "3", "--format", "csv"]
    code, out, error = call("table", results, *asked)
    assert (code, error) == (0, "")
    frame = gradbench.summary(results, 3)
    frame = frame[frame["layer"] == "output"].reset_index(drop=True)
    found = pd.read_csv(io.StringIO(out))
    assert list(found.filter(regex="^(snr|rmse)").columns)[::4] == ["snr", "rmse"]
    pd.testing.assert_frame_equal(found, frame[list(found.columns)], rtol=1e-14)
    assert "[" in call("table", results, "--metrics", "cosine", "--intervals")[1]
    assert "verdict" in call("table", results, "--unbiasedness")[1]


@pytest.mark.slow
def test_rank_prints_the_estimators_at_a_budget_or_what_an_error_takes(finished_run, call):
    results = finished_run / "results"
    asked = ["--by", "bias", "--at-cost", "20-evaluations", "--layer", "layer 1"]
    code, out, error = call("rank", results, *asked)
    assert (code, error) == (0, "")
    assert "tiny, replicate 0, epoch 10, layer 1: at 20 evaluations" in out
    _, out, _ = call("rank", results, *asked, "--format", "csv")
    expected = gradbench.rank(results, "bias", "20-evaluations", "layer 1")
    assert pd.read_csv(io.StringIO(out))["estimator"].tolist() == expected["estimator"].tolist()
    code, out, error = call("rank", results, "--reach", "10%")
    assert (code, error) == (0, "") and "network: a relative RMSE of 0.1 needs" in out


@pytest.mark.slow
def test_what_is_not_finished_is_said_beside_tables_and_rankings(finished, call):
    for shard in (finished / "results").glob("shards/*/*/epoch*10/psa/*.parquet"):
        shard.unlink()
    for command in (["table"], ["rank"], ["rank", "--reach", "10%"]):
        code, out, error = call(command[0], finished / "results", *command[1:])
        assert code == 0 and out.count(" psa ") > 0
        assert error.endswith(
            "1 of 8 cells is not finished; the same `gradbench run` continues it\n"
        )


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("estimators", ["psa", "darn(phi=0.5)", "multilinear", "Williams 1992"]),
        ("problems", ["digits", "network 2-5-5-5-1"]),
        ("suites", ["width", "depth", "the experiment of the PSA paper"]),
        ("noises", ["logistic", "normal", "uniform", "triangular", "laplace"]),
        ("metrics", ["rmse", "cosine", "snr"]),
        ("formats", ["terminal  text     Aligned columns of text.", "latex", "csv"]),
        ("format", ["terminal", "csv"]),
    ],
)
def test_list_prints_the_things_of_a_kind(call, kind, some):
    code, out, error = call("list", kind)
    assert (code, error) == (0, "")
    assert all(words in out for words in some)


def test_list_alone_prints_the_kinds_as_they_can_be_typed(call):
    code, out, error = call("list")
    assert (code, error) == (0, "") and " " not in out
    assert [kind_of(line) for line in out.splitlines()] == list(KINDS)


@pytest.mark.parametrize("kind", ["format", "formats"])
def test_show_tells_the_facts_about_a_thing_of_any_kind(call, kind):
    code, out, error = call("show", kind, "text")
    assert (code, error) == (0, "")
    assert re.fullmatch(
        r"terminal\n\n    Aligned columns of text.\n\n"
        r"aliases     text\ndefined in  text.py, line \d+\n",
        out,
    )


@pytest.mark.parametrize("width", [120, 200])
def test_the_table_of_estimators_fits_into_the_terminal(width, call, monkeypatch):
    whole = call("list", "estimators")[1]
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = call("list", "estimators")
    assert max(map(len, out.splitlines())) <= width < max(map(len, whole.splitlines()))
    assert len(out.splitlines()) > len(whole.splitlines())
    columns = [out.index(word) for word in whole.splitlines()[0].split("  ") if word]
    assert columns == sorted(columns)
    row = re.split(r"[\s-]+", re.search(r"^arm.*", whole, re.MULTILINE)[0])
    assert [word for word in row if word not in re.split(r"[\s-]+", out)] == []


def test_the_table_in_markdown_has_every_cell(call):
    code, out, _ = call("list", "suites", "--markdown")
    lines = out.splitlines()
    assert (code, lines[:2]) == (0, ["| suite | title |", "| --- | --- |"])
    assert [line.split(" | ")[0] for line in lines[2:]] == [f"| `{s}`" for s in list_suites()]
    estimators = call("list", "estimators", "--markdown")[1].splitlines()
    assert {line.count(" | ") for line in estimators} == {9}
    (arm,) = (line for line in estimators if line.startswith("| `arm("))
    assert "| independent descendants in several layers |" in arm
    assert arm.endswith("| [Yin & Zhou 2019](https://arxiv.org/abs/1807.11143) |")
    (psa,) = (line for line in estimators if line.startswith("| `psa("))
    assert psa.startswith("| `psa(tolerance=0.001)` | path sample-analytic | sah |")


def test_show_estimator_tells_formula_class_cost_and_source(call):
    code, out, error = call("show", "estimator", "darn(phi=0.3)")
    assert (code, error) == (0, "")
    lines = dict(line.split("  ", 1) for line in out.splitlines()[-12:] if "  " in line)
    found = {name: value.strip() for name, value in lines.items()}
    assert out.startswith("darn(phi=0.3)\n\n    J = (b - phi) d log P(b) / da")
    assert found["exact for"] == "one layer and multilinear objectives (multilinear)"
    assert found["cost per draw"].startswith("objective: 1, its gradient: 1, layers: L (")
    assert found["source"].startswith("Gregor et al. 2014")
    assert found["paper"] == "https://arxiv.org/abs/1310.8499"
    assert found["full name"] == ESTIMATORS["darn"].full_name
    assert found["needs"] == "a differentiable objective"
    assert catalogue.estimator("darn(phi=0.3)") + "\n" == out
    assert "(quadratic)" in call("show", "estimator", "darn")[1]


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_is_shown(name):
    text = catalogue.estimator(name)
    assert ESTIMATORS[name].summary in text and ESTIMATORS[name].source in text


def test_results_in_a_directory_called_estimator_are_shown(finished, call, monkeypatch):
    (finished / "results").rename(finished / "estimator")
    monkeypatch.chdir(finished)
    code, out, error = call("show", "estimator")
    assert (code, error) == (0, "") and "tiny, replicate 0, epoch 10, loss" in out


# --- what is wrong ---

BAD = {
    "list": (["list", "nosies"], "unknown kind 'nosies'; did you mean 'noises'?"),
    "no such suite": (["run", "psaa"], "unknown suite 'psaa'"),
    "no such file": (["run", "nothing.toml"], "cannot read nothing.toml"),
    "directory as suite": (["run", "FOLDER"], "cannot read"),
    "binary as suite": (["run", "BINARY"], "is not valid TOML"),
    "wrong key": (["run", "WRONG_KEY"], "line 5: unknown key drawz; did you mean 'draws'?"),
    "wrong type": (["run", "WRONG_TYPE"], 'line 4: draws is "many"; give a whole number'),
    "no such problem": (["run", "NO_PROBLEM"], "line 2: cannot read"),
    "no such estimator": (["run", "NO_ESTIMATOR"], "is \"psb\"; did you mean 'psa'?"),
    "no draws": (["run", "SUITE", "--draws", "0"], "number of draws is 0"),
    "less than none": (["run", "SUITE", "--draws", "-3"], "number of draws is -3"),
    "seed": (["run", "SUITE", "--seed", "-1"], "seed is -1"),
    "no quick form": (["run", "SUITE", "--quick"], "line 1: the suite has no quick form; add a"),
    "wrong quick form": (["run", "QUICK", "--quick"], "line 7, quick: unknown key drawz; did you"),
    "dry seed": (["run", "SUITE", "--seed", "-1", "--dry-run"], "seed is -1"),
    "out is a file": (["run", "SUITE", "--out", "SUITE"], "is not a directory"),
    "out is foreign": (["run", "SUITE", "--out", "FOLDER"], "has no manifest.json"),
    "out is below a file": (["run", "SUITE", "--out", "SUITE/out"], "cannot "),
    "out is unwritable": (["run", "SUITE", "--out", "/proc/out"], "cannot write '/proc/out'"),
    "out is too long": (["run", "SUITE", "--out", "x" * 300], "File name too long"),
    "out of another seed": (["run", "FINISHED", "--seed", "1", "--out", "RESULTS"], "with seed"),
    "out of other draws": (["run", "FINISHED", "--draws", "9", "--out", "RESULTS"], "71, not 9"),
    "out of another suite": (["run", "SUITE", "--out", "RESULTS"], "of another suite"),
    "show nothing": (["show", "nothing"], "there is no 'nothing/manifest.json'"),
    "show empty": (["show", "."], "there is no 'manifest.json'"),
    "show a file": (["show", "SUITE"], "there is no"),
    "show corrupted": (["show", "CORRUPTED"], "is not a manifest"),
    "show newer": (["show", "NEWER"], "has schema 99"),
    "show begun": (["show", "BEGUN"], "no finished cell yet"),
    "show too long": (["show", "x" * 300], "File name too long"),
    "show no estimator": (["show", "estimator"], "show estimator got no name; give one, as in"),
    "show no such one": (["show", "estimator", "pas"], "'pas'; did you mean 'psa'?"),
    "show a wrong one": (["show", "estimator", "concrete(temperature=0)"], "temperature is 0; "),
    "show two": (["show", "RESULTS", "psa"], "and 'psa'; give one directory, or a kind and a name"),
    "show no kind": (["show", "estimater", "psa"], "estimator psa (did you mean 'estimators'?)"),
    "show no format": (["show", "format", "cvs"], "unknown format 'cvs'; did you mean 'csv'?"),
    "show no name": (["show", "formats"], "show formats got no name; give one, as in"),
    "no such plugin": (["plot", "RESULTS", "--plugin", "p.py"], "cannot read the plugin 'p.py'"),
    "table nothing": (["table", "nothing"], "there is no 'nothing/manifest.json'"),
    "table begun": (["table", "BEGUN"], "no finished cell yet"),
    "table no metric": (["table", "RESULTS", "--metrics", "rmse,csine"], "did you mean 'cosine'?"),
    "table an M": (["table", "RESULTS", "--at", "7", "--metrics", "cosine"], "take an M that they"),
    "table no M": (["table", "RESULTS", "--at", "0"], "--at is 0; give a whole number of at least"),
    "table no layer": (["table", "RESULTS", "--layer", "layer 2"], "did you mean 'layer 1'?"),
    "table no form": (
        ["table", "RESULTS", "--format", "html"],
        "unknown format 'html'; choose one",
    ),
    "table one replicate": (["table", "RESULTS", "--over-replicates"], "replicate"),
    "rank nothing": (["rank", "nothing"], "there is no 'nothing/manifest.json'"),
    "rank begun": (["rank", "BEGUN"], "no finished cell yet"),
    "rank no metric": (["rank", "RESULTS", "--by", "rsme"], "'rsme'; did you mean 'rmse'?"),
    "rank no budget": (["rank", "RESULTS", "--at-cost", "1h"], "'1h' is not a budget; give dra"),
    "rank no layer": (["rank", "RESULTS", "--layer", "2"], "there is no layer '2' at tiny/0/epoch"),
    "rank no form": (["rank", "RESULTS", "--format", "html"], "unknown format 'html'"),
    "rank no error": (
        ["rank", "RESULTS", "--reach", "0%"],
        "--reach is '0%'; give a relative RMSE",
    ),
    "compare nothing": (["compare", "RESULTS", "nothing"], "there is no 'nothing/manifest.json'"),
    "compare begun": (["compare", "BEGUN", "RESULTS"], "no finished cell yet"),
    "compare an M": (
        ["compare", "RESULTS", "RESULTS", "--at", "7", "--by", "signs"],
        "at M = 7; t",
    ),
    "compare no M": (["compare", "RESULTS", "RESULTS", "--at", "-1"], "--at is -1; give a whole"),
    "compare no form": (["compare", "RESULTS", "RESULTS", "--format", "t"], "unknown format 't'"),
    "fail on": (
        ["compare", "RESULTS", "RESULTS", "--fail-on", "bad"],
        "--fail-on is 'bad'; give w",
    ),
    "fail on 5": (
        ["compare", "RESULTS", "RESULTS", "--fail-on", "5"],
        "different or a share as 5%",
    ),
    "fail on nan": (["compare", "RESULTS", "RESULTS", "--fail-on", "nan%"], "--fail-on is 'nan%'"),
    "plot nothing": (["plot", "nothing"], "there is no"),
    "plot empty": (["plot", "."], "there is no"),
    "plot corrupted": (["plot", "CORRUPTED"], "is not a manifest"),
    "plot begun": (["plot", "BEGUN"], "no finished cell yet"),
}


@pytest.fixture(scope="module")
def places(finished_run, tmp_path_factory):
    """What the capital letters stand for."""
    folder = tmp_path_factory.mktemp("bad")
    two = changed(tiny.SUITE, (', "arm", "straight_through"', ""))

    def suite(name, *replacements):
        path = tiny.write(folder / name, changed(two, *replacements))
        return path.rename(folder / name / f"{name}.toml")

    def results(name, content):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_bytes(content)
        return folder / name

    (folder / "binary.toml").write_bytes(b"\x00\xff\xfe" * 100)
    manifest = (finished_run / "results" / "manifest.json").read_bytes()
    return {
        "FOLDER": f"{folder}/",
        "BINARY": folder / "binary.toml",
        "SUITE": suite("plain"),
        "WRONG_KEY": suite("key", ("averages", "drawz")),
        "WRONG_TYPE": suite("type", ("71", '"many"')),
        "NO_PROBLEM": suite("problem", ("tiny.toml", "tini.toml")),
        "QUICK": suite("fast", ("averages = [3, 10]", "\n[quick]\ndrawz = 1")),
        "NO_ESTIMATOR": suite("estimator", ("psa", "psb")),
        "FINISHED": finished_run / "suite.toml",
        "RESULTS": finished_run / "results",
        "CORRUPTED": results("corrupted", manifest[:100]),
        "NEWER": results("newer", json.dumps(json.loads(manifest) | {"schema": 99}).encode()),
        "BEGUN": results("begun", manifest),
    }


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_with_exit_code_2_and_nothing_written(
    name, call, places, tmp_path
):
    arguments, words = BAD[name]
    for key in sorted(places, key=len, reverse=True):
        arguments = [argument.replace(key, str(places[key])) for argument in arguments]
    before = tiny.files(places["RESULTS"])
    code, out, error = call(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith("gradbench: ") and words in error and error.count("\n") == 1
    assert list((tmp_path / "here").iterdir()) == []
    assert tiny.files(places["RESULTS"]) == before


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gradbench.available([]), "unknown kind []; choose one of "),
        (lambda: gradbench.run(3), "the suite is 3; give its name or the path of a .toml file"),
    ],
)
def test_what_is_no_name_is_refused_in_one_sentence_by_the_library_too(call, sentence):
    with pytest.raises(GradbenchError) as caught:
        call()
    assert str(caught.value).startswith(sentence)


MALFORMED = {
    ("bench",): "there is no command 'bench'; choose one of check, compare, completion, data, ",
    ("reprot", "x"): "there is no command 'reprot'; did you mean 'report'?",
    ("run",): "run got no SUITE; give it, or see gradbench run --help",
    ("show",): "show got no DIR; give it, or see gradbench show --help",
    ("plot",): "plot got no DIR",
    ("table",): "table got no DIR",
    ("rank",): "rank got no DIR",
    ("recommend",): "recommend got no FILE.py:NAME",
    ("compare", "one"): "compare got no AFTER",
    ("run", "psa", "--seed", "x"): "--seed is 'x'; give a whole number",
    ("table", "one", "--at", "x"): "--at is 'x'; give a whole number",
    ("run", "psa", "--seeds", "3"): "run has no option '--seeds'; did you mean '--seed'?",
    ("run", "psa", "--drwas=3"): "run has no option '--drwas'; did you mean '--draws'?",
    ("run", "psa", "--zzz"): "run has no option '--zzz'; see gradbench run --help",
    ("run", "psa", "--draws"): "--draws got no value; give one, as in --draws VALUE",
    ("run", "a", "b"): "run: got unexpected extra argument (b); see gradbench run --help",
    ("run", "psa", "--quick=yes"): "--quick got a value; leave it out",
    ("--drwas", "3"): "gradbench has no option '--drwas'; see gradbench --help",
    ("table", "x", "--costs", "--unbiasedness"): "table got --unbiasedness and --costs; choose one",
    ("x" * 10**5,): "there is no command 'xxx",
}


@pytest.mark.parametrize("arguments", MALFORMED, ids=lambda words: " ".join(words)[:40])
def test_a_malformed_command_gets_one_sentence_with_the_remedy_and_exit_code_2(arguments, call):
    code, out, error = call(*arguments)
    assert (code, out) == (2, "")
    assert error.startswith(f"gradbench: {MALFORMED[arguments]}")
    assert error.count("\n") == 1 and len(error) < 500


def test_gradbench_alone_prints_the_help(call):
    assert call() == call("--help") == call("-h")
    code, out, error = call()
    assert (code, error) == (0, "") and out.startswith("Usage: gradbench ")
    listed = re.findall(r"^  (\w+)  +(\S.*)$", out.partition("Commands:")[2], re.MULTILINE)
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    assert sorted(name for name, _ in listed) == sorted(names)
    assert all(line.endswith(".") for _, line in listed)  # whole, in 80 columns too


def test_an_interrupted_command_says_how_to_continue_with_exit_code_130(call, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(list_command.command, "callback", interrupted)
    code, out, error = call("list")
    assert (code, out) == (130, "")
    assert "interrupted; what was measured is kept" in error


# --- real processes ---


# In the background, processes inherit that SIGINT is ignored; a terminal's do not.
AT_A_TERMINAL = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from gradbench.cli.main import main
sys.exit(main())
"""


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_and_the_same_command_continues(
    finished_run, call, tmp_path
):
    arguments = ["run", str(finished_run / "suite.toml"), "--out", str(tmp_path / "results")]
    command = [sys.executable, "-c", AT_A_TERMINAL, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    error = ""
    while not error.endswith(": arm,"):  # the line of the second estimator
        letter = process.stderr.read(1)
        assert letter, error
        error += letter
    os.killpg(process.pid, signal.SIGINT)
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130
    assert "run the same command to continue" in error and "Traceback" not in error
    cells = tiny.numbers(tmp_path / "results")
    assert cells and cells.items() < tiny.numbers(finished_run / "results").items()
    assert call(*arguments)[0] == 0
    assert tiny.numbers(tmp_path / "results") == tiny.numbers(finished_run / "results")


LIGHT = """
import sys
from gradbench.cli.main import main
assert main(sys.argv[1:]) == 0
heavy = {"jax", "numpy", "pandas", "pyarrow", "matplotlib", "scipy", "rich", "tqdm", "pydantic"}
heavy &= set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "Usage: gradbench"),
        (["run", "--help"], "Usage: gradbench"),
        (["list"], "estimators"),
        (["list", "estimators"], "multilinear"),
        (["show", "estimator", "psa"], "exact for"),
    ],
)
def test_help_and_facts_about_estimators_import_nothing_heavy(arguments, words):
    command = [sys.executable, "-c", LIGHT, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert words in answer.stdout


def test_what_is_printed_without_jax_is_what_the_registry_says():
    """The index serves a process of its own; here the registry is loaded."""
    for arguments in (["list", "estimators"], ["show", "estimator", "rodeo"]):
        command = [*COMMAND, *arguments]
        apart = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        with contextlib.redirect_stdout(io.StringIO()) as here:
            main(arguments)
        assert apart == here.getvalue()


def test_a_new_file_is_a_new_command(call, monkeypatch, tmp_path):
    (tmp_path / "greet.py").write_text(
        "import click\n\n@click.command()\n@click.argument('name')\n"
        "def command(name):\n    print(f'hello {name}')\n    return 3\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    assert call("greet", "you") == (3, "hello you\n", "")
    sys.modules.pop("gradbench.cli.commands.greet")


# Output that is buffered fails at the end, other output at once.
@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environment(request):
    return os.environ | {"PYTHONUNBUFFERED": request.param}


def test_a_reader_that_leaves_early_is_no_error(environment):
    process = subprocess.Popen(
        [*COMMAND, "list", "suites"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (0, b"")


def test_a_full_disk_behind_the_output_is_one_sentence(environment):
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [*COMMAND, "list", "suites"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    assert answer.returncode == 2
    assert "No space left on device" in answer.stderr and answer.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
@pytest.mark.slow
def test_closed_standard_streams_are_no_error(closed):
    command = f"{shlex.join(COMMAND)} list noises {closed}"
    answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert ("logistic" in answer.stdout) == (closed == "2>&-")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")]
)
def test_too_little_memory_is_one_sentence(monkeypatch, capsys, error):
    def exhausted(**_):
        raise error

    monkeypatch.setattr(list_command.command, "callback", exhausted)
    assert main(["list", "noises"]) == 2
    said = capsys.readouterr().err
    assert "memory" in said and "ask for less" in said and said.count("\n") == 1
