"""Provenance says what reproduces a result, and nothing about the machine's user."""

import json
import os
import platform
import subprocess
from importlib import metadata

import jax
import pytest

from gradbench.results.provenance import checkout, provenance


def git(directory, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    answer = subprocess.run(
        ["git", "-C", str(directory), *identity, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


@pytest.fixture
def package(tmp_path):
    """A package committed at the top of a git checkout."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return package


def test_provenance_names_the_versions_and_the_devices():
    facts = provenance()
    assert facts["jax"] == metadata.version("jax")
    assert facts["numpy"] == metadata.version("numpy")
    assert facts["python"] == platform.python_version()
    assert facts["devices"] == len(jax.devices())
    assert facts["device"] == jax.devices()[0].device_kind
    assert json.loads(json.dumps(facts)) == facts


def test_provenance_tells_no_path_and_no_name_of_a_user(monkeypatch):
    for variable in ("USER", "LOGNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(variable, "/home/somebody")
    text = json.dumps(provenance())
    assert "/" not in text
    assert "somebody" not in text


def test_a_clean_checkout_gives_its_commit(package):
    assert checkout(package) == {"commit": git(package, "rev-parse", "HEAD"), "modified": False}


@pytest.mark.parametrize("name", ["module.py", "new.py"])
def test_a_changed_or_new_module_is_told(package, name):
    (package / name).write_text("x = 2\n")
    assert checkout(package)["modified"] is True


def test_files_beside_the_package_do_not_count_as_a_change(package):
    (package.parent / "results").write_text("")
    assert checkout(package)["modified"] is False


def test_the_checkout_of_another_project_around_the_package_is_not_taken_for_its_own(package):
    inner = package / "environment" / "gradbench"
    inner.mkdir(parents=True)
    assert checkout(inner) == {"commit": None, "modified": None}


def test_the_variables_of_a_git_hook_do_not_mislead(package, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert checkout(package)["commit"] == git(package, "rev-parse", "HEAD")


def test_without_git_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("PATH", str(package))
    assert checkout(package) == {"commit": None, "modified": None}
