"""`make matrix` tests on every Python that there is, says what it left out, and fails if one does.

Interpreters are played by shell scripts, so that nothing is installed.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "matrix.sh"
PYTHON = """#!/bin/sh
case "$2" in
    "import sys"*) echo {version} ;;
    venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    pip) echo "pip $*" >> pip.log ;;
    pytest) echo "{version} $*" >> pytest.log; exit {code} ;;
esac
"""
PROJECT = """
dependencies = [
    "click>=8.1",
    # 0.10.2 is wrong.
    "jax>=0.7,!=0.10.2",
]
docs = ["furo>=2025.7"]
test = [
    "pytest>=8",
]
"""


@pytest.fixture
def matrix(tmp_path):
    """Runs the script where there are some interpreters, each with pytest's exit code."""

    def run(*arguments, **interpreters):
        (tmp_path / "tests").mkdir()
        (tmp_path / "pyproject.toml").write_text(PROJECT)
        shutil.copy(SCRIPT, tmp_path / "tests")
        folder = tmp_path / "bin"
        folder.mkdir()
        for version, code in interpreters.items():
            version = version.replace("_", ".").removeprefix("v")
            path = folder / f"python{version}"
            path.write_text(PYTHON.format(version=version, code=code))
            path.chmod(0o755)
        environment = {
            "PATH": f"{folder}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHONS": "3.97 3.98 3.99",  # none that the machine has
        }
        return subprocess.run(
            ["bash", tmp_path / "tests" / SCRIPT.name, *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def test_every_python_is_tested_in_an_environment_of_its_own_and_the_oldest_dependencies(
    matrix, tmp_path
):
    found = matrix("tests/core", v3_97=0, v3_99=0)
    assert found.returncode == 0, found.stderr
    assert found.stdout.partition("== summary\n")[2].splitlines() == [
        "Python 3.97, the newest JAX: passed",
        "Python 3.98: skipped, python3.98 is not installed",
        "Python 3.99, the newest JAX: passed",
        "Python 3.97, the oldest dependencies: passed",
    ]
    places = {path.name for path in (tmp_path / ".venv-matrix").iterdir()}
    assert places == {"3.97", "3.99", "3.97-oldest"}
    installed = (tmp_path / "pip.log").read_text().splitlines()
    assert [line.split(" .[test] ")[1] for line in installed] == [
        "jax jaxlib",
        "jax jaxlib",
        "click==8.1 jax==0.7",
    ]
    tested = (tmp_path / "pytest.log").read_text().splitlines()
    assert [line.split()[0] for line in tested] == ["3.97", "3.99", "3.97"]
    assert all(line.endswith(" tests/core") for line in tested)


def test_one_that_fails_makes_the_matrix_fail_after_all_have_run(matrix):
    found = matrix(v3_97=1, v3_98=0)
    assert found.returncode == 1
    assert "Python 3.97, the newest JAX: FAILED" in found.stdout
    assert "Python 3.98, the newest JAX: passed" in found.stdout


def test_a_matrix_of_nothing_fails(matrix):
    found = matrix()
    assert found.returncode == 1
    assert found.stdout.count("is not installed") == 3
