"""Write a figure as PDF, SVG and PNG, with an id for each estimator's artists."""

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from gradbench.core.atomic import write_file
from gradbench.core.errors import GradbenchError
from gradbench.core.names import visible, visible_lines
from gradbench.plots.style import PLAIN, SETTINGS

_OWNER = "estimator="  # how the id of an artist that belongs to an estimator begins
Own = TypeVar("Own", bound=Artist)


def owned(artist: Own, estimator: str) -> Own:
    """Mark an artist as one of an estimator's, with the id "estimator=NAME", and return it."""
    if estimator:
        artist.set_gid(f"{_OWNER}{visible(estimator)}")
    return artist


def number_owned(figure: Figure) -> None:
    """Make ids unique in a figure: the second artist of an estimator gets "#1", and so on."""
    seen: Counter[str] = Counter()
    for artist in figure.findobj(lambda one: str(one.get_gid()).startswith(_OWNER)):
        name = str(artist.get_gid()).partition("#")[0]
        if seen[name]:
            artist.set_gid(f"{name}#{seen[name]}")
        seen[name] += 1


def lay_out(figure: Figure) -> None:
    """Put all axes at their final place."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Lay out a figure once and not for each file, as it takes as long as drawing it."""
    engine = figure.get_layout_engine()
    lay_out(figure)
    figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write ``path`` + .pdf, .svg and .png (200 dpi), the same bytes for the same figure.

    In the SVG text is text, and every part of an estimator has the id "estimator=NAME", followed by
    "#1", "#2", ... if it has several.

    Args:
        figure: a figure.
        path: where to write it, without a suffix.

    Returns:
        The paths of the three files.

    Raises:
        GradbenchError: the files cannot be written.
    """
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
        "png": {"Software": None},
    }
    paths = [Path(f"{path}.{suffix}") for suffix in metadata]
    try:
        with rc_context(PLAIN), _laid_out(figure):
            for target, (form, values) in zip(paths, metadata.items(), strict=True):
                content = io.BytesIO()
                dpi = SETTINGS["figure.dpi"]
                figure.savefig(content, format=form, dpi=dpi, metadata=values)
                data = content.getvalue()
                if form == "svg":  # XML must not have what cannot be printed
                    data = visible_lines(data.decode()).encode()
                write_file(target, data)  # which follows no link
    except ValueError as error:
        if isinstance(error, GradbenchError):
            raise
        reason = " ".join(str(error).split())
        raise GradbenchError(
            f"cannot draw the figure {str(path)!r}: {reason}; its texts may have formulas in "
            "dollar signs that are none"
        ) from error
    return paths
