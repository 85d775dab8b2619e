"""What an import loads, in a process of its own."""

import subprocess
import sys

import pytest

LAZY = "import gradbench"
ENTRY_POINTS = f"{LAZY}; gradbench.binarize, gradbench.expectation, gradbench.estimators"
STRICT = [sys.executable, "-W", "error"]
# Of pyparsing, in old versions of matplotlib, as in pyproject.toml.
for _module in ("_fontconfig_pattern", "_mathtext"):
    STRICT += ["-W", f"ignore::DeprecationWarning:matplotlib.{_module}"]


def loaded(statements):
    """The packages that are loaded after some statements."""
    show = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [*STRICT, "-c", f"{statements}\n{show}"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.slow
def test_gradbench_alone_loads_nothing_and_its_entry_points_jax_and_numpy():
    """And jaxtyping; not what data, figures, training and modules take."""
    alone = loaded(LAZY) - set(sys.stdlib_module_names)
    assert "gradbench" in alone
    assert not alone & {"jax", "numpy"}
    jax = loaded("import jax, numpy")
    more = loaded(ENTRY_POINTS) - jax - set(sys.stdlib_module_names)
    of_jaxtyping = {"wadler_lindig", "typeguard", "typing_extensions"}  # the last two of old ones
    assert more <= {"gradbench", "jaxtyping", "lazy_loader", *of_jaxtyping}
    kept_out = {"pandas", "matplotlib", "pyarrow", "sklearn", "tqdm", "jinja2", "flax", "equinox"}
    assert not (jax | more) & (kept_out | {"optax", "scipy"})


BLOCKED = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, *more):
    return None if name.partition(".")[0] in ("jax", "jaxlib", "optax") else find(name, *more)

PathFinder.find_spec = find_others
"""


def without_jax(statements):
    """What statements print in a process that has no JAX."""
    command = [*STRICT, "-c", BLOCKED + statements]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_process_without_jax_has_none():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        without_jax("import gradbench.models.network")
    assert "No module named 'jax'" in caught.value.stderr


@pytest.mark.parametrize("package", ["metrics", "plots", "report.html", "results.store"])
@pytest.mark.first(1)
def test_what_reads_results_is_imported_without_jax(package):
    assert without_jax(f"import jaxtyping, gradbench.{package}; print('imported')") == "imported\n"


@pytest.mark.slow
def test_results_are_read_printed_and_drawn_without_jax(finished_run, tmp_path):
    results = finished_run / "results"
    printed = without_jax(f"""
from gradbench import metrics, plots
from gradbench.metrics.tables import table
frame = metrics.summary({str(results)!r})
print(table(frame))
print(metrics.rank({str(results)!r})["estimator"][0])
figure = plots.rmse(metrics.curves({str(results)!r}), "tiny")
plots.save(figure, {str(tmp_path / "rmse")!r})
""")
    from gradbench.metrics import rank, summary
    from gradbench.metrics.tables import table

    best = rank(results)["estimator"][0]
    assert printed == f"{table(summary(results))}\n{best}\n"
    assert (tmp_path / "rmse.png").stat().st_size > 5000


@pytest.mark.slow
def test_metrics_load_neither_scipy_nor_figures_and_no_jax():
    packages = loaded("import gradbench.metrics")
    assert {"numpy", "pandas"} <= packages
    assert not packages & {"scipy", "matplotlib", "jax", "sklearn", "jinja2", "tqdm"}
