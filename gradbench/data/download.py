"""Published files, downloaded by pooch: with retries, a bar of progress and a check of the sum."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gradbench.core.errors import GradbenchError
from gradbench.data.sources import Source

_MOST = 2**28  # bytes of a file
_TIMEOUT = 30  # seconds without an answer
RETRIES = 2


def download(name: str, source: Source, folder: Path, progress: bool = True) -> None:
    """Download the files of a data set into a folder; what is there and right stays.

    Args:
        name: the data set.
        source: where its files lie.
        folder: the folder, which is made.
        progress: whether to show a bar.

    Raises:
        GradbenchError: no host has the files, or those that it has are others.
    """
    for file, md5 in source.files.items():
        faults = []
        for host in source.hosts:
            try:
                _fetch(host, file, md5, folder, progress)
                break
            except (OSError, ValueError) as error:  # those of requests are OSErrors
                reason = " ".join(str(error).split())
                faults.append(f"{host}{file} ({reason[:200]})")
        else:
            raise GradbenchError(
                f"cannot download the data set {name!r}: {'; '.join(faults)}; try again later, or "
                f"give the files by 'gradbench data add {name} PATH'"
            )


def _fetch(host: str, file: str, md5: str | None, folder: Path, progress: bool) -> None:
    """Download a file from a host, with retries, unless it is there and right.

    Raises:
        OSError: the host cannot be reached, or does not have it.
        ValueError: it has another sum than published, or is too large.
    """
    import pooch

    with _quiet(pooch.get_logger()):
        files = pooch.create(
            path=folder,
            base_url=host,
            registry={file: f"md5:{md5}" if md5 else None},
            retry_if_failed=RETRIES,
        )
        with _Bar(desc=file, unit="B", unit_scale=True, disable=None if progress else True) as bar:
            files.fetch(
                file,
                downloader=pooch.HTTPDownloader(
                    progressbar=bar, timeout=_TIMEOUT, chunk_size=_Bar.CHUNK
                ),
            )


class _Bar(tqdm):
    """A bar of progress, which ends a download that is too large."""

    CHUNK = 2**16  # bytes
    received = 0

    def reset(self, total: float | None = None) -> None:
        """Begin anew."""
        self.received = 0
        super().reset(total)

    def update(self, n: float | None = 1) -> bool | None:
        """Count bytes.

        Raises:
            ValueError: there are more than any file has.
        """
        self.received += int(n or 0)
        if self.received > _MOST + self.CHUNK:
            self.received = 0
            raise ValueError(f"it is larger than {_MOST} bytes")
        return super().update(n)


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Return a context in which pooch says nothing of what it does: the bar does."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
