"""A cell gives back the blocks it was given, or says which of its shards is not as it was."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from stored import FLOATS, META, PLACE, assert_one_sentence, assert_same_blocks, block, damaged

from gradbench.core.atomic import SCHEMA, CorruptFile, digest, write_file
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import BINS, Block, LayerBlock
from gradbench.measure.stack import Stack
from gradbench.results import rows, shards
from gradbench.results.shards import CellStore, CorruptShard
from gradbench.results.totals import KEY, pack_totals


def a_cell(directory, estimator="concrete(temperature=0.1)", seed=1):
    run = {"suite_hash": "0123456789abcdef", "seed": seed, "draws": 100}
    return CellStore(PLACE, estimator, Path(directory), run, write_file)


@pytest.fixture
def cell(tmp_path):
    return a_cell(tmp_path / "cell")


@st.composite
def any_blocks(draw):
    """Blocks of any shape (also without coordinates, heads, averages) and any finite values."""
    heads, averages = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    floats = lambda *shape: draw(hnp.arrays(np.float64, shape, elements=FLOATS))  # noqa: E731
    counts = lambda *shape: draw(  # noqa: E731
        hnp.arrays(np.int64, shape, elements=st.integers(0, 2**63 - 1), fill=st.just(0))
    )

    def layer(size):
        return LayerBlock(
            draw(st.integers(1, 2**40)),
            floats(size),
            floats(size),
            floats(heads, size),
            counts(averages),
            floats(averages),
            floats(averages),
            counts(averages, BINS),
            floats(averages),
            floats(averages),
        )

    network = draw(st.booleans())
    return [
        Block(index, tuple(map(layer, sizes)), layer(0) if network else None)
        for index in range(draw(st.integers(1, 3)))
    ]


@settings(max_examples=40, deadline=None)
@given(any_blocks(), st.data())
@pytest.mark.slow
def test_blocks_come_back_bit_by_bit_however_they_are_split_into_shards(blocks, data):
    split = data.draw(st.integers(0, len(blocks)))
    with tempfile.TemporaryDirectory() as directory:
        for part in (blocks[:split], blocks[split:]):
            if part:
                a_cell(directory).append(part, META)
        cell = a_cell(directory)
        assert cell.done_blocks() == len(blocks)
        meta, stored = cell.load()
        assert meta == META
        assert_same_blocks(stored, blocks)


def test_a_cell_without_shards_is_empty(cell):
    assert cell.load() == (None, []) and cell.done_blocks() == 0


def test_loading_a_cell_reads_every_shard_once(cell, monkeypatch):
    for index in range(3):
        cell.append([block(index)], META)
    honest, read = shards.read_file, []
    monkeypatch.setattr(shards, "read_file", lambda path: read.append(path.name) or honest(path))
    cell.load()
    assert sorted(read) == sorted(path.name for path in cell.directory.iterdir())


@pytest.fixture(scope="module")
def one_shard():
    """A cell of one shard, whose bytes each example of Hypothesis damages and then restores."""
    with tempfile.TemporaryDirectory() as directory:
        cell = a_cell(directory)
        cell.append([block(0), block(1)], META)
        yield cell


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_corrupted_shard_is_named(one_shard, data):
    (path,) = one_shard.directory.iterdir()
    content = path.read_bytes()
    path.write_bytes(damaged(content, data))
    for read in (one_shard.load, one_shard.done_blocks):
        with pytest.raises(CorruptShard) as error:
            read()
        assert_one_sentence(error, path, "is corrupted; its cell has to be measured again")
    path.write_bytes(content)
    assert one_shard.done_blocks() == 2


def test_discarding_a_corrupted_cell_deletes_its_shards_only(cell):
    cell.append([block(0)], META)
    (shard,) = cell.directory.iterdir()
    shard.write_bytes(b"")
    note = cell.directory / "note.parquet"
    note.write_text("a user's file")
    cell.discard()
    assert cell.done_blocks() == 0 and note.exists()
    cell.append([block(0)], META)
    assert_same_blocks(cell.load()[1], [block(0)])


def test_a_missing_shard_is_noticed(cell):
    for index in range(3):
        cell.append([block(index)], META)
    sorted(cell.directory.iterdir())[1].unlink()
    with pytest.raises(CorruptShard) as error:
        cell.done_blocks()
    assert_one_sentence(error, "000002-000002", "does not begin with block 1")


def test_overlapping_shards_are_noticed(tmp_path):
    cells = [a_cell(tmp_path / name, name) for name in ("psa", "arm")]
    for seed, cell in enumerate(cells):
        cell.append([block(0, seed=seed)], META)
    (shard,) = cells[1].directory.iterdir()
    shard.rename(cells[0].directory / shard.name)
    with pytest.raises(CorruptShard) as error:
        cells[0].load()
    assert_one_sentence(error, "does not begin with block 1")


def test_a_shard_of_another_cell_or_run_is_noticed(tmp_path):
    target = a_cell(tmp_path / "target", "psa", seed=1)
    target.directory.mkdir()
    for n, (estimator, seed) in enumerate([("psa", 2), ("arm", 1)]):
        source = a_cell(tmp_path / f"source{n}", estimator, seed)
        source.append([block(0)], META)
        (shard,) = source.directory.iterdir()
        (target.directory / shard.name).write_bytes(shard.read_bytes())
        with pytest.raises(CorruptShard) as error:
            target.done_blocks()
        assert_one_sentence(error, "belongs to another cell or another run")
        target.discard()


def test_blocks_that_do_not_continue_the_cell_are_refused(cell):
    cell.append([block(0)], META)
    for blocks in ([], [block(2)], [block(1), block(3)], [block(0)]):
        with pytest.raises(GradbenchError) as error:
            cell.append(blocks, META)
        assert_one_sentence(error, "from block 1 on")
    with pytest.raises(GradbenchError) as error:
        cell.append([block(1)], META | {"block": 8})
    assert_one_sentence(error, "other settings", "concrete(temperature=0.1)", "--out")
    assert cell.done_blocks() == 1


def shard_of_schema_1(cell, blocks):
    """Writes blocks as the first release did: without signs, and without the network."""
    names = ("count", "mean", "m2", "heads", "groups", "cosine", "cosine_sq", "histogram")
    rows = [(block.index, n, layer) for block in blocks for n, layer in enumerate(block.layers)]
    columns = {
        "block": [index for index, *_ in rows],
        "layer": [n for _, n, _ in rows],
        **{name: [np.asarray(getattr(row[2], name)).tolist() for row in rows] for name in names},
    }
    reals, whole = pa.list_(pa.float64()), pa.list_(pa.int64())
    kinds = [pa.int64()] * 3 + [reals] * 2 + [pa.list_(reals), whole, reals, reals, pa.list_(whole)]
    header = {"schema": 1, **cell.run, **PLACE._asdict(), "estimator": cell.estimator}
    header |= {"first": blocks[0].index, "last": blocks[-1].index, "meta": META}
    fields = list(zip(columns, kinds, strict=True))
    schema = pa.schema(fields, metadata={"gradbench": json.dumps(header)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema), sink)
    data = sink.getvalue().to_pybytes()
    name = f"{header['first']:06}-{header['last']:06}.{digest(data)}.parquet"
    write_file(cell.directory / name, data)


def test_a_shard_of_schema_1_is_read_without_signs_and_without_a_network(cell):
    blocks = [block(0), block(1)]
    shard_of_schema_1(cell, blocks)
    assert cell.done_blocks() == 2
    meta, found = cell.load()
    assert meta == META
    unknown = {name: np.full(2, np.nan) for name in ("signs", "signs_sq")}
    expected = [
        Block(b.index, tuple(layer._replace(**unknown) for layer in b.layers)) for b in blocks
    ]
    assert_same_blocks(found, expected)


def test_a_cell_begun_with_schema_1_goes_on(cell):
    shard_of_schema_1(cell, [block(0)])
    cell.append([block(1)], META)
    old, new = cell.load()[1]
    assert old.network is None and np.isnan(old.layers[0].signs).all()
    assert_same_blocks([new], [block(1)])


def test_a_newer_shard_is_refused_and_not_called_corrupted(cell, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shards, "SCHEMA", SCHEMA + 1)
        cell.append([block(0)], META)
    with pytest.raises(GradbenchError) as error:
        cell.load()
    assert_one_sentence(error, f"schema {SCHEMA + 1}")
    assert not isinstance(error.value, CorruptFile)


def rewritten(cell, table):
    """Write the only shard of a cell anew, with another table of Arrow."""
    (path,) = cell.directory.iterdir()
    pq.write_table(table, path)
    path.rename(path.with_name(f"{path.name.split('.')[0]}.{digest(path.read_bytes())}.parquet"))


def with_totals(table, text):
    """A table whose metadata have this text for the sums of the histograms, or none."""
    metadata = {**table.schema.metadata, KEY: text}
    return table.replace_schema_metadata({k: v for k, v in metadata.items() if v is not None})


@pytest.mark.parametrize("old", [False, True])
def test_sums_of_histograms_are_those_of_the_blocks(cell, monkeypatch, old):
    """Shards of an older gradbench do not have them; of others no histogram is read for them."""
    blocks = [block(0), block(1)]
    cell.append(blocks, META)
    if old:
        (path,) = cell.directory.iterdir()
        rewritten(cell, with_totals(pq.read_table(path), None))
    else:
        monkeypatch.setattr(rows, "_histograms", lambda *_: pytest.fail("they are read"))
    (stack,) = cell.load_stacks()[1]
    for k, layer in enumerate(stack.layers):
        expected = sum(one.layers[k].histogram for one in blocks)
        np.testing.assert_array_equal(layer.histogram.total(), expected)
    expected = sum(one.network.histogram for one in blocks)
    np.testing.assert_array_equal(stack.network.histogram.total(), expected)


def test_sums_of_histograms_that_are_none_are_refused(cell):
    cell.append([block(0), block(1)], META)
    (path,) = cell.directory.iterdir()
    table = pq.read_table(path)
    sizes = [np.zeros((k, BINS), np.int64) for k in (2, 2, 2)]
    for text in (b"?", b"eJwDAAAAAAE=", pack_totals(sizes[:2]), pack_totals([*sizes, sizes[0]])):
        rewritten(cell, with_totals(table, text))
        (stack,) = cell.load_stacks()[1]
        for read in (stack.layers[0].histogram.total, stack.layers[0].histogram.blocks):
            with pytest.raises(CorruptShard) as error:
                read()
            assert_one_sentence(error, "is not a shard as gradbench writes it")
    rewritten(cell, with_totals(table, pack_totals(sizes)))  # of the right size, but not the sums
    with pytest.raises(CorruptShard) as error:
        cell.load()
    assert_one_sentence(error, "is not a shard as gradbench writes it")


def test_histograms_are_read_when_they_are_asked_for_and_refused_then(cell, tmp_path):
    """All but them can be had of a shard whose histograms are of another length."""
    stored = block(0)._replace(network=None)
    cell.append([stored, stored._replace(index=1)], META)
    (path,) = cell.directory.iterdir()
    table = pq.read_table(path)
    histogram = [[row[:-1] for row in rows] for rows in table["histogram"].to_pylist()]
    n = table.column_names.index("histogram")
    short = pa.array(histogram, pa.list_(pa.list_(pa.int64())))
    rewritten(cell, with_totals(table.set_column(n, "histogram", short), None))
    _, (stack,) = cell.load_stacks()
    for k in range(2):
        assert stack.layers[k].mean.tobytes() == np.stack([stored.layers[k].mean] * 2).tobytes()
    for read in (
        cell.load,
        cell.done_blocks,
        stack.layers[1].histogram.total,
        stack.layers[0].histogram.blocks,
    ):
        with pytest.raises(CorruptShard) as error:
            read()
        assert_one_sentence(error, "is not a shard as gradbench writes it")


@pytest.mark.parametrize("name", ["mean", "groups", "heads"])
def test_blocks_of_different_sizes_are_no_shard(cell, name):
    cell.append([block(0), block(1)], META)
    (path,) = cell.directory.iterdir()
    table = pq.read_table(path)
    longer = {"mean": ["mean", "m2", "heads"], "heads": ["heads"]}
    for column in longer.get(name, ["groups", "cosine", "cosine_sq", "signs", "signs_sq"]):
        values = table[column].to_pylist()
        if column == "heads" and name == "mean":
            values[0] = [[*row, 0.0] for row in values[0]]
        else:
            values[0] = [*values[0], values[0][0]]
        n = table.column_names.index(column)
        table = table.set_column(n, column, pa.array(values, table[column].type))
    pq.write_table(table, path)
    path.rename(path.with_name(f"000000-000001.{digest(path.read_bytes())}.parquet"))
    with pytest.raises(CorruptShard) as error:
        cell.load_stacks()
    assert_one_sentence(error, "is not a shard as gradbench writes it")


@settings(max_examples=40, deadline=None)
@given(any_blocks(), st.integers(1, 3))
@pytest.mark.slow
def test_stacks_are_the_blocks_that_they_are_made_of(blocks, parts):
    blocks = [one._replace(index=k) for k, one in enumerate(blocks * parts)]
    cuts = [blocks[k::parts] for k in range(parts)]
    for stack, cut in zip(map(Stack.of, cuts), cuts, strict=True):
        assert_same_blocks(list(stack), cut)
        assert_same_blocks([stack[0], stack[-1]], [cut[0], cut[-1]])
        assert_same_blocks(stack[1:], cut[1:])
    joined = Stack.join([*map(Stack.of, cuts)])
    assert_same_blocks(list(joined), [one for cut in cuts for one in cut])
    for n, layer in enumerate(joined.layers):
        histograms = np.stack([one.layers[n].histogram for one in blocks])
        assert (layer.histogram.total() == histograms.sum(0)).all()
