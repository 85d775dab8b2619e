"""Archives of arrays: what is too large is refused before it is unpacked."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from gradbench.core.archives import read_arrays


def npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def bomb(megabytes, names=("a.npy",)):
    """An archive of zeros: its size is about a thousandth of what it unpacks to."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            with archive.open(name, "w", force_zip64=True) as member:
                header = io.BytesIO()
                shape = {"descr": "|u1", "fortran_order": False, "shape": (megabytes << 20,)}
                np.lib.format.write_array_header_1_0(header, shape)
                member.write(header.getvalue())
                for _ in range(megabytes):
                    member.write(bytes(1 << 20))
    return file.getvalue()


@pytest.mark.parametrize("names", [("a.npy",), tuple(f"{k}.npy" for k in range(5))], ids=len)
@pytest.mark.first(1)
def test_a_bomb_is_refused_and_takes_no_memory(names):
    content = bomb(300 // len(names), names)
    assert len(content) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^314,57\d,\d+ bytes when it is unpacked$"):
            read_arrays(content)
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_the_limit_is_that_of_all_arrays_together():
    content = npz(a=np.arange(100.0), b=np.arange(100.0))
    assert sorted(read_arrays(content, 4000)) == ["a", "b"]
    with pytest.raises(ValueError, match="when it is unpacked"):
        read_arrays(content, 1500)


def test_a_declared_size_that_is_too_small_unpacks_no_more():
    content = bytearray(bomb(100))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    content = content.replace(size, (1000).to_bytes(4, "little"))
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match=r".+"):
            read_arrays(bytes(content))
        assert tracemalloc.get_traced_memory()[1] < 1 << 22
    finally:
        tracemalloc.stop()


def test_arrays_come_back_as_they_were_and_objects_are_refused():
    given = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.eye(3)),
        "c": np.array("t"),
    }
    for name, array in read_arrays(npz(**given)).items():
        np.testing.assert_array_equal(array, given[name])
    assert read_arrays(npz(a=np.zeros(1 << 22)))["a"].shape == (1 << 22,)  # zeros, but not too many
    with pytest.raises(ValueError, match="objects"):
        read_arrays(npz(a=np.array([{}], object)))
