"""Published files, downloaded by pooch: with retries, a bar of progress and a check of the sum."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gradbench.core.errors import GradbenchError
from gradbench.suites.datasets.source import Source

_MOST = 2**28  # bytes of a file
_CHUNK = 2**16
_TIMEOUT = 30  # seconds without an answer
RETRIES = 2


def download_files(name: str, source: Source, folder: Path, progress: bool = True) -> None:
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
        bar = _Bar(file, progress)
        try:
            loader = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT, chunk_size=_CHUNK)
            files.fetch(file, downloader=loader)
        finally:
            bar.close()


class _Bar:
    """A bar of progress, as pooch uses one; it ends a download that is too large."""

    def __init__(self, file: str, shown: bool) -> None:
        self.bar = tqdm(desc=file, unit="B", unit_scale=True, disable=None if shown else True)
        self.received = 0

    @property
    def total(self) -> int:
        """The bytes that the host promises, 0 where it does not say; set when a try begins."""
        return int(self.bar.total or 0)

    @total.setter
    def total(self, total: int) -> None:
        self.received = 0
        self.bar.reset(total or None)

    def reset(self) -> None:
        """Count anew: pooch ends by counting the whole file, as it may have counted too much."""
        self.received = 0

    def update(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            ValueError: there are more than any file has.
        """
        self.received += count
        if self.received > _MOST + _CHUNK:
            raise ValueError(f"it is larger than {_MOST} bytes")
        known = min(self.received, self.total or self.received)
        self.bar.update(max(0, known - self.bar.n))

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Return a context in which pooch says nothing of what it does: the bar does."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
