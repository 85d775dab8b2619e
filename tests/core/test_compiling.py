"""Compiled programs that are kept on disk: found again, mended, bounded, and never in the way."""

import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradbench.core import compiling
from gradbench.core.compiling import cache_folder, kept_programs, remove_oldest
from gradbench.core.errors import GradbenchWarning

SETTINGS = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of programs, that of this processor."""
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(compiling, "_setting", _own_setting)
    return cache_folder()


def _own_setting(name):
    """The setting of JAX, as if the tests had no folder of programs for themselves."""
    return None if name == "jax_compilation_cache_dir" else getattr(jax.config, name)


@pytest.fixture(scope="module")
def events():
    """The names of what JAX reports, in order."""
    seen = []
    jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
    return seen


def program(x):
    return jnp.cumsum(jnp.sin(x) * 3)


X = np.arange(5.0, dtype=np.float32)
RIGHT = np.cumsum(np.sin(X) * 3)


def compute(keep=True):
    """The value of a program that nothing in memory knows."""
    jax.clear_caches()
    with kept_programs(keep):
        return np.asarray(jax.jit(program)(X))


def hits(events):
    return events.count("/jax/compilation_cache/cache_hits")


@pytest.mark.slow
def test_a_program_that_was_kept_is_not_compiled_again(folder, events):
    first = compute()
    kept = sorted(folder.iterdir())
    before = hits(events)
    assert kept and any(path.name.startswith("jit_program-") for path in kept)
    np.testing.assert_array_equal(compute(), first)
    assert hits(events) > before and sorted(folder.iterdir()) == kept
    np.testing.assert_allclose(first, RIGHT, rtol=1e-5)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
@pytest.mark.first(1)
def test_a_damaged_entry_is_compiled_again_and_replaced_without_a_word(
    damage, folder, events, capfd
):
    first = compute()
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    for path, data in kept.items():
        path.write_bytes(
            {"truncated": data[: len(data) // 2], "garbage": b"\xa5" * len(data), "empty": b""}[
                damage
            ]
        )
    capfd.readouterr()
    before = hits(events)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(compute(), first)
    assert not said and not "".join(capfd.readouterr()) and hits(events) == before
    np.testing.assert_array_equal(compute(), first)
    assert hits(events) > before  # the entries are whole again


def test_other_warnings_are_shown_as_ever(folder):
    with pytest.warns(UserWarning, match="another"), kept_programs():
        warnings.warn("another", UserWarning, stacklevel=1)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_gets_one_warning_and_nothing_else_changes(
    below, tmp_path, monkeypatch, folder
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "file" / below))
    with pytest.warns(GradbenchWarning, match=r"cannot be kept in .*GRADBENCH_CACHE") as said:
        np.testing.assert_allclose(compute(), RIGHT, rtol=1e-5)
    assert len(said) == 1 and (tmp_path / "file").read_text() == "in the way"


def test_nothing_is_kept_where_that_is_not_wanted(folder):
    compute(keep=False)
    assert not folder.exists()


def test_a_folder_that_jax_was_given_is_left_to_it(folder, monkeypatch, tmp_path):
    own = str(tmp_path / "own")
    monkeypatch.setattr(compiling, "_setting", lambda name: own)
    with kept_programs():
        assert not folder.exists()


def test_the_settings_of_jax_are_as_before_afterwards(folder):
    before = [getattr(jax.config, name) for name in SETTINGS]
    with kept_programs():
        assert jax.config.jax_compilation_cache_dir == str(folder)
    assert [getattr(jax.config, name) for name in SETTINGS] == before


def test_processors_do_not_share_their_programs(folder, monkeypatch):
    monkeypatch.setattr(compiling, "_processor", lambda: "another")
    assert cache_folder() != folder and cache_folder().parent == folder.parent


def test_the_folder_of_the_user_is_the_default(monkeypatch, tmp_path):
    monkeypatch.delenv("GRADBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().is_relative_to(tmp_path)


def test_what_was_used_last_stays_when_the_folder_is_full(tmp_path):
    for n in range(5):
        (tmp_path / str(n)).write_bytes(bytes(10))
        os.utime(tmp_path / str(n), (1000 + n, 0))
    os.utime(tmp_path / "0", (2000, 0))
    remove_oldest(tmp_path, 29)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "4"}
    remove_oldest(tmp_path, 29)
    assert len(list(tmp_path.iterdir())) == 2
    remove_oldest(tmp_path / "missing", 0)


@pytest.mark.slow
def test_processes_that_write_at_the_same_time_all_compute_right_values(folder):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        found = list(pool.map(_compute_in_a_process, [str(folder.parent)] * 8))
    for value in found:
        np.testing.assert_array_equal(value, found[0])


def _compute_in_a_process(folder):
    os.environ["GRADBENCH_CACHE"] = folder
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
    return compute()


@pytest.fixture
def doubled(monkeypatch):
    """A function that is compiled by its work, and how often it was compiled plainly."""
    plain = []

    def plainly(f, **options):
        return lambda *arguments: plain.append(arguments) or jax.jit(f, **options)(*arguments)

    monkeypatch.setattr(compiling, "compile_plainly", plainly)
    return compiling.compile_by_work(lambda n, x: n * x, static_argnums=0), plain


def test_little_work_is_compiled_plainly_and_much_is_optimised(doubled):
    run, plain = doubled
    assert run(1e6, 2, jnp.float32(3)) == 6
    assert len(plain) == 1
    assert run(1e12, 2, jnp.float32(3)) == 6
    assert len(plain) == 1


def test_inside_traced_code_that_code_says_how_to_compile():
    run = compiling.compile_by_work(lambda x: jnp.sin(x))
    assert jax.jit(lambda x: 2 * run(1.0, x))(jnp.float32(1)) == pytest.approx(2 * np.sin(1.0))
    assert jax.grad(lambda x: run(1.0, x))(jnp.float32(1)) == pytest.approx(np.cos(1.0))
