"""``[data] file``: examples of the user's own, and that results know which they were."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from small_data import npz

from gradbench.core.errors import GradbenchError
from gradbench.core.npy import read_npz
from gradbench.suites.data import load_data
from gradbench.suites.instance import build
from gradbench.suites.json_schema import schema
from gradbench.suites.problem import as_json
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import run

INPUTS = np.random.default_rng(0).normal(size=(6, 3))
TARGETS = np.array([0, 1, 1, 0, 1, 0])
PROBLEM = """
title = "Mine"

[data]
file = "mine.npz"

[network]
hidden = [2, 2]
objective = "softmax_cross_entropy"
outputs = 2
"""
SUITE = """
title = "Mine"
problems = ["mine.toml"]
estimators = ["straight_through"]
draws = 4
figure = "accuracy"
"""


@pytest.fixture
def mine(tmp_path):
    """A folder with a suite, its problem and its data."""
    (tmp_path / "mine.npz").write_bytes(npz(inputs=INPUTS, targets=TARGETS))
    (tmp_path / "mine.toml").write_text(PROBLEM)
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


def test_the_file_lies_beside_the_problem_wherever_the_command_is_given(mine, monkeypatch):
    monkeypatch.chdir("/")
    built = build(load_problem(mine / "mine.toml"))
    np.testing.assert_allclose(built.data[0], INPUTS, rtol=1e-6)
    assert built.data[1].tolist() == TARGETS.tolist()


def test_arrays_may_be_called_x_and_y_and_have_any_shape(mine):
    content = npz(x=INPUTS.reshape(6, 3, 1), y=TARGETS[:, None] / 2)
    (mine / "mine.npz").write_bytes(content)
    inputs, targets = load_data("file", {"file": str(mine / "mine.npz"), "examples": 4})
    np.testing.assert_array_equal(inputs, INPUTS[:4])
    assert targets.shape == (4, 1) and targets.dtype == np.float64


def test_results_say_which_data_they_are_of_and_not_where_these_lie(mine):
    said = as_json(load_problem(mine / "mine.toml"))
    digest = said["data"]["arguments"]["digest"]
    assert said["data"] == {"name": "file", "arguments": {"file": "mine.npz", "digest": digest}}
    assert said["measured"] == said["data"] and str(mine) not in json.dumps(said)
    moved = shutil.copytree(mine, mine / "moved")
    assert as_json(load_problem(moved / "mine.toml")) == said
    (moved / "mine.npz").write_bytes(npz(inputs=-INPUTS, targets=TARGETS))
    assert as_json(load_problem(moved / "mine.toml"))["data"]["arguments"]["digest"] != digest


def test_a_digest_that_is_given_has_to_be_that_of_the_data(mine):
    digest = load_problem(mine / "mine.toml").data.arguments["digest"]
    text = PROBLEM.replace("mine.npz", f'mine.npz"\ndigest = "{digest}')
    (mine / "mine.toml").write_text(text)
    build(load_problem(mine / "mine.toml"))
    (mine / "mine.npz").write_bytes(npz(inputs=INPUTS + 1, targets=TARGETS))
    with pytest.raises(GradbenchError, match=f"not {digest}; give the data that were measured"):
        build(load_problem(mine / "mine.toml"))


def test_other_data_are_measured_where_a_file_of_their_own_is_named(mine):
    (mine / "other.npz").write_bytes(npz(inputs=INPUTS[:2] * 2, targets=TARGETS[:2]))
    (mine / "mine.toml").write_text(PROBLEM + '\n[measured]\nfile = "other.npz"\n')
    built = build(load_problem(mine / "mine.toml"))
    np.testing.assert_allclose(built.batch[0], INPUTS[:2] * 2, rtol=1e-6)
    assert built.data[0].shape == (6, 3)


@pytest.mark.slow
def test_other_data_of_the_same_name_are_refused_when_a_run_continues(mine):
    run(mine / "suite.toml", mine / "out", progress=False)
    (mine / "mine.npz").write_bytes(npz(inputs=INPUTS + 1, targets=TARGETS))
    with pytest.raises(GradbenchError, match=r"of another suite \(different in problems\)"):
        run(mine / "suite.toml", mine / "out", progress=False)


def test_the_schema_takes_a_file_without_a_name():
    kinds = schema("problem")["properties"]["data"]["anyOf"]
    (own,) = (kind for kind in kinds if "file" in kind["properties"])
    assert own["required"] == ["file"]
    assert all("name" in kind["required"] for kind in kinds if kind is not own)


BOMB = io.BytesIO()
with zipfile.ZipFile(BOMB, "w", zipfile.ZIP_DEFLATED) as _archive:
    _archive.writestr("inputs.npy", bytes(2**24))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*No such file"),
        (b"", "is no npz of real numbers"),
        (npz(inputs=INPUTS, targets=TARGETS)[:-30], "is no npz of real numbers"),
        (npz(inputs=INPUTS), "holds inputs; save the arrays as inputs and targets, or as x and y"),
        (npz(inputs=INPUTS, targets=TARGETS[:5]), r"\[6, 3\] and targets \[5\]; give inputs"),
        (npz(inputs=INPUTS[:, 0], targets=TARGETS), r"has inputs \[6\] and"),
        (npz(inputs=INPUTS, targets=TARGETS.reshape(6, 1, 1)), "give inputs"),
        (npz(inputs=INPUTS[:0], targets=TARGETS[:0]), "give some numbers"),
        (npz(inputs=INPUTS * np.inf, targets=TARGETS), "inputs of .* has NaN or infinity"),
        (npz(x=INPUTS, y=TARGETS * np.nan), "y of .* has NaN or infinity; give finite numbers"),
        (npz(inputs=INPUTS, targets=np.array(["a"] * 6)), "is no npz of real numbers"),
        (npz(inputs=INPUTS, targets=np.array([{}] * 6, object)), "is no npz of real numbers"),
        (BOMB.getvalue(), "is no npz of real numbers"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused_with_its_line(mine, content, said):
    (mine / "mine.npz").unlink()
    if content is not None:
        (mine / "mine.npz").write_bytes(content)
    with pytest.raises(GradbenchError, match=said) as error:
        load_problem(mine / "mine.toml")
    assert f"{mine / 'mine.toml'}, line 5: " in str(error.value) and "\n" not in str(error.value)


def test_an_npz_that_says_it_is_huge_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    path.write_bytes(BOMB.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(GradbenchError, match="16,777,216 bytes when it is unpacked"):
        read_npz(path, 2**20)


def test_a_header_that_promises_too_much_is_refused_before_it_is_read(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", file.getvalue())
    with pytest.raises(GradbenchError, match="is no npz of real numbers"):
        read_npz(path, 1000)
