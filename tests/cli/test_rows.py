"""Which rows of results are printed, how many at most, and in whose pager."""

import io
import os
import pty
import shutil
import subprocess
import sys
import weakref

import pandas as pd
import pytest
from conftest import benchmark
from stored import write_run

from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.metrics import directory, rank, sample_complexity, summary, unbiasedness
from gradbench.metrics.directory import read_cells
from gradbench.metrics.selection import Selection
from gradbench.results.store import Results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two problems, two replicates, two checkpoints, two estimators: 16 cells of 3 rows."""
    return write_run(tmp_path_factory.mktemp("rows") / "results")


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def frame_of(out):
    return pd.read_csv(io.StringIO(out))


@pytest.mark.slow
def test_problems_estimators_and_layers_are_chosen(run, call):
    chosen = ["--problem", "a", "--estimator", "psa", "--layer", "output", "--layer", "network"]
    code, out, error = call("table", run, *chosen, "--format", "csv")
    assert (code, error) == (0, "")
    whole = frame_of(call("table", run, "--format", "csv")[1])
    rows = whole[(whole["problem"] == "a") & (whole["estimator"] == "psa")]
    rows = rows[rows["layer"] != "layer 1"].reset_index(drop=True)
    assert len(rows) == 2 * 2 * 2
    pd.testing.assert_frame_equal(frame_of(out), rows)
    shown = call("show", run, *chosen)[1]
    assert "a, replicate 1, epoch 30" in shown and "b, replicate" not in shown
    assert "reinforce" not in shown and "layer 1" not in shown
    assert shown.endswith("relative\n")  # the cells that are not shown do not count as missing
    ranks = frame_of(call("rank", run, "--problem", "b", "--format", "csv")[1])
    assert set(ranks["problem"]) == {"b"} and len(ranks) == 2 * 2 * 2
    changes = frame_of(call("compare", run, run, *chosen, "--format", "csv")[1])
    assert len(changes) == len(rows) and set(changes["change"]) == {"same"}


@pytest.mark.slow
def test_what_is_not_chosen_is_not_read(run, call, tmp_path):
    shutil.copytree(run, tmp_path / "damaged")
    for shard in (tmp_path / "damaged").glob("shards/b/*/*/psa/*.parquet"):
        shard.write_bytes(b"")
    for chosen in (["--problem", "a"], ["--estimator", "reinforce"]):
        for command in ("show", "table", "rank"):
            assert call(command, tmp_path / "damaged", *chosen)[0] == 0
    code, _, error = call("show", tmp_path / "damaged")
    assert code == 2 and "is corrupted" in error


def test_cells_that_are_missing_are_those_of_the_choice(run, call, tmp_path):
    shutil.copytree(run, tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun/shards/b/1")
    error = call("table", tmp_path / "begun", "--problem", "b", "--estimator", "psa")[2]
    assert "2 of 4 cells are not finished" in error
    assert call("table", tmp_path / "begun", "--problem", "a")[2] == ""
    shutil.rmtree(tmp_path / "begun/shards/b")
    code, _, error = call("rank", tmp_path / "begun", "--problem", "b")
    assert code == 2 and "no finished cell of these problems and estimators yet" in error


WRONG = {
    "--problem": ("aa", "there is no problem 'aa' in these results; did you mean 'a'?"),
    "--estimator": ("psaa", "there is no estimator 'psaa' in these results; did you mean 'psa'?"),
    "--layer": ("outptu", "there is no layer 'outptu'"),
    "--limit": ("0", "--limit is 0; give a whole number of at least 1"),
}


@pytest.mark.parametrize("command", ["table", "show", "rank", "compare"])
@pytest.mark.parametrize("option", WRONG)
def test_what_there_is_not_is_refused_in_one_sentence(run, call, command, option):
    name, sentence = WRONG[option]
    both = [run, run] if command == "compare" else [run]
    code, out, error = call(command, *both, option, name)
    assert (code, out) == (2, "") and sentence in error and error.count("\n") == 1


def test_rows_of_things_are_not_chosen(call):
    code, _, error = call("show", "estimator", "psa", "--limit", "3")
    assert code == 2 and "choose rows of results; leave them out" in error
    code, _, error = call("table", "x", "--over-replicates", "--limit", "3")
    assert code == 2 and "--over-replicates takes no --limit" in error


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["table"], 48),
        (["table", "--unbiasedness"], 32),
        (["table", "--costs"], 16),
        (["rank"], 16),
        (["rank", "--reach", "10%"], 16),
        (["compare", "RUN"], 48),
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_limit_prints_the_first_rows_and_says_how_many_are_left_out(run, call, command, rows):
    name, *more = (str(run) if word == "RUN" else word for word in command)
    whole = frame_of(call(name, run, *more, "--format", "csv")[1])
    code, out, error = call(name, run, *more, "--format", "csv", "--limit", "5")
    assert code == 0 and len(whole) == rows
    pd.testing.assert_frame_equal(frame_of(out), whole.head(5))
    assert f"{rows - 5} of {rows} rows are left out" in error
    said = call(name, run, *more, "--limit", "5")[1].splitlines()
    assert said[-1].startswith(f"{rows - 5} of {rows} rows are left out; choose with --problem")
    # The verdict is above the table, whose notes begin at the margin.
    table = said[next(k for k, line in enumerate(said) if "estimator  " in line) :]
    of_cells = (line for line in table if line.startswith("  "))
    assert sum(" psa " in line or " reinforce " in line for line in of_cells) == 5
    for limit in (rows, rows + 1):
        assert call(name, run, *more, "--limit", limit) == call(name, run, *more)


def test_a_limited_ranking_keeps_its_ties_and_show_its_last_lines(run, call):
    ranked = ["rank", run, "--at-cost", "100-evaluations"]
    whole, first = (call(*ranked, *more)[1] for more in ([], ["--limit", "1"]))
    lines = [[line.split() for line in text.splitlines()[:3]] for text in (first, whole)]
    assert lines[0] == lines[1] and "(tie)" in lines[0][2]
    shown = call("show", run, "--limit", "2")[1]
    assert "46 of 48 rows are left out" in shown and "exact gradients: " in shown


def suite(problems, estimators):
    return {
        "problems": [{"name": name, "base": name.partition("[")[0]} for name in problems],
        "estimators": estimators,
    }


def test_a_name_stands_for_its_variants_and_a_label_for_its_estimator():
    estimators = ["concrete(temperature=0.1)", "concrete(temperature=1)", "straight_through"]
    estimators += ["nested(activations='exact', weights='psa')"]
    content = suite(["toy[3 bits]", "toy[9 bits]", "other"], estimators)
    assert Selection.of(content) == Selection(
        frozenset(["toy[3 bits]", "toy[9 bits]", "other"]), frozenset(estimators)
    )
    found = Selection.of(content, ["toy"], ["concrete"])
    assert found == Selection(frozenset(["toy[3 bits]", "toy[9 bits]"]), frozenset(estimators[:2]))
    for name in ("concrete(temperature=1.0)", "concrete(temperature=1)"):
        assert Selection.of(content, ["toy[3 bits]"], [name]).estimators == {estimators[1]}
    assert Selection.of(content, [], ["ste"]).estimators == {"straight_through"}  # an alias
    assert Selection.of(content, [], ["psa x exact"]).estimators == {estimators[3]}
    with pytest.raises(GradbenchError, match=r"did you mean 'concrete\(temperature=1\)'"):
        Selection.of(content, [], ["concrete(temperature=2)"])


def test_the_sentence_on_an_unknown_name_of_very_many_is_short():
    content = suite([f"toy[{k}]" for k in range(1000)], ["psa"])
    with pytest.raises(GradbenchError, match="one of the 1001 that there are, such as") as error:
        Selection.of(content, ["zzz"])
    assert len(str(error.value)) < 200


def on_a_terminal(*arguments, lines, **more):
    """What a command prints where its input and output are a terminal of 80 columns."""
    owner, terminal = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("PAGER", "MANPAGER", "LESS")}
    environment |= {"LINES": str(lines), "COLUMNS": "80", "TERM": "xterm"} | more
    command = [sys.executable, "-m", "gradbench.cli", *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(terminal)
        out = b""
        try:
            while part := os.read(owner, 65536):
                out += part
        except OSError:  # the other end is closed
            pass
        os.close(owner)
        assert process.wait() == 0, process.stderr.read()
    return out.decode().replace("\r\n", "\n")


@pytest.mark.slow
def test_on_a_terminal_what_does_not_fit_is_shown_in_the_pager_and_nothing_else(run, tmp_path):
    command = ["show", "format", "csv"]
    paged = on_a_terminal(*command, lines=3, PAGER="sed s/^/paged:/")
    plain = on_a_terminal(*command, lines=100, PAGER="sed s/^/paged:/")
    assert [line.removeprefix("paged:") for line in paged.splitlines()] == plain.splitlines()
    assert all(line.startswith("paged:") for line in paged.splitlines()) and "paged" not in plain
    assert on_a_terminal(*command, lines=3, PAGER="cat") == plain
    assert on_a_terminal(*command, lines=3, PAGER="") == plain
    piped = subprocess.run(
        [sys.executable, "-m", "gradbench.cli", *command],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"LINES": "3", "PAGER": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stdout == plain


@pytest.fixture
def alive(monkeypatch):
    """Counts the cells that are in memory while a function reads."""
    honest, born, most = directory.fitting, [], [0]

    def counted(*arguments):
        stack = honest(*arguments)
        born.append(weakref.ref(stack))
        most[0] = max(most[0], sum(one() is not None for one in born))
        return stack

    monkeypatch.setattr(directory, "fitting", counted)
    return most


@pytest.mark.parametrize("function", [summary, unbiasedness])
def test_cells_are_let_go_when_their_rows_are_known(run, alive, function):
    assert len(function(run)) >= 32
    assert alive[0] <= 2


@pytest.mark.parametrize("function", [rank, lambda cells: sample_complexity(cells, 0.1)])
def test_the_cells_of_one_place_alone_are_held_at_a_time(run, alive, function):
    assert len(function(run)) == 16
    assert alive[0] <= 2 + 2 + 1  # the last place, this one, and the cell that is read


def test_copied_cells_have_the_numbers_of_the_cells_that_they_are_copied_from(run, tmp_path):
    """The benchmark of commands reads what they say: of 16 cells with two replicates, 40."""
    copies = tmp_path / "copies"
    benchmark("commands").copy_cells(run, copies, 40)
    assert len(list(read_cells(copies))) == 40
    assert Results.open(copies).manifest["suite"]["replicates"] == 6
    found, known = summary(copies), summary(run)
    assert set(found["replicate"]) == set(range(6))
    numbers = known.columns[known.columns.get_loc("M") :]
    place = ["problem", "checkpoint", "layer", "estimator"]
    for replicate, rows in found.groupby("replicate"):
        own = known[known["replicate"] == replicate % 2]
        right = rows[place].merge(own, how="left")
        pd.testing.assert_frame_equal(
            rows[numbers].reset_index(drop=True), right[numbers], check_dtype=False
        )
