"""The device that is asked for computes; beside an accelerator, the host does the statistics."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import precision, small
from stored import as_bytes, assert_one_sentence

from gradbench.cli.main import main
from gradbench.core import devices
from gradbench.core.errors import GradbenchError
from gradbench.estimators import psa
from gradbench.measure import draws
from gradbench.measure.draws import make_plan, measure
from gradbench.suites.suite import load_suite

KEY = jax.random.key(3)


@pytest.fixture
def accelerator(monkeypatch):
    """As if the CPU were an accelerator, beside a host that is the same CPU."""
    monkeypatch.setattr(devices, "kind", lambda: "gpu")


@pytest.mark.parametrize("command", [["run", "quick"], ["check", "psa"], ["recommend", "x.py:y"]])
def test_a_device_that_is_not_there_is_one_sentence_that_names_what_is(command, capsys, tmp_path):
    for device, words in (("gpu", "JAX sees no gpu here but 1 cpu"), ("cuda", "is 'cuda'; choose")):
        assert main([*command, "--device", device]) == 2
        out, said = capsys.readouterr()
        assert out == "" and words in said and said.count("\n") == 1
    assert jax.config.jax_platforms == os.environ.get("JAX_PLATFORMS")


def test_the_sentence_names_the_variable_that_hides_a_device(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(GradbenchError) as error, devices.computing_on("tpu"):
        raise AssertionError
    assert_one_sentence(error, "no tpu here but 1 cpu", "JAX_PLATFORMS is 'cpu'", "--device cpu")


def test_the_device_that_computes_anyway_changes_nothing():
    before = jax.config.jax_default_device
    with devices.computing_on("cpu"), devices.in_full_precision(), devices.on_host():
        assert jax.config.jax_default_device is before
        assert jax.config.jax_default_matmul_precision is None
        assert devices.devices() == jax.local_devices()
    with devices.computing_on(None):
        assert jax.config.jax_default_device is before


def test_another_kind_of_device_computes_inside_of_the_context_alone(monkeypatch):
    monkeypatch.setattr(devices, "kind", lambda: "gpu")  # as if an accelerator were the first
    with devices.computing_on("cpu"):
        assert jax.config.jax_default_device == "cpu"
        assert devices.devices() == jax.local_devices(backend="cpu")
        assert jnp.ones(2).devices() == {jax.local_devices(backend="cpu")[0]}
    assert jax.config.jax_default_device is None


def test_draws_are_in_single_precision_on_accelerators_unless_a_suite_says_otherwise(
    tmp_path, monkeypatch
):
    path = tiny.write(tmp_path)
    assert load_suite(path).dtype == "float64"
    monkeypatch.setattr(devices, "kind", lambda: "gpu")
    assert load_suite(path).dtype == "float32"
    path.write_text(tiny.SUITE.replace("draws =", 'dtype = "float64"\ndraws ='))
    assert load_suite(path).dtype == "float64"


def found(dtype):
    with precision(True):
        network, params, batch = small((2, 3, 2, 1))
        own, data = (jax.tree.map(lambda x: x.astype(dtype), tree) for tree in (params, batch))
        blocks = list(measure(psa(network), own, data, params, KEY, make_plan(73, (3, 7), 20)))
        return blocks, draws.layer_moments(psa(network), params, batch, 1e9)


def test_statistics_of_draws_in_single_precision_are_in_float64_on_the_host(
    accelerator, monkeypatch
):
    seen = []
    reduced = draws.reduced

    def noted(*sizes):
        seen.append([leaf.dtype for leaf in sizes[3]])
        assert jax.config.jax_default_device == jax.local_devices(backend="cpu")[0]
        return reduced(*sizes)

    monkeypatch.setattr(draws, "reduced", noted)
    blocks, moments = found("float32")
    assert seen and all(dtype == jnp.float32 for each in seen for dtype in each)
    fields = [np.asarray(field) for block in blocks for field in block.layers[0]]
    assert {field.dtype.name for field in fields if field.dtype.kind == "f"} == {"float64"}
    monkeypatch.undo()
    usual, exact = found("float32")
    assert list(map(as_bytes, blocks)) == list(map(as_bytes, usual))
    jax.tree.map(np.testing.assert_array_equal, moments, exact)


def test_products_on_accelerators_are_not_rounded_to_fewer_digits(monkeypatch):
    network, params, batch = small((2, 3, 2, 1))

    def program():
        draw = lambda: draws.draw.__wrapped__(lambda _: psa(network), (), params, KEY, batch)  # noqa: E731
        return str(jax.make_jaxpr(draw)())

    assert "dot_general" in program() and "HIGHEST" not in program()
    monkeypatch.setattr(devices, "kind", lambda: "tpu")
    assert "HIGHEST" in program()


def test_a_host_that_is_left_out_is_one_sentence(accelerator, monkeypatch):
    monkeypatch.setattr(devices, "present", lambda wanted: [])
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(GradbenchError) as error:
        devices.on_host()
    assert_one_sentence(error, "JAX_PLATFORMS is 'cuda' without cpu", "cuda,cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platforms", "device"),
    [("nonsense", []), ("cuda", []), ("tpu,cpu", []), ("cuda", ["--device", "cpu"])],
)
def test_platforms_that_jax_cannot_begin_are_one_sentence(platforms, device):
    command = [sys.executable, "-m", "gradbench.cli", "run", "quick", "--dry-run", *device]
    environment = os.environ | {"JAX_PLATFORMS": platforms}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    if device:
        assert answer.returncode == 0, answer.stderr
        return
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer.stderr
    assert f"JAX_PLATFORMS is {platforms!r}" in answer.stderr


BESIDE = """
import sys
import jax
from gradbench.core import devices
from gradbench.measure import draws
import test_device_kinds

host, other = jax.local_devices(backend="cpu")
devices.kind = lambda: "gpu"
devices.present = lambda wanted: [host]
made, reduced = draws.draw_block, draws.reduced

def drawn(*arguments):
    values, gradients = made(*arguments)
    assert all(leaf.devices() == {other} for leaf in (values, *gradients)), "the draws"
    return values, gradients

def kept(*sizes):
    leaves = jax.tree.leaves(sizes[3:5])
    assert all(leaf.devices() == {host} for leaf in leaves), "what is reduced"
    return reduced(*sizes)

draws.draw_block, draws.reduced = drawn, kept
with jax.default_device(other):
    print(test_device_kinds.told(*test_device_kinds.found("float32")))
"""


def told(blocks, moments):
    return [as_bytes(block)[:4] for block in blocks], jax.tree.map(np.asarray, moments)


@pytest.mark.slow
def test_draws_are_made_on_the_device_and_reduced_on_another_one():
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.dirname(here), *sys.path])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    answer = subprocess.run(
        [sys.executable, "-c", BESIDE],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == str(told(*found("float32")))
