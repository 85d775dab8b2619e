"""Execute the notebooks of this folder, each in a fresh kernel, and put their outputs into them.

    python notebooks/execute.py [NOTEBOOK ...]

What would differ without a reason is left out of the files: times, versions, and controls that live
as long as a kernel, in whose place is the picture that comes with them.
"""

import hashlib
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError

HERE = Path(__file__).parent
_SECONDS = 150  # of a cell, ten times what the longest takes on two busy cores
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebooks() -> list[Path]:
    """Return the notebooks of this folder."""
    return sorted(HERE.glob("*.ipynb"))


def execute(notebook: Any) -> None:
    """Put the outputs of a fresh kernel of this interpreter into a notebook, top to bottom.

    The kernel works in an empty temporary folder, in the environment of this process.

    A message between client and kernel may get lost on a busy machine, after which both wait: then
    it is begun once more.

    Raises:
        CellExecutionError: a cell raises.
        CellTimeoutError: a cell takes too long, twice.
    """
    try:
        _run(notebook)
    except CellTimeoutError:
        _run(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
            cell.outputs = [o for o in cell.outputs if o.get("data", True)]
    stamp(notebook)


def digest(notebook: Any) -> str:
    """Return a digest of the code of a notebook, of which its outputs are."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.blake2b("\0".join(code).encode(), digest_size=8).hexdigest()


def stamp(notebook: Any) -> None:
    """Say in the metadata of which code the outputs are, and nothing of the machine."""
    notebook.metadata = nbformat.from_dict(METADATA | {"executed": digest(notebook)})


def _run(notebook: Any) -> None:
    """Execute all cells in a fresh kernel."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None, metadata={})
    with TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(
            kernel_name="python3",
            transport="ipc",  # sockets in the same folder: no port is opened
            # No folder of kernels: what the user has called python3 may be another interpreter.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(Path(folder, "kernel.json")),
        )
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=_SECONDS,
            record_timing=False,
            coalesce_streams=True,  # not in as many pieces as happen to arrive
            shutdown_kernel="immediate",
            resources={"metadata": {"path": folder}},
        )
        client.owns_km = True  # which means that it ends the kernel
        client.execute(env=os.environ | {"IPYTHONDIR": folder})  # no profile of the user's


def main(paths: list[Path]) -> None:
    """Execute notebooks in place, all of them unless some are named."""
    for path in paths or notebooks():
        notebook = nbformat.read(path, as_version=4)
        execute(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
