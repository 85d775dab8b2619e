"""Pages that are written from the registries before Sphinx reads its sources."""

from pathlib import Path
from typing import Any

import estimator_pages
import gallery
import reference_pages

FOLDER = Path(__file__).resolve().parents[1] / "generated"


def write(app: Any = None) -> None:
    """Write all generated pages; those of earlier names are removed."""
    written = [
        *estimator_pages.write(FOLDER / "estimators"),
        *gallery.write(FOLDER),
        *reference_pages.write(FOLDER / "api"),
    ]
    for path in FOLDER.rglob("*.md"):
        if path not in written:
            path.unlink()


def _present(app: Any, name: str, text: list[str]) -> None:
    """Leave those pages out of the table of contents that are not there."""
    if name == "index":
        there = {path.stem for path in (FOLDER.parent / "guide").glob("*.md")}
        lines = text[0].splitlines()
        text[0] = "\n".join(
            line for line in lines if not line.startswith("guide/") or line[6:] in there
        )


def setup(app: Any) -> dict[str, bool]:
    """Write the pages when the builder starts."""
    app.connect("builder-inited", write)
    app.connect("source-read", _present)
    return {"parallel_read_safe": True}
