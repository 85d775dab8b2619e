"""What the commands cost on this machine, in CPU time and memory: ``make bench``.

``run quick`` is timed with an empty cache of compiled programs and with the one that it left, and
the commands that read results on CELLS cells: those of ``quick``, copied to further replicates.
For another number of cells give it as an argument; a copy takes some 0.05 s.
"""

import compileall
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import gradbench
from gradbench.results.store import Results

CELLS = 1000
READERS = (("table",), ("rank",), ("show",))


def main(cells: int = CELLS) -> None:
    """Run all of them, the commands that read results on so many cells."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADBENCH_CACHE"] = f"{folder}/cache"
        # Without bytecode, as containers often are, each command would compile all sources first.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        compileall.compile_dir(Path(gradbench.__file__).parent, quiet=2)
        quick = Path(folder) / "quick"
        print(f"\n{'command':34}{'CPU s':>8}{'peak memory':>14}")
        print_cost("run quick, empty cache", "run", "quick", "--out", str(quick))
        print_cost("run quick, warm", "run", "quick", "--out", f"{folder}/again")
        print_cost("run quick, nothing to do", "run", "quick", "--out", f"{folder}/again")
        copies = Path(folder) / "copies"
        copy_cells(quick, copies, cells)
        for command in READERS:
            print_cost(f"{' '.join(command)} of {cells} cells", *command, str(copies))


def print_cost(name: str, *arguments: str) -> None:
    """Print CPU time and peak memory of a command in a process of its own."""
    command = [str(Path(sys.executable).with_name("gradbench")), *arguments]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}")
    unit = 2**10 if sys.platform == "linux" else 2**20  # of ru_maxrss to MiB
    seconds, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit
    print(f"{name:34}{seconds:8.1f}{memory:10.0f} MiB", flush=True)


def copy_cells(source: Path, directory: Path, cells: int) -> None:
    """Write results of so many cells: those of ``source`` at further replicates."""
    known = Results.open(source)
    own, manifest = known.cells(), known.manifest
    replicates = manifest["suite"]["replicates"]
    suite = manifest["suite"] | {"replicates": replicates * -(-cells // len(own))}
    rest = (manifest.get(key) for key in ("families", "claims"))
    with Results.open_or_create(
        directory, suite, manifest["seed"], manifest["draws"], *rest
    ) as copies:
        for number in range(cells):
            cell = own[number % len(own)]
            replicate = cell.place.replicate + replicates * (number // len(own))
            place = cell.place._replace(replicate=replicate)
            if reference := known.load_reference(cell.place):
                copies.save_reference(place, *reference)
            copies.save_checkpoint(place, known.load_checkpoint(cell.place) or ())
            if moments := known.load_moments(cell.place, cell.estimator):
                copies.save_moments(place, cell.estimator, *zip(*moments, strict=True))
            if cost := known.load_cost(cell.place, cell.estimator):
                copies.save_cost(place, cell.estimator, cost)
            meta, blocks = cell.load()
            copies.cell(*place, cell.estimator).append(blocks, meta or {})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
