"""What people expect of a command line: completion, templates, JSON, parts, and few lines."""

import json
import os
import shutil
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
from stored import write_run

from gradbench.cli import complete
from gradbench.cli.main import main
from gradbench.metrics import compare, rank, summary
from gradbench.results.published import published_suites
from gradbench.suites.suite import list_suites, load_suite

COMMAND = [sys.executable, "-m", "gradbench.cli"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("line") / "results")


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_the_version_is_that_of_the_package(call):
    import gradbench

    assert call("--version") == (0, f"gradbench {gradbench.__version__}\n", "")


def test_python_runs_the_package_as_the_command_line():
    answer = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("gradbench ") and answer.stderr == ""


# --- completion ---


def completed(monkeypatch, capsys, line):
    """What bash is offered at the end of a line: the kind and the text of each item."""
    words = line.split(" ")
    monkeypatch.setenv(complete.VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert main([]) == 0
    monkeypatch.delenv(complete.VARIABLE)
    return [tuple(item.split(",", 1)) for item in capsys.readouterr().out.split()]


LINES = {
    "gradbench re": ["report", "recommend"],
    "gradbench run --che": ["--checkpoint"],
    "gradbench run ps": ["psa"],
    "gradbench run psa -e straight_t": ["straight_through"],
    "gradbench run psa -p quic": ["quick"],
    "gradbench list nois": ["noises"],
    "gradbench check straight": ["straight_through"],
    "gradbench show RUN -e ": ["psa", "reinforce"],
    "gradbench table RUN -p ": ["a", "b"],
}


@pytest.mark.parametrize("line", LINES)
def test_a_shell_completes_commands_options_and_names(line, run, monkeypatch, capsys):
    found = completed(monkeypatch, capsys, line.replace("RUN", str(run)))
    assert found == [("plain", name) for name in LINES[line]]


def test_a_shell_completes_directories_and_files_itself(monkeypatch, capsys):
    assert completed(monkeypatch, capsys, "gradbench show ") == [("dir", "")]
    assert completed(monkeypatch, capsys, "gradbench run my/su") == [("file", "my/su")]
    assert completed(monkeypatch, capsys, "gradbench show missing -e zzz") == []


@pytest.mark.parametrize("shell", complete.SHELLS)
def test_the_script_of_a_shell_asks_gradbench(shell, call):
    code, out, error = call("completion", shell)
    assert (code, error) == (0, "") and f"{complete.VARIABLE}={shell}_complete" in out
    path = shutil.which(shell)
    if path and shell == "bash":
        subprocess.run([path, "-n"], input=out, text=True, check=True)


# --- templates ---


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["suite"], "my_suite.toml"),
        (["problem"], "my_problem.toml"),
        (["problem", "deep/own.py"], "deep/own.py"),
        (["estimator"], "my_estimator.py"),
        (["suite", "."], "my_suite.toml"),
    ],
)
def test_init_writes_a_file_once_and_never_over_another(arguments, name, call, tmp_path):
    code, out, error = call("init", *arguments)
    assert (code, error) == (0, "") and out.startswith(f"{name}: ")
    content = (tmp_path / name).read_text()
    assert "{file}" not in content and out.count("\n") == 1
    (tmp_path / name).write_text("mine")
    code, out, error = call("init", *arguments)
    assert (code, out) == (2, "") and error == (
        f"gradbench: {name!r} is there already; give another path\n"
    )
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sute"], "there is no template 'sute'; did you mean 'suite'?"),
        (["suite", "x.py"], "'x.py' is no name of a suite; give one that ends with .toml"),
        (["problem", "x"], "'x' is no name of a problem; give one that ends with .toml or .py"),
        (["suite", "/proc/x/y.toml"], "/proc/x"),
    ],
)
def test_init_refuses_what_it_cannot_write(arguments, words, call):
    code, out, error = call("init", *arguments)
    assert (code, out) == (2, "") and words in error and error.count("\n") == 1


def test_the_templates_of_suite_and_problem_are_read_as_they_are(call, tmp_path):
    for kind in ("suite", "problem"):
        call("init", kind)
    suite = load_suite("my_suite.toml")
    assert suite.problems[0].name == "quick" and load_suite("my_suite.toml", True).draws == 100
    content = (tmp_path / "my_suite.toml").read_text()
    own = content.replace('["quick"]', '["my_problem.toml"]')
    (tmp_path / "both.toml").write_text(own)
    assert tomllib.loads(own)["problems"] == ["my_problem.toml"]
    code, out, error = call("run", "both.toml", "--dry-run")
    assert (code, error) == (0, "")
    assert "problem my_problem: 3 hidden units, epoch 0, epoch 10" in out


@pytest.mark.slow
def test_the_templates_work_as_they_are(call, tmp_path):
    for kind in ("suite", "problem", "estimator"):
        assert call("init", kind)[0] == 0
    assert call("init", "problem", "own.py")[0] == 0
    code, out, _ = call("run", "my_suite.toml", "--quick")
    assert code == 0 and "figures in results/my_suite-quick/figures" in out
    code, out, _ = call("check", "my_estimator", "--plugin", "my_estimator.py")
    assert code == 0 and "unbiased" in out
    code, out, _ = call("recommend", "own.py:problem", "-e", "psa", "-e", "reinforce")
    assert code == 0 and "psa" in out
    suite = (tmp_path / "my_suite.toml").read_text()
    own = suite.replace('"quick"', '"my_problem.toml"').replace('"psa"', '"my_estimator"')
    (tmp_path / "own.toml").write_text(own)
    asked = ["run", "own.toml", "--plugin", "my_estimator.py", "-e", "my_estimator", "--quick"]
    code, out, error = call(*asked)
    assert code == 0 and "left: " in out, error


# --- tables as JSON, and in 80 columns ---


def same(rows, frame):
    """Whether JSON has the rows of a frame, with null for NaN."""
    found = pd.DataFrame(rows)
    assert len(found) == len(frame)
    shared = [column for column in frame if column in found]
    expected = frame[shared].reset_index(drop=True).astype(object)
    expected = expected.where(expected.notna(), None)
    for column in shared:
        for one, other in zip(found[column], expected[column], strict=True):
            if other is None or isinstance(other, float):
                assert other is None or str(one) == str(other) or one == other
            else:
                assert one == other
    return len(shared) > 5


def test_tables_are_printed_as_json_too(run, call):
    def rows(*arguments):
        code, out, error = call(*arguments, "--json")
        assert (code, error) == (0, "")
        return json.loads(out)

    assert same(rows("show", run), summary(run))
    assert same(
        rows("table", run, "--metrics", "snr", "--layer", "output"),
        summary(run).query("layer == 'output'"),
    )
    assert same(rows("rank", run), rank(run))
    assert same(rows("compare", run, run), compare(run, run))
    assert rows("show", run, "-p", "a") == rows("show", run, "--problem", "a")
    assert [row["suite"] for row in rows("list", "suites")] == list_suites()
    assert "noises" in rows("list")


def test_json_is_strict(run, call):
    def refuse(constant):
        raise AssertionError(constant)

    for command in (["rank", run, "--reach", "0.001%"], ["table", run, "--unbiasedness"]):
        json.loads(call(*command, "--json")[1], parse_constant=refuse)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["table", "RUN", "--json", "--format", "csv"],
            "--json is there beside --format csv;",
        ),
        (["list", "suites", "--json", "--markdown"], "list got --markdown and --json; choose one"),
        (["show", "noise", "normal", "--json"], "--json choose rows of results; leave them out"),
    ],
)
def test_json_beside_another_format_is_refused(arguments, words, run, call):
    code, out, error = call(*(run if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "") and words in error


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["run", "--help"], ["table", "--help"], ["show", "--help"], ["init", "--help"]),
        *(["completion", "--help"], ["show", "RUN"], ["table", "RUN"], ["rank", "RUN"]),
        *(
            ["compare", "RUN", "RUN"],
            ["table", "RUN", "--costs"],
            ["table", "RUN", "--unbiasedness"],
        ),
        *(["list", "suites"], ["list", "noises"], ["list", "metrics"], ["list", "estimators"]),
    ],
    ids=" ".join,
)
def test_what_is_printed_fits_into_80_columns(arguments, run, call):
    code, out, _ = call(*(run if word == "RUN" else word for word in arguments))
    assert code == 0
    long = [line for line in out.splitlines() if len(line) > 80]
    assert not long, long


# --- published results ---


def test_published_results_are_shown_like_results_of_a_run(call):
    assert published_suites(estimates=True)
    for name in published_suites(estimates=True):
        code, out, error = call("show", f"gradbench:{name}")
        assert (code, error) == (0, "") and f"{name}, replicate 0, epoch 1" in out
    code, out, _ = call("show", "gradbench:quick", "-e", "psa", "--layer", "output", "--json")
    (first, _) = json.loads(out)
    assert first["estimator"] == "psa" and first["bias_source"] == "enumeration"
    assert first["rmse_low"] <= first["rmse"] <= first["rmse_high"]
    named = ["gradbench:quick", "-e", "psa", "--layer", "output", "--json"]
    code, out, error = call("table", *named, "--metrics", "rmse", "--at", "16")
    mean = json.loads(out)[0]
    assert (code, error, mean["M"]) == (0, "", 16) and mean["rmse"] < first["rmse"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gradbench:quik"], "no results of 'quik'; did you mean 'quick'?"),
        (["gradbench:digits"], "has the networks of 'digits' but no estimates; choose one of"),
        (["gradbench:quick", "-e", "psaa"], "no estimator 'psaa' in these results; did you mean"),
        (["gradbench:quick", "--limit", "0"], "--limit is 0"),
    ],
)
def test_published_results_that_there_are_not_are_refused(arguments, words, call):
    for command in ("show", "table"):
        code, out, error = call(command, *arguments)
        assert (code, out) == (2, "") and words in error and error.count("\n") == 1


@pytest.mark.parametrize("command", [["table", "--costs"], ["table", "--unbiasedness"], ["rank"]])
def test_what_needs_draws_refuses_published_results_and_names_what_does_not(command, call):
    code, out, error = call(*command, "gradbench:quick")
    assert (code, out) == (2, "") and "has no draws; take show, compare or table without" in error


def test_help_needs_nothing_but_the_command_that_it_is_of():
    """The listing of commands reads them all; a command reads itself alone, and click."""
    source = (
        "import sys; from gradbench.cli.main import main; main(['run', '--help']);"
        "print(*(n for n in sys.modules if n.startswith('gradbench.cli.commands.')))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={**os.environ}
    )
    assert answer.stdout.splitlines()[-1] == "gradbench.cli.commands.run"
