"""The house: few rooms, short files, and no text that is run as code."""

import ast
import re
import tomllib
from pathlib import Path

import gradbench

ROOT = Path(gradbench.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def test_the_package_has_at_most_16_names_at_its_top():
    assert len({path.name for path in ROOT.iterdir()} - {"__pycache__", "py.typed"}) <= 16


def test_the_tests_have_the_folders_of_the_package():
    tests = Path(__file__).parent
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders <= {path.name for path in tests.iterdir() if path.is_dir()}


def test_at_most_four_files_have_more_than_300_lines_and_each_says_why():
    long = [path for path in FILES if len(path.read_text().splitlines()) > 300]
    assert len(long) <= 4
    assert all("300 lines" in path.read_text()[:1500] for path in long), long


def used(source):
    """The names of the functions that some source calls by name, and the modules it imports."""
    called, imported = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
        elif isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    return called, imported


def test_nothing_evaluates_text_and_only_plugins_are_run():
    assert used("eval('1')\nfrom pickle import load") == ({"eval"}, {"pickle"})
    for path in FILES:
        source = path.read_text()
        called, imported = used(source)
        assert "eval" not in called, path
        assert "exec" not in called or path == ROOT / "core" / "plugins.py", path
        assert not imported & {"pickle", "shelve", "marshal"}, path
        assert "shell=True" not in source and "allow_pickle=True" not in source, path


def test_the_order_of_folders_that_is_told_is_the_one_that_is_checked():
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    checked = [set(re.findall(r"gradbench\.(\w+)", layer)) for layer in reversed(layers)]
    for page in ("README.md", "CONTRIBUTING.md", "notebooks/guide/architecture.md"):
        told = re.search(r"core > [\w>{}, \n]*> cli", (ROOT.parent / page).read_text())
        assert [set(re.findall(r"\w+", step)) for step in told[0].split(">")] == checked, page
