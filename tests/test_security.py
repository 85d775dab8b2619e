"""What runs code is not used on what comes from others: no pickle, no eval, no shell."""

import ast
from pathlib import Path

import pytest

import gradbench

SOURCES = sorted(Path(gradbench.__file__).parent.rglob("*.py"))
# Modules whose readers run what they read, or that start programs, and functions that do.
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "code",
}
MODULES |= {"subprocess", "pty", "commands", "popen2", "multiprocessing", "runpy", "imp"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execv", "spawnv", "fromregex"}
CALLS |= {
    "literal_eval",
    "read_pickle",
    "to_pickle",
    "extractall",
    "unpack_archive",
    "import_module",
}
# Those that are needed, each with what it is given.
NEEDED = {
    ("core/plugins.py", "exec"): "plugins, which are trusted",
    ("core/plugins.py", "compile"): "plugins, which are trusted",
    ("core/plugins.py", "import_module"): "modules that the user names",
    ("core/registry.py", "import_module"): "modules of the package",
    ("cli/group.py", "import_module"): "commands of the package",
    ("estimators/__init__.py", "import_module"): "modules of the package",
    ("models/__init__.py", "import_module"): "modules of the package",
    ("results/provenance.py", "subprocess"): "git, asked for the commit of the package itself",
    ("core/specs.py", "literal_eval"): "literals, which it refuses all else than",
    ("suites/workers/processes.py", "subprocess"): "workers: Python itself, and no shell",
    ("suites/workers/processes.py", "multiprocessing"): "pipes between a run and its workers",
}


def dangers(source):
    """The modules and functions of the lists that a source uses, and keyword arguments alike."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {name.name for name in node.names}
            found |= {(node.module or "").partition(".")[0]} & MODULES | names & CALLS
        elif isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            owner = getattr(getattr(function, "value", None), "id", "")
            harmless = (owner, name) in (("re", "compile"), ("platform", "system"))
            found |= set() if harmless else {name} & CALLS
            given = {one.arg: getattr(one.value, "value", True) for one in node.keywords}
            found |= {key for key in ("shell", "allow_pickle") if given.get(key)}
    return found


def test_what_runs_code_is_used_where_it_is_needed_alone():
    root = Path(gradbench.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), name)
        for path in SOURCES
        for name in dangers(path.read_text())
    }
    assert found == set(NEEDED)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("def f(x):\n    return eval(x)", "eval"),
        ("import os\nos.system('ls')", "system"),
        ("from os import system as run", "system"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle"),
        ("run('ls', shell=True)", "shell"),
        ("import pandas as pd\npd.read_pickle('x')", "read_pickle"),
        ("archive.extractall('/')", "extractall"),
    ],
)
def test_a_source_that_would_run_code_is_found(source, name):
    assert name in dangers(source)
    assert dangers("np.load('x', allow_pickle=False)\nre.compile('x')") == set()
