"""The README tells the truth: its code runs, its names exist, its files are there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat

import gradbench
from gradbench.cli.catalogue import text
from gradbench.core.noise import NOISES
from gradbench.estimators import ESTIMATORS
from gradbench.suites.suite import list_suites

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def names():
    """What the code of the README defines, run block after block."""
    names: dict = {"__name__": "readme"}
    known = dict(ESTIMATORS)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(blocks[0], names)
    first = {key: names[key] for key in ("loss", "params", "batch", "truth")}
    for block in blocks[1:]:
        exec(block, names)
    for name in set(ESTIMATORS) - set(known):  # the plugin's, which is tested in test_plugins.py
        del ESTIMATORS[name]
    return names | {"first": first}


@pytest.mark.slow
def test_the_library_example_runs_and_its_draws_average_to_something_near_the_truth(names):
    names = names["first"]
    keys = jax.random.split(jax.random.key(1), 4000)
    draw = jax.jit(jax.vmap(jax.grad(names["loss"]), (None, 0, None)))
    draws = draw(names["params"], keys, names["batch"])
    for many, exact in zip(draws, names["truth"], strict=True):
        error = np.linalg.norm(np.mean(many, axis=0) - exact) / np.linalg.norm(exact)
        assert error < 0.5  # PSA is biased in the first layer, by far less than that


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_networks_of_the_readme_have_gradients(names):
    key, points = jax.random.key(0), jnp.ones((2, 2))
    bits, counts, classes = jnp.ones((2, 64)), jnp.ones((2, 50)), jnp.array([1, 0])
    signs = jnp.array([1.0, -1.0])
    batches = {
        "dense": (points, signs),
        "conv": (jnp.ones((2, 8, 8, 1)), classes),
        "vae": (bits, bits),
        "hashing": (counts, counts),
        "model": (points, signs),
        "alone": (points, signs),
        "maxout": (points, signs),
    }
    for name, batch in batches.items():
        params = names[name].init(key)
        draw = jax.jit(jax.grad(gradbench.estimators.psa(names[name])))
        gradient = draw(params, key, batch)
        assert np.all(np.isfinite(flat(gradient))) and np.any(flat(gradient) != 0), name
    truth = gradbench.reference(names["maxout"], names["maxout"].init(key), batches["maxout"])
    assert truth.agreement["brute force"] < 1e-12
    latent = names["model"].init(key)
    change, _ = names["optimiser"].update(
        jax.grad(names["loss"])(latent, key, batches["model"]),
        names["optimiser"].init(latent),
        latent,
    )
    assert np.all(np.abs(flat(latent) + flat(change)) <= 1)


def test_the_new_layer_of_the_readme_takes_15_lines():
    (code,) = re.findall(r"@dataclass\(frozen=True\)\nclass Maxout.*?```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()[:-1]) <= 15


@pytest.mark.parametrize("kind", ["estimators", "metrics"])
def test_a_table_of_the_readme_is_what_its_command_prints(kind):
    command = f"gradbench list {kind} --markdown"
    begin, end = f"<!-- printed by: {command} -->\n", "\n<!-- the table ends here -->"
    table = README.partition(begin)[2].partition(end)[0]
    assert table == text(kind, markdown=True), f"put the output of `{command}` there"


def test_every_suite_and_noise_is_named():
    table = README[README.index("| suite |") : README.index("A run that is interrupted")]
    assert set(re.findall(r"`(\w+)`", table)) == set(list_suites())
    assert all(noise in README for noise in NOISES)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"gradbench\.(\w+)\(", README))))
def test_every_function_of_the_package_in_the_readme_exists(name):
    assert callable(getattr(gradbench, name))


def test_every_file_and_target_in_the_readme_exists_and_every_module_is_there():
    for path in re.findall(r"\]\(((?!https?://)[^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    for path in re.findall(r"`([\w/]+\.py|[\w/]+/)`", README):
        assert (
            (ROOT / "gradbench" / path).exists()
            or (ROOT / path).exists()
            or any((ROOT / "gradbench").rglob(path))
            or path
            in (
                "checkpoints/",
                "references/",
                "moments/",
                "costs/",
                "shards/",
                "figures/",
            )
        ), path
    folders = {path.name for path in (ROOT / "gradbench").iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(re.findall(r"^\| `(\w+)/` \|", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert f"\n{target}:" in makefile, target
