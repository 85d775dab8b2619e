"""How XLA compiles for processes that compile much and compute little, and where programs stay."""

import gc
import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gradbench.core.errors import GradbenchWarning

# The plain emitters of XLA compile in half the time. An unknown flag would be an error, so that
# only those releases 0.N are asked which are known to have it.
FLAGS = {
    "--xla_cpu_use_fusion_emitters=false": range(7, 11),
    "--xla_cpu_parallel_codegen_split_count=1": range(7, 13),
}
FOLDER = "GRADBENCH_CACHE"  # the environment variable that names the folder for all that is kept
_MOST_BYTES = 1 << 28  # of the folder, where a program takes some 50 kB
# How JAX begins its warnings of the cache, after which it goes on without the entry.
_FAULT = re.compile(r"Error (reading|writing) persistent compilation cache entry for '([^']*)'")


def compile_quickly() -> None:
    """Let this process compile quickly, and collect garbage less often.

    It has an effect on compilation only before JAX has computed anything, and on the threads of
    numpy before that is imported.
    """
    release = _release()
    given = os.environ.get("XLA_FLAGS", "")
    flags = [f for f, known in FLAGS.items() if release in known and f.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *flags]).strip()
    # Products of numpy are small here: its threads would take more time than they save.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    collect_less()


def collect_less() -> None:
    """Let this process collect garbage less often: tracing and drawing make objects, not garbage.

    JAX does work of its own at every collection.
    """
    gc.set_threshold(50_000, 20, 20)


def compile_plainly(f: Callable[..., Any], **options: Any) -> Any:
    """Return ``jax.jit(f, **options)`` for a program that runs for less time than optimising it."""
    import jax

    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0}, **options)


_LITTLE = 1e8  # multiply-adds that plain code does in less time than it takes to optimise it


def compile_by_work(f: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Return ``run(work, *arguments)``: ``f`` compiled, plainly for few multiply-adds.

    ``options`` are those of ``jax.jit``. Inside other traced code, that code says how to compile.
    """
    import jax

    plainly, optimised = compile_plainly(f, **options), jax.jit(f, **options)

    @wraps(f)
    def run(work: float, *arguments: Any) -> Any:
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
        return (optimised if traced or work > _LITTLE else plainly)(*arguments)

    return run


def user_cache() -> Path:
    """Return the folder for all that is kept: ``GRADBENCH_CACHE``, or the user's own for caches.

    It is a folder for temporary files where the user has no home.
    """
    from platformdirs import user_cache_path

    try:
        named = os.environ.get(FOLDER)
        folder = Path(named) if named else user_cache_path("gradbench", appauthor=False)
        return folder.expanduser()
    except RuntimeError:  # the home cannot be told
        return Path(tempfile.gettempdir()) / "gradbench"


def cache_folder() -> Path:
    """Return the folder of compiled programs, in ``user_cache()``.

    Compiled programs may use all instructions of the processor that they are made for, and JAX does
    not ask for which one a stored program was made: each kind of processor has a folder of its own.
    """
    return user_cache() / f"programs-{hashlib.sha256(_processor().encode()).hexdigest()[:16]}"


@contextmanager
def kept_programs(keep: bool = True) -> Iterator[None]:
    """Return a context in which JAX keeps compiled programs in a folder, and finds them there.

    The folder is ``cache_folder()``. It is bounded in size, the least recently used programs going
    first, and several processes may use it at the same time. One that cannot be used gets one
    warning, and programs are then compiled as if there were none. A damaged entry is removed, and
    its program compiled again. Nothing changes with ``keep=False``, or where JAX has been given a
    folder of its own, by ``JAX_COMPILATION_CACHE_DIR``.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns of processors at every entry
    from jax.experimental.compilation_cache import compilation_cache

    folder = None
    if keep and _release() >= _first_release() and not _setting("jax_compilation_cache_dir"):
        folder = _usable(cache_folder())
    if folder is None:
        yield
        return
    options = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": -1,  # JAX would read the whole folder at each entry
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: _setting(name) for name in options}
    try:
        compilation_cache.reset_cache()  # JAX looks once for whether there is one
        _set(options)
        with _mended(folder):
            yield
    finally:
        _set(before)
        compilation_cache.reset_cache()
        remove_oldest(folder, _MOST_BYTES)


_MOST_HELD = 32  # cells, of some 10 MB each
_held = 0  # the number of cells whose programs JAX may hold


def let_go(cells: int) -> bool:
    """Note that so many cells are done; of many, JAX forgets all programs and what they are of.

    Returns whether it does.

    JAX keeps each program, and the loss that it was compiled from, until the end of the process. A
    program that is called again afterwards is compiled again.
    """
    global _held
    import jax

    _held += cells
    if _held <= _MOST_HELD:
        return False
    _held = 0
    jax.clear_caches()
    return True


def remove_oldest(folder: Path, most: int) -> None:
    """Remove the least recently used files of a folder until it has at most so many bytes."""
    files = []
    with suppress(OSError), os.scandir(folder) as entries:
        files = [(entry.path, entry.stat()) for entry in entries]
    total = sum(facts.st_size for _, facts in files)
    for path, facts in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
        if total <= most:
            break
        total -= facts.st_size
        with suppress(OSError):  # another process was quicker
            os.unlink(path)


def _setting(name: str) -> Any:
    import jax

    return getattr(jax.config, name)


def _set(options: dict[str, Any]) -> None:
    import jax

    for name, value in options.items():
        jax.config.update(name, value)


def _release() -> int:
    return int(version("jaxlib").split(".")[1])


def _first_release() -> int:
    """Return the first release 0.N of jaxlib that reads stored programs without fail here.

    Earlier ones crash on macOS, in the stack of a thread, where a program has many kernels.
    """
    return 10 if sys.platform == "darwin" else 7


def _processor() -> str:
    """Return the processor and its instructions, or the name of the machine where none says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    facts = [line for line in lines if line.partition(":")[0].strip() in wanted]
    return "\n".join([platform.machine(), *(facts or [platform.node()])])


def _usable(folder: Path) -> Path | None:
    """Return the folder, made where it is missing; None after a warning if nothing can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        warnings.warn(
            f"compiled programs cannot be kept in {str(folder)!r} ({error.strerror}), so that all "
            f"are compiled anew; let {FOLDER} name a folder that can be written, or give "
            "--no-cache",
            GradbenchWarning,
            stacklevel=4,
        )
        return None
    return folder


@contextmanager
def _mended(folder: Path) -> Iterator[None]:
    """Return a context in which damaged entries of the folder are removed without a word.

    JAX warns of them, and would not write them again.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", _FAULT.pattern)
        show = warnings.showwarning

        def mend(message: Warning | str, *where: Any, **more: Any) -> None:
            if fault := _FAULT.match(str(message)):
                _remove_damaged(folder, fault[2])
            else:
                show(message, *where, **more)

        warnings.showwarning = mend
        yield


def _remove_damaged(folder: Path, program: str) -> None:
    """Remove the entries of a program, of which one is damaged."""
    for path in folder.iterdir():
        if path.name.startswith(f"{program}-"):
            path.unlink(missing_ok=True)
