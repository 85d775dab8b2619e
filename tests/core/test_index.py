"""The index of estimators: up to date, asked where it can be, and never believed when it is old."""

import json
import shutil
import subprocess
import sys

import pytest

from gradbench.core import index
from gradbench.estimators import ESTIMATORS
from gradbench.estimators.__main__ import content


def test_the_index_is_up_to_date():
    found = index.FILE.read_text("utf-8")
    assert found == content(), "write it anew: python -m gradbench.estimators"


def test_the_index_has_the_facts_of_the_registry():
    known = index._read()
    assert known is not None
    for name, facts in known.items():
        assert json.loads(json.dumps(ESTIMATORS[name].describe())) == json.loads(json.dumps(facts))
    assert index.families() == {name: facts.family for name, facts in known.items()}


@pytest.mark.parametrize("change", ["edit", "new", "rename", "delete"])
def test_an_index_of_other_sources_is_not_believed(change, monkeypatch, tmp_path):
    folder = shutil.copytree(index.FOLDER, tmp_path / "estimators")
    monkeypatch.setattr(index, "FOLDER", folder)
    index._read.cache_clear()
    assert index._read() is not None
    if change == "edit":
        (folder / "psa.py").write_bytes((folder / "psa.py").read_bytes() + b"\n")
    elif change == "new":
        (folder / "other.py").write_text("")
    elif change == "rename":
        (folder / "psa.py").rename(folder / "psa2.py")
    else:
        (folder / "psa.py").unlink()
    index._read.cache_clear()
    assert index._read() is None
    index._read.cache_clear()


ALIAS = """
import json, sys
from gradbench.core import index
content = json.loads(index.FILE.read_bytes())
content["estimators"]["disarm"]["aliases"] = ["u2g_ours"]
index._content = lambda: content
from gradbench.core.specs import canonical
print(canonical("u2g-ours"), canonical("DisARM"), canonical("unheard-of"), canonical("nested"))
assert "jax" not in sys.modules
"""


def test_aliases_are_resolved_without_jax():
    command = [sys.executable, "-c", ALIAS]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found.split(maxsplit=3)[:3] == ["disarm", "disarm", "unheard_of"]
    assert "nested(activations='psa', weights='straight_through')" in found
