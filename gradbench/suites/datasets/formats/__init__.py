"""The formats of files, one a module, each known by how a file begins.

A format is a module with ``most(head, size)`` and ``read(data)``. The first gets the first
``HEAD`` bytes of a file and its size, where that is known; it returns how many bytes the file may
have at most, or None where it is of another format. So what is not known, or too large for what it
claims to be, is never unpacked.
"""

from gradbench.suites.datasets.formats import batches, cifar, csv, documents, idx, labels, npy, png

HEAD = 4096  # bytes
FORMATS = (idx, npy, png, batches, labels, csv, documents, cifar)
