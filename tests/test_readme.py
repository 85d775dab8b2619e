"""The README and the pages that came out of it: short, and what their examples claim is so."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat
from pages import NOTEBOOKS, ROOT, blocks

import gradbench
from gradbench.core.noise import NOISES
from gradbench.suites.suite import list_suites

README = (ROOT / "README.md").read_text()
GUIDE = NOTEBOOKS / "guide"


def names(page):
    """What the code of a page defines, run block after block."""
    found: dict = {"__name__": page}
    for block in blocks(GUIDE / f"{page}.md"):
        if block.language == "python":
            exec(block.text, found)
    return found


def test_the_readme_is_short_and_begins_with_what_to_type():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line.split("  ")[2] for line in lines if line.startswith("    make")][:2] == [
        "make demo",
        "make test",
    ]
    assert "make test" in "\n".join(lines[:8])
    assert "unrelated project" in "\n".join(lines[:15])


@pytest.mark.slow
def test_the_library_example_runs_and_its_draws_average_to_something_near_the_truth():
    found: dict = {}
    exec(next(b.text for b in blocks(GUIDE / "library.md") if b.language == "python"), found)
    keys = jax.random.split(jax.random.key(1), 4000)
    draw = jax.jit(jax.vmap(jax.grad(found["loss"]), (None, 0, None)))
    draws = draw(found["params"], keys, found["batch"])
    for many, exact in zip(draws, found["truth"], strict=True):
        error = np.linalg.norm(np.mean(many, axis=0) - exact) / np.linalg.norm(exact)
        assert error < 0.5  # PSA is biased in the first layer, by far less than that


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_networks_of_the_guide_have_gradients():
    found = names("models")
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
        params = found[name].init(key)
        draw = jax.jit(jax.grad(gradbench.estimators.psa(found[name])))
        gradient = draw(params, key, batch)
        assert np.all(np.isfinite(flat(gradient))) and np.any(flat(gradient) != 0), name
    truth = gradbench.reference(found["maxout"], found["maxout"].init(key), batches["maxout"])
    assert truth.agreement["brute force"] < 1e-12
    latent = found["model"].init(key)
    change, _ = found["optimiser"].update(
        jax.grad(found["loss"])(latent, key, batches["model"]),
        found["optimiser"].init(latent),
        latent,
    )
    assert np.all(np.abs(flat(latent) + flat(change)) <= 1)


def test_the_new_layer_of_the_guide_takes_15_lines():
    page = (GUIDE / "models.md").read_text()
    (code,) = re.findall(r"@dataclass\(frozen=True\)\nclass Maxout.*?```", page, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()[:-1]) <= 15


def test_every_suite_and_noise_is_named():
    page = (GUIDE / "suites.md").read_text()
    table = page[page.index("| suite |") : page.index("`gradbench run SUITE`")]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(list_suites())
    assert all(noise in (GUIDE / "models.md").read_text() for noise in NOISES)


def test_every_folder_and_file_of_the_architecture_is_there_and_none_is_missing():
    page = (GUIDE / "architecture.md").read_text()
    package = ROOT / "gradbench"
    for path in re.findall(r"`([\w/]+\.(?:py|toml|pyi|json))`", page):
        assert any(package.parent.rglob(path)), path
    folders = {path.name for path in package.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))
    flow = page[page.index("    core >") : page.index("`make lint` checks this")]
    assert set(re.findall(r"\w+", flow)) == folders
    assert flow.strip() in README  # which tells it too
