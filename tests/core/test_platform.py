"""The canary: wrong values of compiled code are seen, and nothing is measured with them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import precision, small

import gradbench
from gradbench import exact
from gradbench.cli.main import main
from gradbench.core import canary, platform
from gradbench.core.errors import GradbenchError
from gradbench.core.platform import PROBES, TYPES, check_platform
from gradbench.estimators import reinforce
from gradbench.measure.draws import make_plan, measure
from gradbench.suites.runner import run
from gradbench.testing.certificate import check_estimator

KEY = jax.random.key(0)
NETWORK, PARAMS, BATCH = small((2, 2, 1))
LOSS = reinforce(NETWORK)


@pytest.fixture
def unchecked(monkeypatch):
    """As in a process that has just begun."""
    monkeypatch.setattr(platform, "_found", {})
    monkeypatch.setattr(canary, "_passed", set())


@pytest.fixture
def wrong(unchecked, monkeypatch):
    """A platform that computes wrong values."""
    monkeypatch.setattr(platform, "_find_wrong", lambda: "sums, in float32")


@pytest.fixture
def looks(unchecked, monkeypatch):
    """The backends on which the canary has looked, one entry for each time."""
    found = []
    monkeypatch.setattr(platform, "_find_wrong", lambda: found.append(platform.kind()) or "")
    return found


def test_values_are_right_here_and_it_is_recorded(unchecked):
    assert canary.passed() == {}
    check_platform()
    assert canary.passed() == {jax.default_backend(): "passed"}


def late_rows_mixed_up(x, result):
    """The fault of jaxlib 0.10.2: rows after 32768 numbers get what belongs to others."""
    late = len(x) // 3
    return jnp.concatenate([result[:late], jnp.roll(result[late:], 1, axis=0)])


def one_row_wrong(x, result):
    return result.at[-1].add(1)


@pytest.mark.parametrize("fault", [late_rows_mixed_up, one_row_wrong])
@pytest.mark.parametrize("number", range(len(PROBES)))
@pytest.mark.parametrize("dtype", TYPES)
def test_a_compiled_computation_that_is_wrong_in_one_type_is_refused(
    unchecked, monkeypatch, fault, number, dtype
):
    probe = PROBES[number]

    def planted(x):
        right = probe.compiled(x)
        return fault(x, right) if x.dtype == dtype else right

    probes = (*PROBES[:number], probe._replace(compiled=planted), *PROBES[number + 1 :])
    monkeypatch.setattr(platform, "PROBES", probes)
    with pytest.raises(GradbenchError, match=rf"wrong values on .*{probe.what}, in {dtype}"):
        check_platform()
    assert canary.passed() == {}


@pytest.mark.parametrize(
    ("version", "remedy"), [("0.10.2", "jax==0.10.1"), ("0.10.1", "jax==0.12.0.1")]
)
def test_the_refusal_is_one_sentence_with_another_release_and_comes_each_time(
    wrong, monkeypatch, version, remedy
):
    monkeypatch.setattr(platform, "version", lambda package: version)
    for _ in range(2):
        with pytest.raises(GradbenchError) as caught:
            check_platform()
        assert f"jaxlib {version} computes wrong values" in str(caught.value)
        assert f'pip install "{remedy}"' in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_canary_runs_once_per_backend_and_compiler_option(looks, monkeypatch):
    for _ in range(3):
        check_platform()
    assert looks == [jax.default_backend()]
    with jax.default_device(jax.devices()[0]):  # the same backend
        check_platform()
    assert len(looks) == 1
    monkeypatch.setattr(platform, "kind", lambda: "another")
    check_platform()
    check_platform()
    assert looks == [jax.default_backend(), "another"]
    option = "jax_disable_most_optimizations"
    before = jax.config.read(option)
    jax.config.update(option, not before)
    try:
        check_platform()
    finally:
        jax.config.update(option, before)
    assert len(looks) == 3
    assert set(canary.passed()) == {looks[0], "another"}


@pytest.mark.parametrize("double", [False, True])
def test_it_looks_with_real_values_also_inside_transformations(unchecked, double):
    with precision(double):

        def loss(weight):
            check_platform()
            return jnp.sum(weight**2)

        rows = jnp.arange(6.0).reshape(3, 2)
        gradient = np.asarray(jax.jit(jax.vmap(jax.grad(loss)))(rows))
    np.testing.assert_array_equal(gradient, 2 * np.asarray(rows))
    assert canary.passed()


def entry_points(folder):
    """What measures, makes references or checks, by name."""
    plan = make_plan(4)
    return {
        "measure": lambda: list(measure(LOSS, PARAMS, BATCH, PARAMS, KEY, plan)),
        "exact reference": lambda: gradbench.reference(NETWORK, PARAMS, BATCH, method="exact"),
        "sampled reference": lambda: gradbench.reference(
            NETWORK, PARAMS, BATCH, method="sampled", estimators="reinforce"
        ),
        "expected loss": lambda: exact.expected_loss(NETWORK, PARAMS, BATCH),
        "moments": lambda: exact.moments(LOSS, PARAMS, BATCH),
        "check": lambda: check_estimator("reinforce"),
        "diagnose": lambda: gradbench.diagnose(LOSS, PARAMS, BATCH, KEY),
        "recommend": lambda: gradbench.recommend(
            NETWORK, PARAMS, BATCH, estimators=["reinforce", "leg"]
        ),
        "run": lambda: run(tiny.write(folder), folder / "results", progress=False),
    }


@pytest.mark.parametrize("entry", list(entry_points(None)))
def test_nothing_is_measured_on_a_platform_that_computes_wrong_values(entry, wrong, tmp_path):
    with pytest.raises(GradbenchError, match="computes wrong values"):
        entry_points(tmp_path)[entry]()
    assert not (tmp_path / "results").exists()


def test_the_command_ends_with_one_sentence_and_the_exit_code_of_bad_input(wrong, capsys):
    assert main(["check", "reinforce"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_results_record_that_the_platform_passed(finished_run):
    manifest = json.loads((finished_run / "results" / "manifest.json").read_text())
    assert manifest["provenance"]["canary"][jax.default_backend()] == "passed"
