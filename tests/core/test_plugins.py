"""Plugins: estimators, problems and suites from files and packages, and what is wrong with them."""

import json
import re
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
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.results.provenance import provenance
from gradbench.suites.read_problem import list_problems, load_problem
from gradbench.suites.suite import list_suites, load_suite

README = (Path(__file__).parents[2] / "README.md").read_text()
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

from gradbench.core import plugins

plugins.add_problems(Path(__file__).parent / "problems")
plugins.add_suites(Path(__file__).parent / "suites")
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test loads is gone after it."""
    before = [dict(part) for part in (ESTIMATORS, *plugins.FILES.values(), plugins._loaded)]
    begun = set(plugins._begun)
    modules = set(sys.modules)
    yield
    after = [ESTIMATORS, *plugins.FILES.values(), plugins._loaded]
    for part, old in zip(after, before, strict=True):
        part.clear()
        part.update(old)
    plugins._begun.clear()
    plugins._begun.update(begun)
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


def folders(path):
    """A plugin with a problem, a suite of it, and an estimator."""
    suite = tiny.changed(tiny.SUITE, ('"tiny.toml"', '"tinier"'), ('"arm"', '"mine"'))
    write(path / "suites" / "tiny-suite.toml", suite)
    write(path / "problems" / "tinier.toml", tiny.PROBLEM)
    return write(path / "both.py", PLUGIN + FOLDERS)


# ------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("before", [True, False])
def test_the_plugin_option_may_stand_before_the_command_and_after_it(before, call, tmp_path):
    option = ("--plugin", write(tmp_path / "mine.py", PLUGIN))
    command = ("show", "estimator", "mine")
    code, out, error = call(*option, *command) if before else call(*command, *option)
    assert (code, error) == (0, "")
    assert out.startswith("mine\n\n    REINFORCE under another name.") and "Williams" not in out


def test_several_plugins_may_be_given_around_the_command(call, tmp_path):
    one, other = (
        write(tmp_path / f"{name}.py", PLUGIN.replace("mine", name)) for name in ("one", "other")
    )
    code, out, error = call("--plugin", one, "list", "estimators", "--plugin", other)
    assert (code, error) == (0, "")
    assert re.search(r"^one +unbiased +states +1 +any +here$", out, re.MULTILINE)
    assert re.search(r"^other +unbiased", out, re.MULTILINE)


def test_a_run_with_a_plugin_measures_its_estimators_and_names_it_in_the_provenance(call, tmp_path):
    plugin = folders(tmp_path)
    out = tmp_path / "results"
    code, _, error = call("run", "tiny-suite", "--plugin", plugin, "--out", out, "--draws", "20")
    assert code == 0, error
    facts = json.loads((out / "manifest.json").read_text())["provenance"]
    (told,) = facts["plugins"]
    assert re.fullmatch(r"both\.py [0-9a-f]{16}", told)
    cells = tiny.numbers(out)
    mine, same = ([cells[c] for c in cells if c[3] == name] for name in ("mine", "reinforce"))
    assert mine == same != []


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


def test_the_example_of_the_readme_is_a_plugin(call, tmp_path):
    section = README[README.index("**Plugins**") :]
    (code,) = re.findall(r"```python\n(.*?)```", section[: section.index("##")], re.DOTALL)[:1]
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
    "syntax": ("x = (", "the plugin 'p.py' fails with SyntaxError: '(' was never closed (p.py"),
    "error": ("x = 1\n\ny = x / 0\n", "fails in line 3 with ZeroDivisionError: division by zero; "),
    "exit": ("raise SystemExit('a\\nb')", "fails in line 1 with SystemExit: a b; mend it"),
    "taken": (
        PLUGIN.replace("mine", "psa"),
        "plugin 'p.py': the estimator 'psa' is registered already, by gradbench.estimators.psa; ",
    ),
    "no folder": (
        "from gradbench import plugins\nplugins.add_problems('nowhere')",
        "there are no problems in 'nowhere'; name a folder of TOML files",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_plugin_is_one_sentence_with_exit_code_2(name, call, tmp_path):
    content, sentence = WRONG[name]
    path = tmp_path / "p.py"
    if content is not None:
        write(path, content)
    known = dict(ESTIMATORS)
    code, out, error = call("list", "noises", "--plugin", path)
    assert (code, out) == (2, "")
    assert sentence.format(path) in error and error.count("\n") == 1
    assert known == ESTIMATORS
    assert call("list", "noises", "--plugin", path)[0] == 2  # nor is it taken for loaded


def test_an_estimator_of_one_plugin_is_not_redefined_by_another(tmp_path):
    plugins.load(write(tmp_path / "one" / "p.py", PLUGIN))
    make = ESTIMATORS["mine"].make
    with pytest.raises(GradbenchError, match=r"plugin 'p.py': the estimator 'mine' is registered"):
        plugins.load(write(tmp_path / "two" / "p.py", PLUGIN))
    assert ESTIMATORS["mine"].make is make


@pytest.mark.parametrize("name", ["psa", "tinier"])
def test_a_problem_of_a_plugin_has_a_name_of_its_own(name, tmp_path):
    plugins.load(folders(tmp_path / "one"))
    write(tmp_path / "two" / f"{name}.toml", tiny.PROBLEM)
    with pytest.raises(GradbenchError, match=f"problems have the name '{name}' already; give "):
        plugins.add_problems(tmp_path / "two")
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
        "gradbench: the plugin 'other' of gradbench-other 1.2 fails with "
        "ModuleNotFoundError: No module named 'nothing_of_that_name'; mend or uninstall it\n"
    )
    answer = run("run", "quick", "--dry-run")
    assert (answer.returncode, answer.stderr) == (0, "")
