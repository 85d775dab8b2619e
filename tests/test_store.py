"""A directory of results keeps what it is given, through interruption, damage and bad luck."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gradbench import store
from gradbench.blocks import BINS, SCHEMA, Block, LayerBlock
from gradbench.errors import GradbenchError
from gradbench.store import CorruptFile, CorruptShard, Place, Results, encode, suite_hash
from gradbench.suite import load_suite

SUITE = {"name": "psa", "averages": [9000], "problems": [{"name": "psa", "hidden": [5, 5]}]}
PLACE = Place("psa", 0, "100")
META = {"block": 4, "averages": [1, 2], "head_sizes": [3]}
FLOATS = st.floats(allow_infinity=False, allow_nan=False, allow_subnormal=True)


@pytest.fixture(autouse=True)
def no_provenance(monkeypatch):
    """Provenance has its own tests, and imports JAX."""
    monkeypatch.setattr(store, "provenance", lambda: {"jax": "0"})


@pytest.fixture
def results(tmp_path):
    with Results.open_or_create(tmp_path / "results", SUITE, seed=1, draws=100) as results:
        yield results


def block(index, layers=2, seed=0):
    generator = np.random.default_rng([index, seed])
    return Block(
        index,
        tuple(
            LayerBlock(
                4,
                generator.standard_normal(3),
                generator.random(3),
                generator.standard_normal((1, 3)),
                np.array([4, 2]),
                generator.random(2),
                generator.random(2),
                generator.poisson(0.1, (2, BINS)),
            )
            for _ in range(layers)
        ),
    )


def some_cell(results, estimator="concrete(temperature=0.1)"):
    return results.cell(*PLACE, estimator)


def files(directory):
    """The bytes of all files below a directory, by relative path."""
    found = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def assert_same_blocks(left, right):
    assert [b.index for b in left] == [b.index for b in right]
    for a, b in zip(left, right, strict=True):
        for x, y in zip(a.layers, b.layers, strict=True):
            for name, u, v in zip(LayerBlock._fields, x, y, strict=True):
                assert np.shape(u) == np.shape(v), name
                assert np.asarray(u).tobytes() == np.asarray(v).tobytes(), name


def assert_one_sentence(error, *parts):
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    for part in parts:
        assert str(part) in text


@st.composite
def any_blocks(draw):
    """Blocks of any shape (also without coordinates, heads, averages) and any finite values."""
    heads, averages = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    floats = lambda *shape: draw(hnp.arrays(np.float64, shape, elements=FLOATS))  # noqa: E731
    counts = lambda *shape: draw(  # noqa: E731
        hnp.arrays(np.int64, shape, elements=st.integers(0, 2**63 - 1), fill=st.just(0))
    )
    return [
        Block(
            index,
            tuple(
                LayerBlock(
                    draw(st.integers(1, 2**40)),
                    floats(size),
                    floats(size),
                    floats(heads, size),
                    counts(averages),
                    floats(averages),
                    floats(averages),
                    counts(averages, BINS),
                )
                for size in sizes
            ),
        )
        for index in range(draw(st.integers(1, 3)))
    ]


@settings(max_examples=40, deadline=None)
@given(any_blocks(), st.data())
def test_blocks_come_back_bit_by_bit_however_they_are_split_into_shards(blocks, data):
    split = data.draw(st.integers(0, len(blocks)))
    with tempfile.TemporaryDirectory() as directory:
        with Results.open_or_create(directory, SUITE, 1, 100) as results:
            for part in (blocks[:split], blocks[split:]):
                if part:
                    some_cell(results).append(part, META)
        (cell,) = Results.open(directory).cells()
        assert cell.done_blocks() == len(blocks)
        assert cell.meta() == META
        assert_same_blocks(cell.blocks(), blocks)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
ARRAYS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=FLOATS
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(NAMES, ARRAYS, max_size=3), max_size=3), FLOATS)
def test_parameters_and_references_come_back_bit_by_bit(params, value):
    gradient = [np.concatenate([np.ravel(x) for x in [[], *layer.values()]]) for layer in params]
    with tempfile.TemporaryDirectory() as directory:
        with Results.open_or_create(directory, SUITE, 1, 100) as results:
            results.save_checkpoint(PLACE, params, {"loss": np.float32(0.5), "epoch": 3})
            results.save_reference(PLACE, value, gradient, {"routes": ["recursion", "paths"]})
        results = Results.open(directory)
        checkpoint, reference = results.load_checkpoint(PLACE), results.load_reference(PLACE)
    assert checkpoint.info == {"loss": 0.5, "epoch": 3}
    assert [list(layer) for layer in checkpoint.params] == [list(layer) for layer in params]
    for layer, stored in zip(params, checkpoint.params, strict=True):
        for name, array in layer.items():
            assert stored[name].shape == array.shape
            assert stored[name].tobytes() == array.tobytes()
    assert reference.value == value and reference.info == {"routes": ["recursion", "paths"]}
    assert [g.tobytes() for g in reference.gradient] == [g.tobytes() for g in gradient]


def test_what_was_not_stored_is_none(results):
    assert results.load_checkpoint(PLACE) is None
    assert results.load_reference(PLACE) is None
    assert some_cell(results).meta() is None
    assert some_cell(results).blocks() == [] and some_cell(results).done_blocks() == 0


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=16))
def test_a_file_name_maps_back_to_its_label_and_stays_in_its_directory(label):
    name = encode(label)
    assert store.unquote(name) == label
    assert "/" not in name and not name.startswith(".") and name.isascii()


def test_labels_of_estimators_stay_readable():
    label = "concrete(temperature=0.1)"
    assert encode(label) == label


@pytest.mark.parametrize("label", ["", "x" * 201, "\N{SNOWMAN}" * 60])
def test_a_label_that_fits_into_no_file_name_is_refused(label):
    with pytest.raises(GradbenchError) as error:
        encode(label)
    assert_one_sentence(error, "does not fit into a file name")


def test_cells_are_listed_in_natural_order(results):
    names = [("b", 0, "1", "psa"), ("a", 10, "1", "psa"), ("a", 2, "100", "psa")]
    names += [("a", 2, "20", "psa"), ("a", 2, "20", "../arm(x=1)")]
    for name in names:
        results.cell(*name).append([block(0)], META)
    assert [(*cell.place, cell.estimator) for cell in results.cells()] == [
        ("a", 2, "20", "../arm(x=1)"),
        ("a", 2, "20", "psa"),
        ("a", 2, "100", "psa"),
        ("a", 10, "1", "psa"),
        ("b", 0, "1", "psa"),
    ]


def fill(directory):
    with Results.open_or_create(directory, SUITE, 1, 100) as results:
        some_cell(results).append([block(0), block(1)], META)
        some_cell(results).append([block(2)], META)
        results.save_checkpoint(PLACE, [{"weight": np.ones((2, 3))}, {}], {"loss": 0.1})
        results.save_reference(PLACE, 0.5, [np.arange(6.0), np.zeros(0)], {"agreement": 1e-12})
    return files(directory)


def test_equal_content_gives_equal_bytes(tmp_path):
    first, second = fill(tmp_path / "a"), fill(tmp_path / "b")
    del first["manifest.json"], second["manifest.json"]  # it has the date
    assert len(first) == 5
    assert first == second


@pytest.fixture(scope="module")
def one_shard():
    """A directory with a cell of one shard; its path and its bytes."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "provenance", dict)
        with Results.open_or_create(directory, SUITE, 1, 100) as results:
            some_cell(results).append([block(0), block(1)], META)
            results.save_checkpoint(PLACE, [{"weight": np.ones((2, 3))}], {"loss": 0.1})
        (path,) = some_cell(results).directory.iterdir()
        yield results, path, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_corrupted_shard_is_named(one_shard, data):
    results, path, content = one_shard
    offset = data.draw(st.integers(0, len(content) - 1))
    flipped = content[offset] ^ data.draw(st.integers(1, 255))
    cut = data.draw(st.booleans())
    path.write_bytes(content[:offset] + (b"" if cut else bytes([flipped]) + content[offset + 1 :]))
    for read in (some_cell(results).blocks, some_cell(results).done_blocks):
        with pytest.raises(CorruptShard) as error:
            read()
        assert_one_sentence(error, path, "is corrupted", "discard")
    path.write_bytes(content)
    assert some_cell(results).done_blocks() == 2


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damaged_parameters_are_told_or_harmless(one_shard, data):
    results, _, _ = one_shard
    (path,) = (results.directory / "checkpoints").rglob("*.npz")
    content = path.read_bytes()
    offset = data.draw(st.integers(0, len(content) - 1))
    flipped = content[offset] ^ data.draw(st.integers(1, 255))
    cut = data.draw(st.booleans())
    path.write_bytes(content[:offset] + (b"" if cut else bytes([flipped]) + content[offset + 1 :]))
    try:
        stored = results.load_checkpoint(PLACE)
    except CorruptFile as error:
        assert str(path) in str(error)
    else:  # such as the dates in a zip archive, which nobody reads
        assert stored.info == {"loss": 0.1}
        np.testing.assert_array_equal(stored.params[0]["weight"], np.ones((2, 3)))
    finally:
        path.write_bytes(content)


def test_parameters_that_lost_or_changed_an_array_are_told(results):
    results.save_checkpoint(PLACE, [{"weight": np.ones(2), "bias": np.zeros(2)}], {})
    (path,) = (results.directory / "checkpoints").rglob("*.npz")
    arrays = dict(np.load(path))
    for name in ("0/bias", "note", "digest"):
        np.savez(path, **{key: array for key, array in arrays.items() if key != name})
        with pytest.raises(CorruptFile) as error:
            results.load_checkpoint(PLACE)
        assert_one_sentence(error, path, "delete it and run again")
    np.savez(path, **(arrays | {"0/bias": np.full(2, 1e-300)}))
    with pytest.raises(CorruptFile):
        results.load_checkpoint(PLACE)


def test_the_order_of_an_array_in_memory_does_not_change_the_file(results):
    written = []
    for order in "CF":
        results.save_checkpoint(PLACE, [{"weight": np.asarray(np.eye(3, 2), order=order)}], {})
        written.append(files(results.directory))
    assert written[0] == written[1]


def test_discarding_a_corrupted_cell_leaves_everything_else(results):
    other, cell = some_cell(results, "psa"), some_cell(results)
    other.append([block(0)], META)
    cell.append([block(0)], META)
    (shard,) = cell.directory.iterdir()
    shard.write_bytes(b"")
    note = cell.directory / "note.parquet"
    note.write_text("a user's file")
    cell.discard()
    assert cell.done_blocks() == 0 and note.exists()
    assert other.done_blocks() == 1
    cell.append([block(0)], META)
    assert_same_blocks(cell.blocks(), [block(0)])


def test_a_missing_shard_is_noticed(results):
    cell = some_cell(results)
    for index in range(3):
        cell.append([block(index)], META)
    sorted(cell.directory.iterdir())[1].unlink()
    with pytest.raises(CorruptShard) as error:
        cell.done_blocks()
    assert_one_sentence(error, "000002-000002", "does not begin with block 1")


def test_overlapping_shards_are_noticed(results):
    for seed, estimator in enumerate(["psa", "arm"]):
        some_cell(results, estimator).append([block(0, seed=seed)], META)
    (shard,) = some_cell(results, "arm").directory.iterdir()
    shard.rename(some_cell(results, "psa").directory / shard.name)
    with pytest.raises(CorruptShard) as error:
        some_cell(results, "psa").blocks()
    assert_one_sentence(error, "does not begin with block 1")


def test_a_shard_of_another_cell_or_run_is_noticed(tmp_path, results):
    with Results.open_or_create(tmp_path / "other", SUITE, seed=2, draws=100) as other:
        some_cell(other, "psa").append([block(0)], META)
    some_cell(results, "arm").append([block(0)], META)
    for source in (some_cell(other, "psa"), some_cell(results, "arm")):
        (shard,) = source.directory.iterdir()
        target = some_cell(results, "psa")
        target.directory.mkdir(exist_ok=True)
        (target.directory / shard.name).write_bytes(shard.read_bytes())
        with pytest.raises(CorruptShard) as error:
            target.done_blocks()
        assert_one_sentence(error, "belongs to another cell or another run")
        target.discard()


def test_blocks_that_do_not_continue_the_cell_are_refused(results):
    cell = some_cell(results)
    cell.append([block(0)], META)
    for blocks in ([], [block(2)], [block(1), block(3)], [block(0)]):
        with pytest.raises(GradbenchError) as error:
            cell.append(blocks, META)
        assert_one_sentence(error, "from block 1 on")
    with pytest.raises(GradbenchError) as error:
        cell.append([block(1)], META | {"block": 8})
    assert_one_sentence(error, "other settings", "concrete(temperature=0.1)")
    assert cell.done_blocks() == 1


def test_a_directory_is_opened_again_for_the_same_run(tmp_path):
    first = fill(tmp_path)
    with Results.open_or_create(tmp_path, dict(reversed(SUITE.items())), 1, 100) as results:
        assert results.manifest["suite"] == SUITE
        assert some_cell(results).done_blocks() == 3
    assert files(tmp_path) == first


def test_the_manifest_says_what_was_run(results):
    manifest = json.loads((results.directory / "manifest.json").read_text())
    assert manifest == results.manifest
    assert manifest["schema"] == SCHEMA and manifest["suite"] == SUITE
    assert (manifest["seed"], manifest["draws"]) == (1, 100)
    assert manifest["suite_hash"] == suite_hash(SUITE)
    assert manifest["provenance"] == {"jax": "0"}
    assert manifest["created"].endswith("+00:00")


def test_the_hash_is_that_of_the_suite():
    suite = load_suite("psa")
    assert suite_hash(suite.as_dict()) == suite.digest()
    assert suite_hash(dict(reversed(SUITE.items()))) == suite_hash(SUITE)
    assert suite_hash(SUITE | {"averages": []}) != suite_hash(SUITE)


@pytest.mark.parametrize(
    ("suite", "seed", "draws", "parts"),
    [
        (SUITE | {"averages": [1], "new": 2}, 1, 100, ["another suite", "averages, new"]),
        (SUITE, 2, 100, ["seed = 1, not 2"]),
        (SUITE, 1, 200, ["draws = 100, not 200"]),
    ],
)
def test_the_results_of_another_run_are_refused_and_intact(tmp_path, suite, seed, draws, parts):
    before = fill(tmp_path)
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path, suite, seed, draws)
    assert_one_sentence(error, tmp_path, *parts, "--out")
    assert files(tmp_path) == before
    Results.open_or_create(tmp_path, SUITE, 1, 100).close()  # and not left locked


def rewrite_manifest(directory, **changes):
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_newer_schema_is_refused(tmp_path):
    fill(tmp_path)
    rewrite_manifest(tmp_path, schema=SCHEMA + 1, suite=None)
    for reopen in (Results.open, lambda path: Results.open_or_create(path, SUITE, 1, 100)):
        with pytest.raises(GradbenchError) as error:
            reopen(tmp_path)
        assert_one_sentence(error, "manifest.json", f"schema {SCHEMA + 1}", "update gradbench")
        assert not isinstance(error.value, CorruptFile)


def test_a_newer_shard_is_refused_and_not_called_corrupted(results, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "SCHEMA", SCHEMA + 1)
        some_cell(results).append([block(0)], META)
        results.save_checkpoint(PLACE, [], {})
    for read in (some_cell(results).blocks, lambda: results.load_checkpoint(PLACE)):
        with pytest.raises(GradbenchError) as error:
            read()
        assert_one_sentence(error, f"schema {SCHEMA + 1}")
        assert not isinstance(error.value, CorruptFile)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"schema": "x"}', b"[" * 100_000]
)
def test_an_unreadable_manifest_is_named(tmp_path, content):
    fill(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptFile) as error:
        Results.open(tmp_path)
    assert_one_sentence(error, tmp_path / "manifest.json", "restore")


@pytest.mark.parametrize(
    "changes", [{"suite": {}}, {"suite_hash": "0"}, {"seed": "1"}, {"provenance": None}]
)
def test_a_changed_manifest_is_noticed(tmp_path, changes):
    fill(tmp_path)
    rewrite_manifest(tmp_path, **changes)
    with pytest.raises(CorruptFile):
        Results.open(tmp_path)


def test_a_directory_that_is_not_ours_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path, SUITE, 1, 100)
    assert_one_sentence(error, tmp_path, "not empty", "--out")
    assert files(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(GradbenchError) as error:
        Results.open(tmp_path)
    assert_one_sentence(error, "manifest.json", "gradbench run")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    path = tmp_path / "results"
    path.write_text("")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(path, SUITE, 1, 100)
    assert_one_sentence(error, path, "is not a directory")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(path / "below", SUITE, 1, 100)
    assert_one_sentence(error, path / "below", "Not a directory")
    with pytest.raises(GradbenchError):
        Results.open(path)


def test_an_unwritable_directory_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)  # permissions do not stop a test run by root
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path / "results", SUITE, 1, 100)
    assert_one_sentence(error, "cannot write", tmp_path / "results", "Permission denied")


def test_a_full_disk_leaves_earlier_results_intact(results, monkeypatch):
    some_cell(results).append([block(0)], META)
    before = files(results.directory)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for save in (
            lambda: some_cell(results).append([block(1)], META),
            lambda: results.save_checkpoint(PLACE, [], {}),
            lambda: results.save_reference(PLACE, 0.0, [], {}),
        ):
            with pytest.raises(GradbenchError) as error:
                save()
            assert_one_sentence(error, "cannot write", "No space left", "free some space")
        assert files(results.directory) == before
    some_cell(results).append([block(1)], META)
    assert some_cell(results).done_blocks() == 2


def test_an_interrupt_in_the_middle_of_a_write_leaves_no_trace(results, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    before = files(results.directory)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupt)
        some_cell(results).append([block(0)], META)
    assert files(results.directory) == before


KILLED = """
import os, signal, sys
from gradbench import store
from tests.test_store import META, SUITE, block, some_cell
store.provenance = dict
results = store.Results.open_or_create(sys.argv[1], SUITE, 1, 100)
some_cell(results).append([block(0)], META)
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
some_cell(results).append([block(1)], META)
"""


def test_after_a_kill_in_the_middle_of_a_write_the_run_goes_on(tmp_path):
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=root, check=False)
    assert run.returncode == -signal.SIGKILL
    leftovers = list(tmp_path.rglob(f".*{store._PARTIAL}"))
    assert len(leftovers) == 1
    assert some_cell(Results.open(tmp_path)).done_blocks() == 1  # what is half written is not read
    with Results.open_or_create(tmp_path, SUITE, 1, 100) as results:  # the lock died with it
        assert not leftovers[0].exists()
        some_cell(results).append([block(1)], META)
        assert_same_blocks(some_cell(results).blocks(), [block(0), block(1)])


def test_a_first_run_that_dies_at_once_can_be_repeated(tmp_path):
    (tmp_path / ".lock").touch()
    (tmp_path / f".manifest.json{store._PARTIAL}").write_text("{")
    Results.open_or_create(tmp_path, SUITE, 1, 100).close()
    assert set(files(tmp_path)) == {".lock", "manifest.json"}


def test_a_second_writer_is_refused_until_the_first_one_ends(results):
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(results.directory, SUITE, 1, 100)
    assert_one_sentence(error, "another process", results.directory)
    some_cell(results).append([block(0)], META)
    assert some_cell(Results.open(results.directory)).done_blocks() == 1  # readers may
    results.close()
    Results.open_or_create(results.directory, SUITE, 1, 100).close()


def test_results_opened_to_read_are_not_written(results):
    results.close()
    with pytest.raises(GradbenchError) as error:
        some_cell(Results.open(results.directory)).append([block(0)], META)
    assert_one_sentence(error, "read only")


def test_figures_have_a_directory(results):
    assert results.figures.is_dir() and results.figures == results.directory / "figures"
