"""Files are there as a whole or not at all, and what is damaged is told."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import assert_one_sentence, contents, damaged

from gradbench.core import atomic as files
from gradbench.core.atomic import SCHEMA, CorruptFile, pack, unpack, write_file
from gradbench.core.errors import GradbenchError


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_arrays_are_told_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(damaged(pack({"weight": np.ones((2, 3))}, 1, {"loss": 0.1}), data))
    try:
        arrays, layers, info = unpack(path)
    except CorruptFile as error:
        assert str(path) in str(error)
    else:  # such as the dates in a zip archive, which nobody reads
        assert (layers, info) == (1, {"loss": 0.1})
        np.testing.assert_array_equal(arrays["weight"], np.ones((2, 3)))


def test_arrays_that_are_lost_or_changed_are_told(tmp_path):
    path = tmp_path / "parameters.npz"
    path.write_bytes(pack({"weight": np.ones(2), "bias": np.zeros(2)}, 1, {}))
    arrays = dict(np.load(path))
    for name in ("bias", "note", "digest"):
        np.savez(path, **{key: array for key, array in arrays.items() if key != name})
        with pytest.raises(CorruptFile) as error:
            unpack(path)
        assert_one_sentence(error, path, "delete it and run again")
    np.savez(path, **(arrays | {"bias": np.full(2, 1e-300)}))
    with pytest.raises(CorruptFile):
        unpack(path)


def test_the_order_of_an_array_in_memory_does_not_change_the_file():
    first, second = (pack({"weight": np.asarray(np.eye(3, 2), order=o)}, 1, {}) for o in "CF")
    assert first == second


def test_newer_arrays_are_refused_and_not_called_corrupted(tmp_path, monkeypatch):
    path = tmp_path / "parameters.npz"
    with monkeypatch.context() as patch:
        patch.setattr(files, "SCHEMA", SCHEMA + 1)
        path.write_bytes(pack({}, 0, {}))
    with pytest.raises(GradbenchError) as error:
        unpack(path)
    assert_one_sentence(error, path, f"schema {SCHEMA + 1}")
    assert not isinstance(error.value, CorruptFile)


def test_an_interrupt_in_the_middle_of_a_write_leaves_no_trace(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    write_file(tmp_path / "kept", b"before")
    monkeypatch.setattr(os, "fsync", interrupt)
    for name in ("kept", "new"):
        with pytest.raises(KeyboardInterrupt):
            write_file(tmp_path / name, b"after")
    assert contents(tmp_path) == {"kept": b"before"}
