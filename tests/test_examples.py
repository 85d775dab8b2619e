"""The examples of how the estimators are used in other code: each runs, and does what it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "notebooks" / "examples"
SCRIPTS = sorted(EXAMPLES.rglob("*.py"))


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_has_less_than_60_lines(path):
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.slow
def test_the_flax_classifier_is_diagnosed_while_it_learns(tmp_path):
    from gradbench import plots

    found = loaded("flax_classifier").main("zgr", steps=200, every=100, units=8)
    assert list(found) == [0, 100, 200]
    for one in found.values():
        assert list(one.layers) == ["hidden.0", "hidden.1", "output", "network"]
        assert "disarm" in one.truth  # 16 units of 100 examples are not enumerated on the way
        bias = one.layers["output"].estimate("bias")
        assert bias.low < 0.3  # zgr has no bias in the parameters of the objective
    norms = [one.layers["network"].gradient_norm for one in found.values()]
    assert norms[0] != norms[1] != norms[2]  # at the current parameters, not the first ones
    plots.diagnoses(found).savefig(tmp_path / "diagnosis.png")


@pytest.mark.slow
def test_the_equinox_classifier_learns_through_its_binary_layer():
    accuracy, diagnosis = loaded("equinox_layer").main(steps=150, units=32)
    assert accuracy > 0.7  # of ten classes
    assert list(diagnosis.layers) == ["inner", "outer", "network"]
    assert diagnosis.layers["inner"].estimate("cosine").low > 0


@pytest.mark.parametrize("estimator", ["disarm", "zgr"])
@pytest.mark.slow
def test_the_bound_of_the_autoencoder_improves(estimator):
    start, end = loaded("vae_expectation").main(estimator, steps=200)
    assert end < start - 8  # nats


@pytest.mark.slow
def test_the_schedule_is_better_than_an_open_and_a_closed_counter():
    example = loaded("black_box")
    schedule, cost = example.main(steps=120)
    assert cost == example.simulate(schedule)
    assert cost < 0.6 * min(float(example.simulate(0 * schedule + x)) for x in (0, 1))


def test_the_simulator_is_refused_by_an_estimator_that_differentiates_it():
    from gradbench import GradbenchError

    with pytest.raises(GradbenchError, match=r"zgr needs the derivative of f in x.*outside of JAX"):
        loaded("black_box").main("zgr", steps=1)


@pytest.mark.slow
def test_an_estimator_of_another_package_is_known_by_name_and_certified(tmp_path):
    install = ["install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    package = str(EXAMPLES / "own_estimator")
    here = ["--target", str(tmp_path), "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *install, *here, package], check=True)
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from gradbench.cli.main import main
sys.exit(main(["check", "antithetic"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "antithetic: claims unbiased, found unbiased" in run.stdout
    assert run.stdout.strip().endswith("passed")
