"""Plugins: estimators, problems and suites from files and packages, and what is wrong with them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from gradbench.cli.main import main
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import canonical
from gradbench.core.text import FORMATS
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.metrics.directory import read_cells
from gradbench.metrics.frames import coordinates, summary
from gradbench.plots.style import FAMILIES, families_in, family_of, family_styles, in_order
from gradbench.results.provenance import provenance
from gradbench.results.store import Results
from gradbench.suites.library import PROBLEMS, SUITES, add_problems
from gradbench.suites.read_problem import list_problems, load_problem
from gradbench.suites.suite import list_suites, load_suite

GUIDE = Path(__file__).parents[2] / "notebooks" / "guide"
PLUGIN = """\
from gradbench.estimators import register
from gradbench.estimators.reinforce import reinforce


@register(family="mine", exactness="unbiased", source="here")
def mine(model):
    \"\"\"REINFORCE under another name.\"\"\"
    return reinforce(model)
"""
FOLDERS = """\
from pathlib import Path

from gradbench.suites.library import add_problems, add_suites

add_problems(Path(__file__).parent / "problems")
add_suites(Path(__file__).parent / "suites")
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test loads is gone after it."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(plugins, "_begun", set(plugins._begun))
    modules = set(sys.modules)
    with ESTIMATORS.restored(), FORMATS.restored(), PROBLEMS.restored(), SUITES.restored():
        yield
    for name in set(sys.modules) - modules:
        if name.endswith(".py") or name.startswith("gradbench_other"):
            del sys.modules[name]


@pytest.fixture
def call(capsys):
    """Runs a command: exit code, output and error."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def folders(path, plugin=PLUGIN, estimator="mine"):
    """A plugin with a problem, a suite of it, and an estimator."""
    suite = tiny.changed(tiny.SUITE, ('"tiny.toml"', '"tinier"'), ('"arm"', f'"{estimator}"'))
    write(path / "suites" / "tiny-suite.toml", suite)
    write(path / "problems" / "tinier.toml", tiny.PROBLEM)
    return write(path / "both.py", plugin + FOLDERS)


# ------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("before", [True, False])
def test_the_plugin_option_may_stand_before_the_command_and_after_it(before, call, tmp_path):
    option = ("--plugin", write(tmp_path / "mine.py", PLUGIN))
    command = ("show", "estimator", "mine")
    code, out, error = call(*option, *command) if before else call(*command, *option)
    assert (code, error) == (0, "")
    assert out.startswith("mine\n\n    REINFORCE under another name.") and "Williams" not in out


def test_several_plugins_may_be_given_around_the_command(call, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # a narrow list leaves its last columns out
    one, other = (
        write(tmp_path / f"{name}.py", PLUGIN.replace("mine", name)) for name in ("one", "other")
    )
    code, out, error = call("--plugin", one, "list", "estimators", "--plugin", other)
    assert (code, error) == (0, "")
    assert re.search(r"^one +unbiased +1 +here$", out, re.MULTILINE)
    assert re.search(r"^other +unbiased +1 +here$", out, re.MULTILINE)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The results of a run whose estimator ``mine`` of the family of ARM comes from a plugin."""
    folder = tmp_path_factory.mktemp("measured")
    text = PLUGIN.replace('family="mine"', 'family="arm", aliases=("our_own",)')
    plugin = folders(folder, text, estimator="our-own")
    command = [sys.executable, "-m", "gradbench.cli", "run", "tiny-suite", "--plugin", str(plugin)]
    subprocess.run([*command, "--out", "results", "--draws", "20"], cwd=folder, check=True)
    return folder / "results"


@pytest.mark.slow
def test_a_run_with_a_plugin_measures_its_estimators_and_names_it_in_the_provenance(measured):
    facts = json.loads((measured / "manifest.json").read_text())["provenance"]
    (told,) = facts["plugins"]
    assert re.fullmatch(r"both\.py [0-9a-f]{16}", told)
    cells = tiny.numbers(measured)
    mine, same = ([cells[c] for c in cells if c[3] == name] for name in ("mine", "reinforce"))
    assert mine == same != []


@pytest.mark.slow
def test_an_alias_in_a_suite_is_stored_as_the_name(measured):
    suite = json.loads((measured / "manifest.json").read_text())["suite"]
    assert suite["estimators"] == ["reinforce", "mine", "straight_through", "psa"]


@pytest.mark.slow
def test_the_families_of_estimators_travel_with_the_results(measured):
    assert "mine" not in ESTIMATORS
    manifest = json.loads((measured / "manifest.json").read_text())
    assert manifest["families"] == {
        "mine": "arm",
        "psa": "psa",
        "reinforce": "reinforce",
        "straight_through": "straight_through",
    }
    cells = list(read_cells(measured))
    for frame in (summary(cells), coordinates(cells)):
        of = frame.drop_duplicates("estimator").set_index("estimator")["family"]
        assert of.to_dict() == manifest["families"]
        assert family_styles(frame)["mine"] == FAMILIES["arm"]
        assert in_order(frame) == ["reinforce", "mine", "straight_through", "psa"]
        assert family_of("mine(a=1)", families_in(frame)) == "arm"
    assert family_of("mine") == "mine"  # where nothing tells


def test_results_without_families_have_those_of_the_package(finished_run, tmp_path):
    shutil.copytree(finished_run / "results", tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    families = manifest.pop("families")
    manifest |= {"schema": 2}  # which had no digest
    del manifest["digest"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest))
    frame = summary(read_cells(tmp_path / "old"))
    assert dict(zip(frame["estimator"], frame["family"], strict=True)) == families
    # A run that goes on notes them.
    suite, seed, draws = manifest["suite"], manifest["seed"], manifest["draws"]
    with Results.open_or_create(tmp_path / "old", suite, seed, draws, families) as results:
        assert results.manifest["families"] == families
    assert json.loads((tmp_path / "old" / "manifest.json").read_text())["families"] == families


def test_an_alias_stands_for_its_name_wherever_an_estimator_is_named(tmp_path):
    text = PLUGIN.replace('source="here"', 'source="here", aliases=("our_own",)')
    plugins.load(write(tmp_path / "p.py", text))
    assert canonical("our-own") == canonical("Our_Own") == "mine"
    assert canonical("average(first='our-own', second='st-zgr')") == (
        "average(first='mine', second='st_zgr')"
    )
    assert canonical("nobody-knows(a=1)") == "nobody_knows(a=1)"
    assert make_estimator("our-own", lambda params, example, binary: 0.0)
    with pytest.raises(GradbenchError, match="did you mean 'mine'"):
        make_estimator("our_onw", lambda params, example, binary: 0.0)


FORMAT = """\
from gradbench.core.text import FORMATS, Format


def count(rows, right, heading):
    return f"{len(rows) - 1} rows, {right} columns of text: {heading}"


FORMATS.add("count", Format(count), aliases=("how_many",), summary="How many rows there are.")
"""


def test_a_plugin_may_add_a_thing_of_another_kind(finished_run, call, tmp_path):
    plugin = ("--plugin", write(tmp_path / "p.py", FORMAT))
    command = ("table", finished_run / "results", "--format", "how-many")
    code, out, error = call(*command, *plugin)
    assert (code, error) == (0, "") and "12 rows, 2 columns of text: tiny, replicate 0" in out
    assert "count     how_many  How many rows there are." in call("list", "formats")[1]
    shown = call("show", "format", "how-many")[1].splitlines()
    assert shown[2] == "    How many rows there are." and shown[-1] == "defined in  p.py, line 8"


def test_problems_and_suites_of_a_plugin_are_known_by_name(tmp_path):
    assert "plugins" not in provenance()
    plugins.load(folders(tmp_path))
    plugins.load(tmp_path / "both.py")  # once: what it adds is not there twice
    assert "tinier" in list_problems() and "psa" in list_problems()
    assert "tiny-suite" in list_suites()
    assert load_problem("tinier").title == "A tiny problem"
    assert load_suite("tiny-suite").problems[0].name == "tinier"
    with pytest.raises(GradbenchError, match="did you mean 'tinier'"):
        load_problem("tinyer")


@pytest.mark.slow
def test_the_example_of_the_guide_is_a_plugin(call, tmp_path):
    page = (GUIDE / "own_estimator.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    name = re.search(r"def (\w+)\(model", code)[1]
    code_, out, error = call("show", "estimator", name, "--plugin", write(tmp_path / "p.py", code))
    assert (code_, error) == (0, "") and out.startswith(name)

    def model(params, example, binary):
        return params[1] @ binary(params[0])

    params = (np.ones(2), np.ones(2))
    g = jax.grad(make_estimator(name, model))(params, jax.random.key(0), np.zeros((3, 1)))
    assert np.all(np.isfinite(g[0])) and np.any(np.asarray(g[0]) != 0)


# ----------------------------------------------------------------------------- what is wrong

WRONG = {
    "missing": (None, "cannot read the plugin '{}': No such file or directory; give the path"),
    "syntax": (
        "x = 1\nx = (",
        "the plugin 'p.py' fails at p.py, line 2, with SyntaxError: '(' was never closed; fix it",
    ),
    "error": ("x = 1\n\ny = x / 0\n", "fails at p.py, line 3, with ZeroDivisionError: division"),
    "error elsewhere": (
        "import json\n\n\ndef f():\n    json.loads('x')\n\n\nf()",
        "the plugin 'p.py' fails at p.py, line 5, with JSONDecodeError: Expecting value: line 1",
    ),
    "import": (
        "import nothing_of_that_name",
        "fails at p.py, line 1, with ModuleNotFoundError: No module named 'nothing_of_that_name'; ",
    ),
    "exit": ("raise SystemExit('a\\nb')", "fails at p.py, line 1, with SystemExit: a b; fix it"),
    "bytes": ("x = '\0'", "the plugin 'p.py' fails with "),
    "taken": (
        PLUGIN.replace("mine", "psa"),
        "plugin 'p.py': the estimator 'psa' (p.py, line 5) has a name that is taken by 'psa' "
        "(psa.py, line ",
    ),
    "alias taken": (
        PLUGIN.replace("source", 'aliases=["ST-ZGR"], source'),
        "the estimator 'ST-ZGR' (p.py, line 5) has a name that is taken by 'st_zgr' (zgr.py, line ",
    ),
    "no docstring": (
        re.sub(r'    """.*\n', "", PLUGIN),
        "plugin 'p.py': the estimator 'mine' (p.py, line 5) has no docstring; say in its first ",
    ),
    "no docstring of a format": (
        FORMAT.replace(', summary="How many rows there are."', ""),
        "plugin 'p.py': the format 'count' (p.py, line 8) has no docstring; say in its first line ",
    ),
    "no folder": (
        "from gradbench.suites.library import add_problems\nadd_problems('nowhere')",
        "(p.py, line 2): there are no problems in 'nowhere'; name a folder of TOML files",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_plugin_is_one_sentence_with_exit_code_2(name, call, tmp_path):
    content, sentence = WRONG[name]
    path = tmp_path / "p.py"
    if content is not None:
        write(path, content)
    known = dict(ESTIMATORS)
    code, out, error = call("list", "formats", "--plugin", path)
    assert (code, out) == (2, "")
    assert sentence.format(path) in error and error.count("\n") == 1
    assert known == ESTIMATORS
    assert call("list", "formats", "--plugin", path)[0] == 2  # nor is it taken for loaded


def test_an_estimator_of_one_plugin_is_not_redefined_by_another(tmp_path):
    plugins.load(write(tmp_path / "one" / "p.py", PLUGIN))
    make = ESTIMATORS["mine"].make
    with pytest.raises(
        GradbenchError, match=r"'mine' \(p.py, line 5\) has a name that is taken by"
    ):
        plugins.load(write(tmp_path / "two" / "p.py", PLUGIN))
    assert ESTIMATORS["mine"].make is make


@pytest.mark.parametrize("name", ["psa", "tinier"])
def test_a_problem_of_a_plugin_has_a_name_of_its_own(name, tmp_path):
    plugins.load(folders(tmp_path / "one"))
    write(tmp_path / "two" / f"{name}.toml", tiny.PROBLEM)
    with pytest.raises(GradbenchError, match=f"'{name}'.*; give "):
        add_problems(tmp_path / "two")
    assert load_problem("psa").title.startswith("Two overlapping classes")


# ------------------------------------------------------------------------------------ packages


def package(path, points, **modules):
    """Something like an installed package: modules and a folder that describes it."""
    for name, content in modules.items():
        write(path / f"{name}.py", content)
    about = path / "gradbench_other-1.2.dist-info"
    write(about / "METADATA", "Metadata-Version: 2.1\nName: gradbench-other\nVersion: 1.2\n")
    write(about / "entry_points.txt", points)


POINTS = """\
[gradbench.estimators]
other = gradbench_other
[gradbench.problems]
other = gradbench_other:folder
"""
FOLDER = "from pathlib import Path\n\n\ndef folder():\n    return Path(__file__).parent / 'toml'\n"


def test_an_installed_package_is_loaded_when_a_name_is_unknown_and_only_then(monkeypatch, tmp_path):
    package(tmp_path, POINTS, gradbench_other=PLUGIN + FOLDER)
    write(tmp_path / "toml" / "tinier.toml", tiny.PROBLEM)
    monkeypatch.syspath_prepend(tmp_path)
    plugins._begun.clear()
    make_estimator("psa", lambda params, example, binary: 0.0)
    assert "mine" not in ESTIMATORS and "plugins" not in provenance()
    make_estimator("mine", lambda params, example, binary: 0.0)
    assert load_problem("tinier").name == "tinier"
    assert provenance()["plugins"] == ["gradbench-other 1.2"]


def test_an_installed_package_whose_entry_point_is_a_module_offers_the_files_beside_it(
    monkeypatch, tmp_path
):
    package(tmp_path, "[gradbench.suites]\nother = gradbench_other\n")
    write(tmp_path / "gradbench_other" / "__init__.py", "")
    write(tmp_path / "gradbench_other" / "small.toml", tiny.SUITE)
    write(tmp_path / "gradbench_other" / "tiny.toml", tiny.PROBLEM)
    monkeypatch.syspath_prepend(tmp_path)
    plugins._begun.clear()
    assert load_suite("small").problems[0].name == "tiny"  # beside it


@pytest.mark.slow
def test_a_broken_package_is_told_whenever_a_name_is_unknown_but_does_no_harm_else(tmp_path):
    package(tmp_path, POINTS, gradbench_other="import nothing_of_that_name\n")
    command = [sys.executable, "-m", "gradbench.cli"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True
        )

    answer = run("list", "estimators")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == (
        "gradbench: the plugin 'other' of gradbench-other 1.2 fails at gradbench_other.py, line 1, "
        "with ModuleNotFoundError: No module named 'nothing_of_that_name'; fix or uninstall it\n"
    )
    answer = run("run", "quick", "--dry-run")
    assert (answer.returncode, answer.stderr) == (0, "")
