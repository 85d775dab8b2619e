"""Data sets are added from whatever holds them, and from nothing else."""

import gzip
import json
import re
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_data import (
    BATCHES,
    COLOUR,
    FORMATS,
    GREY,
    TEST,
    TRAIN,
    WORDS,
    binary,
    grey_files,
    idx,
    npy,
    npz,
    small_sources,
    strip,
    tabbed,
    tarred,
    zipped,
)

from gradbench.core.errors import GradbenchError
from gradbench.suites import datasets
from gradbench.suites.datasets import archives, sources
from gradbench.suites.datasets.cache import data_folder, entry
from gradbench.suites.datasets.content import digest_of, short
from gradbench.suites.datasets.formats import HEAD

ARRAYS = {"mnist": GREY, "cifar10": COLOUR, "r8": WORDS}
CASES = [
    pytest.param(name, files, id=f"{name} as {form}")
    for name, forms in FORMATS.items()
    for form, files in forms.items()
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and small data sets in the place of the known ones."""
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "cache"))
    for name, source in small_sources().items():
        monkeypatch.setitem(sources.SOURCES, name, source)
    return tmp_path / "cache" / "data"


def folder(path, files):
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def file(path, content):
    path.write_bytes(content)
    return path


def nothing_is_added():
    return not [path for path in data_folder().glob("*") if path.suffix != ".lock"]


@pytest.mark.parametrize(("name", "files"), CASES)
def test_every_format_gives_the_same_arrays(name, files, tmp_path):
    assert datasets.add(name, folder(tmp_path / "given", files)) == entry(name)
    found = datasets.load(name)
    assert set(found) == set(ARRAYS[name])
    for key, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name][key])
        assert array.dtype == ARRAYS[name][key].dtype


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w")])
@pytest.mark.parametrize("name", ARRAYS)
def test_archives_are_looked_into(name, pack, tmp_path):
    files = next(iter(FORMATS[name].values()))
    inside = {f"package/data/{key}": content for key, content in files.items()}
    inside["package/setup.py"] = b"raise SystemExit"
    datasets.add(name, file(tmp_path / "given.whl", pack(inside)))
    assert datasets.verify(name) is None


def test_archives_in_a_folder_are_looked_into(tmp_path):
    given = folder(tmp_path / "given", {"a.npz": npz(x=GREY["train_inputs"])})
    rest = {"y.npy": npy(GREY["train_targets"]), "t": idx(GREY["test_inputs"])}
    (given / "rest.tar.gz").write_bytes(tarred(rest))
    (given / "labels.json").write_text(json.dumps(GREY["test_targets"].tolist()))
    datasets.add("mnist", given)
    assert datasets.verify("mnist") is None


def test_names_of_files_make_no_difference(tmp_path):
    files = {f"{k}.jpg": content for k, content in enumerate(reversed(grey_files().values()))}
    datasets.add("MNIST", folder(tmp_path / "given", files))
    assert datasets.verify("mnist") is None


def test_equal_data_are_equal_files(tmp_path):
    one = datasets.add("mnist", folder(tmp_path / "one", FORMATS["mnist"]["idx"])).read_bytes()
    two = datasets.add(
        "mnist", folder(tmp_path / "two", FORMATS["mnist"]["npz of Keras"])
    ).read_bytes()
    assert one == two


def test_what_a_killed_process_left_of_a_data_set_is_removed_and_of_others_kept(tmp_path, cache):
    own, other = (cache / f".{name}.npz.1.gradbench-partial" for name in ("mnist", "r8"))
    cache.mkdir(parents=True)
    for left in (own, other):
        left.write_bytes(b"half")
    datasets.add("mnist", folder(tmp_path / "files", grey_files()))
    assert not own.exists() and other.exists()


def test_what_is_loaded_cannot_be_written_into(tmp_path):
    datasets.add("mnist", folder(tmp_path / "given", grey_files()))
    with pytest.raises(ValueError, match="read-only"):
        datasets.load("mnist")["train_inputs"][0] = 1
    datasets.load("mnist").clear()
    assert datasets.load("mnist")


# ------------------------------------------------------------------------------- what is refused

SWAPPED = GREY["train_targets"].copy()
SWAPPED[:2] = (SWAPPED[:2] + 1) % 10


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("mnist", {"train-labels-ubyte.gz": idx(SWAPPED)}, "train_targets"),
        ("mnist", {"train-labels-ubyte.gz": idx(GREY["train_targets"][::-1])}, "train_targets"),
        ("mnist", {"train-images-ubyte.gz": idx(GREY["train_inputs"][:29])}, "train_inputs"),
        ("mnist", {"t10k-images-ubyte.gz": idx(GREY["test_inputs"] ^ 1)}, "test_inputs"),
        ("cifar10", {"batch_2.bin": binary(BATCHES[2][0], BATCHES[1][1])}, "test_targets"),
        ("cifar10", {"batch_0.bin": binary(BATCHES[0][0] ^ 128, BATCHES[0][1])}, "train_inputs_1"),
        ("r8", {"train.txt": tabbed([TRAIN[1], TRAIN[0], TRAIN[2]])}, "train"),
        ("r8", {"test.txt": tabbed([TEST[0].replace("trade", "earn"), TEST[1]])}, "test"),
    ],
)
def test_what_is_mislabelled_or_changed_is_refused_with_both_digests(name, change, part, tmp_path):
    files = (grey_files() if name == "mnist" else next(iter(FORMATS[name].values()))) | change
    (wanted,) = (one for one in sources.SOURCES[name].parts if one.name == part)
    with pytest.raises(GradbenchError) as error:
        datasets.add(name, folder(tmp_path / "given", files))
    (changed,) = change
    place = re.escape(str(tmp_path / "given" / changed))
    sentence = rf"{part} \S.* of '{name}' has the digest (\w+), but '{place}' .* has (\w+)"
    told = re.search(sentence, str(error.value))
    assert told is not None and told[1] == short(wanted.digest) != told[2]
    assert nothing_is_added()


def test_both_digests_are_those_of_the_arrays(tmp_path):
    files = grey_files() | {"train-labels-ubyte.gz": idx(SWAPPED)}
    with pytest.raises(GradbenchError) as error:
        datasets.add("mnist", folder(tmp_path / "given", files))
    for array in (GREY["train_targets"], SWAPPED):
        assert short(digest_of(array)) in str(error.value)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds nothing like train_inputs .* and 3 more parts are missing"),
        ({"a": b""}, "holds nothing like train_inputs"),
        ({"a.zip": b"PK\3\4"}, "cannot be read"),
        ({"a": idx(GREY["train_inputs"])[:-1]}, "not the 616 that its header says"),
        ({"a": idx(GREY["train_inputs"]) + b"x"}, "unpacks to more than 616 bytes"),
        ({"a": bytes([0, 0, 8, 4]) + b"\xff" * 16}, "that its header says"),
        ({"a.npy": npy(np.array([{}], object))}, "not of real numbers"),
        ({"a.npy": npy(GREY["test_targets"])[:-1]}, "shorter than it says"),
        ({"a.npy": npy(GREY["test_targets"]) + b"x"}, "longer than it says"),
        ({"a.png": strip(BATCHES[0][0])[:-99]}, "no whole PNG"),
        ({"a.csv": b"1,2,3\n4,5\n"}, "its lines are not of one length"),
        ({"a.csv": b"1,2,3\n4,5,\n"}, "its lines are not of one length"),
        ({"a.csv": b"1,2,3\n4,5,256\n"}, "numbers beyond 255"),
        ({"a.csv": b"label,a\n1,2,x\n"}, "no table of whole numbers"),
        ({"a.json": b"[1, 2, 300]"}, "whole numbers from 0 to 255"),
        ({"a.txt": b"a\tb c\nd\te F\n"}, "its document 2 is not"),
        ({"a.gz": grey_files()["t10k-labels-ubyte.gz"][:-4]}, "ended before"),
    ],
)
def test_what_holds_no_data_is_refused_with_a_reason(files, said, tmp_path):
    with pytest.raises(GradbenchError, match=said) as error:
        datasets.add("mnist", folder(tmp_path / "given", files))
    assert "give" in str(error.value) and nothing_is_added()


def test_the_file_that_is_damaged_is_named_and_the_digest_that_is_missing(tmp_path):
    content = bytearray(zipped(grey_files()))
    content[content.index(b"train-labels") + 40] ^= 1
    with pytest.raises(GradbenchError) as error:
        datasets.add("mnist", file(tmp_path / "given.zip", bytes(content)))
    said = str(error.value)
    assert said.startswith(f"'{tmp_path}/given.zip: train-labels-ubyte.gz' cannot be used: ")
    assert short(digest_of(GREY["train_targets"])) in said and "\n" not in said


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(GradbenchError, match="does not exist; give the path of"):
        datasets.add("mnist", tmp_path / "no")


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(GradbenchError, match="unknown data set 'minst'; did you mean 'mnist'"):
        datasets.add("minst", tmp_path)


def test_an_archive_in_an_archive_is_named_as_what_it_is(tmp_path):
    given = file(tmp_path / "a.zip", zipped({"b.zip": zipped(grey_files())}))
    with pytest.raises(GradbenchError, match="archives inside of it were not looked into"):
        datasets.add("mnist", given)


class Evil:
    """Its pickle is a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(protocol, tmp_path):
    import os
    import pickle

    mark = tmp_path / "mark"
    evil = {b"data": Evil(os.mkdir, str(mark)), b"labels": [1]}
    given = file(tmp_path / "batch", pickle.dumps(evil, protocol=protocol))
    with pytest.raises(GradbenchError, match=r"would call posix\.mkdir, which is refused"):
        datasets.add("cifar10", given)
    assert not mark.exists() and nothing_is_added()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "\\evil"]
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_names_that_lead_out_of_an_archive_are_refused(pack, name, tmp_path):
    given = file(tmp_path / "given", pack({name: b"", **grey_files()}))
    with pytest.raises(GradbenchError, match="leads out of the archive"):
        datasets.add("mnist", given)
    assert nothing_is_added() and not (tmp_path / "evil").exists()


def test_links_in_archives_are_refused(tmp_path):
    inside = {"link": b"/etc/passwd"}
    for content in (
        zipped(inside, external_attr=(stat.S_IFLNK | 0o777) << 16),
        tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        tarred({"pipe": b""}, type=tarfile.FIFOTYPE),
    ):
        with pytest.raises(GradbenchError, match="which is a link or a device"):
            datasets.add("mnist", file(tmp_path / "given", content))
    assert nothing_is_added()


def test_a_zip_that_says_it_is_huge_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    given = file(tmp_path / "given.zip", zipped({"a": b"0" * 4096, **grey_files()}))
    monkeypatch.setattr(archives, "MOST_BYTES", 4096)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)
    with pytest.raises(GradbenchError, match="unpacks to more than"):
        datasets.add("mnist", given)
    assert nothing_is_added()


def test_a_tarball_that_unpacks_to_too_much_is_refused_on_the_way(tmp_path, monkeypatch):
    given = file(tmp_path / "given.tgz", tarred({"a": bytes(2**20), **grey_files()}))
    monkeypatch.setattr(archives, "MOST_BYTES", 2**19)
    with pytest.raises(GradbenchError, match="unpacks to more than"):
        datasets.add("mnist", given)


def test_a_bomb_by_gzip_is_never_unpacked(tmp_path, monkeypatch):
    """Zeros without end behind the header of an IDX file: what this says is all that is read."""
    head = bytes([0, 0, 8, 3]) + b"\0\0\0\x1e\0\0\0\5\0\0\0\4"
    read = []

    class Counted(gzip.GzipFile):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    given = file(tmp_path / "bomb", gzip.compress(head + bytes(2**24)))
    monkeypatch.setattr(gzip, "GzipFile", Counted)
    with pytest.raises(GradbenchError, match="unpacks to more than 616 bytes"):
        datasets.add("mnist", given)
    assert read and all(0 <= size <= HEAD for size in read) and sum(read) < 2 * HEAD


PACKED = {
    "zip": zipped({"package/a": b"x" * 50, **grey_files()}),
    "tar": tarred(grey_files(), "w"),
    "tar.gz": tarred(grey_files()),
    "npz": FORMATS["mnist"]["npz of Keras"]["mnist.npz"],
    "small npz": FORMATS["mnist"]["npz of flat floats and wide labels"]["a.npz"],
}
BATCH = {"batches": FORMATS["cifar10"]["published batches"]["batch_0"]}


@settings(max_examples=40)
@given(
    kind=st.sampled_from(sorted(PACKED)),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.one_of(st.none(), st.integers(0, 7)),
)
@pytest.mark.slow
def test_a_damaged_archive_is_refused_or_holds_the_right_data(kind, place, bit, tmp_path_factory):
    """A bit that is flipped, or an end that is cut off (None), anywhere."""
    content = bytearray(PACKED[kind])
    at = int(place * len(content))
    if bit is None:
        content = content[:at]
    else:
        content[at] ^= 1 << bit
    given = file(tmp_path_factory.mktemp("damaged") / "given", bytes(content))
    entry("mnist").unlink(missing_ok=True)
    try:
        datasets.add("mnist", given)
    except GradbenchError:
        assert nothing_is_added()
    else:
        assert datasets.verify("mnist") is None


@settings(max_examples=40)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_pickle_is_refused_or_read(place, bit, tmp_path_factory):
    content = bytearray(BATCH["batches"])
    content[int(place * len(content))] ^= 1 << bit
    given = file(tmp_path_factory.mktemp("damaged") / "given", bytes(content))
    with pytest.raises(
        GradbenchError, match=r"has the digest|holds nothing like"
    ):  # two batches lack
        datasets.add("cifar10", given)
    assert nothing_is_added()


# ------------------------------------------------------------------------------------- the cache


def test_a_damaged_entry_is_named_by_verify_and_never_loaded(tmp_path):
    path = datasets.add("mnist", folder(tmp_path / "given", grey_files()))
    good = path.read_bytes()
    for content in (
        good[:-50],
        good.replace(b"train", b"trail"),
        b"",
        npz(**GREY | {"x": SWAPPED}),
    ):
        path.write_bytes(content)
        said = datasets.verify("mnist")
        assert said is not None and str(path) in said and "gradbench data add mnist PATH" in said
        with pytest.raises(GradbenchError, match=r"mnist\.npz"):
            datasets.load("mnist")
    changed = npz(**GREY | {"train_targets": SWAPPED})
    path.write_bytes(changed)
    assert f"not {short(sources.SOURCES['mnist'].digest)}" in datasets.verify("mnist")
    datasets.add("mnist", folder(tmp_path / "again", grey_files()))
    assert datasets.verify("mnist") is None


def test_a_data_set_that_is_not_there_says_what_to_type():
    with pytest.raises(GradbenchError) as error:
        datasets.load("mnist")
    assert "'gradbench data get mnist'" in str(error.value)
    assert "offline 'gradbench data add mnist PATH'" in str(error.value)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADBENCH_CACHE", str(file(tmp_path / "file", b"")))
    with pytest.raises(GradbenchError, match="cannot write"):
        datasets.add("mnist", folder(tmp_path / "given", grey_files()))
