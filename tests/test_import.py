"""What an import loads, in a process of its own."""

import subprocess
import sys

LAZY = "import gradbench"
ENTRY_POINTS = f"{LAZY}; gradbench.binarize, gradbench.expectation, gradbench.estimators"


def loaded(statements):
    """The packages that are loaded after some statements."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-W", "error", "-c", f"{statements}\n{show}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_gradbench_alone_loads_nothing_and_its_entry_points_jax_and_numpy():
    """And jaxtyping; not what data, figures, training and modules take."""
    alone = loaded(LAZY) - set(sys.stdlib_module_names)
    assert "gradbench" in alone
    assert not alone & {"jax", "numpy"}
    jax = loaded("import jax, numpy")
    more = loaded(ENTRY_POINTS) - jax - set(sys.stdlib_module_names)
    assert more <= {"gradbench", "jaxtyping", "wadler_lindig"}  # the last is part of jaxtyping
    kept_out = {"pandas", "matplotlib", "pyarrow", "sklearn", "tqdm", "jinja2", "flax", "equinox"}
    assert not (jax | more) & (kept_out | {"optax", "scipy"})
