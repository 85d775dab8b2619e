"""Parameters of a file: [parameters] in a problem, its names and shapes, and what is refused."""

import io
import zipfile

import jax
import numpy as np
import pytest
import tiny
from stored import assert_one_sentence

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.instance import build
from gradbench.suites.read_problem import load_problem
from gradbench.suites.runner import run
from gradbench.suites.suite import load_suite

UNTRAINED = tiny.PROBLEM.partition("[training]")[0]
TABLE = '\n[parameters]\nfile = "nets/net.npz"\n'
ARRAYS = {
    "0/weight": np.array([[0.5, -1.0], [0.25, 2.0]]),
    "0/bias": np.array([0.1, -0.2]),
    "1/weight": np.array([[1.0, -0.5]]),
    "1/bias": np.array([0.3]),
}


def write(folder, arrays, problem=UNTRAINED + TABLE, **more):
    """The path of a problem with a file of parameters in a folder beside it."""
    (folder / "nets").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "nets" / "net.npz", **arrays)
    (folder / "tiny.toml").write_text(problem)
    return folder / "tiny.toml"


def built(path):
    with float64():
        return build(load_problem(path))


def names(params):
    return {
        f"{n}/{key}": np.asarray(leaf)
        for n, layer in enumerate(params)
        for key, leaf in layer.items()
    }


def test_the_parameters_are_those_of_the_file_in_double_precision(tmp_path):
    singles = {name: array.astype(np.float32) for name, array in ARRAYS.items()}
    with float64():
        (params,) = built(write(tmp_path, singles)).checkpoints()
    found = names(params)
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        assert array.dtype == np.float64 and (array == singles[name]).all()


def test_training_begins_with_them(tmp_path):
    path = write(tmp_path, ARRAYS, tiny.PROBLEM + TABLE)
    with float64():
        first, last = built(path).checkpoints()
    assert all((array == ARRAYS[name]).all() for name, array in names(first).items())
    assert any((array != ARRAYS[name]).any() for name, array in names(last).items())


def test_a_checkpoint_of_results_is_such_a_file(finished_run, tmp_path):
    results = Results.open(finished_run / "results")
    (file,) = (finished_run / "results" / "checkpoints").rglob("epoch*10.npz")
    text = UNTRAINED + f'[parameters]\nfile = "{file}"\n'
    (tmp_path / "tiny.toml").write_text(text)
    with float64():
        (params,) = jax.tree.map(np.asarray, list(built(tmp_path / "tiny.toml").checkpoints()))
    stored = results.load_checkpoint(CheckpointId("tiny", 0, "epoch 10"))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, stored))


def test_results_keep_the_digest_of_the_file_and_refuse_another(tmp_path):
    suite = tiny.changed(
        tiny.SUITE, ('"reinforce", "arm", "straight_through", "psa"', '"straight_through"')
    )
    write(tmp_path, ARRAYS)
    (tmp_path / "suite.toml").write_text(suite)
    problem = load_suite(tmp_path / "suite.toml").problems[0]
    assert len(problem.parameters.digest) == 16
    said = load_suite(tmp_path / "suite.toml").as_dict()["problems"][0]["parameters"]
    assert said == {"file": "nets/net.npz", "digest": problem.parameters.digest}
    one = run(tmp_path / "suite.toml", tmp_path / "results", progress=False)
    assert one.load_checkpoint(CheckpointId("tiny", 0, "untrained"))[1]["bias"] == 0.3
    write(tmp_path, ARRAYS | {"1/bias": np.array([0.4])})
    with pytest.raises(GradbenchError, match="of another suite"):
        run(tmp_path / "suite.toml", tmp_path / "results", progress=False)


def without(name):
    return {key: array for key, array in ARRAYS.items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (without("0/bias"), "has no '0/bias'; it needs 0/bias [2], 0/weight [2, 2], 1/bias"),
        (ARRAYS | {"2/bias": np.ones(1)}, "has '2/bias', which is no parameter; did you mean"),
        (ARRAYS | {"0/bias": np.ones(3)}, "has '0/bias' of shape [3]; the network has [2] there"),
        (ARRAYS | {"0/bias": np.array([0, np.nan])}, "'0/bias', which is not all finite real"),
        (ARRAYS | {"0/bias": np.array([0, 1j])}, "'0/bias', which is not all finite real"),
        (ARRAYS | {"0/bias": np.array(["a", "b"])}, "'0/bias', which is not all finite real"),
        (
            ARRAYS | {"0/bias": np.array([{}, []], object)},
            "holds no parameters of this network (obj",
        ),
        (ARRAYS | {"0/bias": np.zeros(1 << 20)}, "bytes when it is unpacked"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_one_sentence(tmp_path, arrays, words):
    with pytest.raises(GradbenchError) as caught:
        built(write(tmp_path, arrays))
    assert_one_sentence(caught, "problem 'tiny': ", "net.npz", words)


def bomb():
    """A small archive that says it holds a gigabyte of zeros."""
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("0/weight.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f8", "fortran_order": False, "shape": (1 << 22,)}
        )
        file.write(bytes(1 << 25))
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"no archive", bomb()], ids=["empty", "text", "bomb"])
def test_a_file_that_is_no_archive_or_a_bomb_is_refused(tmp_path, content):
    path = write(tmp_path, ARRAYS)
    (tmp_path / "nets" / "net.npz").write_bytes(content)
    with pytest.raises(GradbenchError) as caught:
        built(path)
    assert_one_sentence(
        caught, "holds no parameters of this network (", "write an npz by numpy.savez"
    )


def test_a_missing_file_is_told_at_its_line_and_a_changed_one_when_it_is_read(tmp_path):
    path = write(tmp_path, ARRAYS)
    problem = load_problem(path)
    write(tmp_path, without("1/bias") | {"1/bias": np.zeros(1)})
    with float64(), pytest.raises(GradbenchError) as caught:
        build(problem)
    assert_one_sentence(caught, "has changed since the problem was read")
    (tmp_path / "nets" / "net.npz").unlink()
    with pytest.raises(GradbenchError) as caught:
        load_problem(path)
    line = UNTRAINED.count("\n") + 3
    assert_one_sentence(caught, f"tiny.toml, line {line}: cannot read", "No such file")


def test_a_problem_of_a_suite_that_was_renamed_is_named(tmp_path):
    path = tiny.write(tmp_path, tiny.SUITE, tinny=tiny.PROBLEM)
    with pytest.raises(GradbenchError) as caught:
        load_suite(path)
    assert_one_sentence(caught, "tiny.toml: No such file or directory; did you mean 'tinny.toml'?")
    (tmp_path / "suite.toml").write_text(tiny.changed(tiny.SUITE, ("problems", "problem")))
    with pytest.raises(GradbenchError) as caught:
        load_suite(path)
    assert_one_sentence(caught, "unknown key problem; did you mean 'problems'?")
