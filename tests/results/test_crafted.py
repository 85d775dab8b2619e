"""Whatever the files of results hold, commands print a table or one sentence, never a traceback."""

import contextlib
import io
import json
import os
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored import write_run

from gradbench.cli.main import main
from gradbench.core.atomic import _content, digest
from gradbench.results.manifest import _digest, suite_hash

COMMANDS = (["show"], ["table", "--format", "csv"], ["rank"])
TIMES = (["table", "--costs"], ["rank", "--at-cost", "1ms"], ["rank", "--reach", "10%"])
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 10**20, -0.5, 1e308, float("nan"), float("inf"), "", "x",
    "epoch 1", "$\\bar$", "\x1b[31m", "../..", [], [1], ["x"], {}, {"a": 1}, [[]], [None],
]  # fmt: skip
ARRAYS = [
    np.zeros(()), np.zeros(0), np.zeros(3), np.full(3, np.nan), np.full(2, np.inf), np.ones((3, 1)),
    np.ones(3, np.float32), np.ones(3, int), np.array("x"), np.array(["x", "y"]), np.full(3, 1e308),
    np.full(3, -1.0), np.ones(3, complex), np.array([True]), np.full(3, 1e-320), np.ones((1, 1, 1)),
    np.ones(3, ">f8"),
]  # fmt: skip


def paths_in(value, path=()):
    """All places inside a value of JSON."""
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from paths_in(part, (*path, key))


def crafted_json(data, value):
    """A value of JSON with one part changed, removed, or added."""
    value = json.loads(json.dumps(value))
    *above, key = data.draw(st.sampled_from(sorted(paths_in(value), key=str)))
    inner = value
    for step in above:
        inner = inner[step]
    how = data.draw(st.sampled_from(["change", "remove", "add", "copy"]))
    if how == "remove":
        del inner[key]
    elif how == "add" and isinstance(inner, dict):
        inner[data.draw(st.sampled_from(["x", "", "digest", "until", "families"]))] = 1
    elif how == "copy" and isinstance(inner, list):
        inner.append(inner[key])
    else:
        inner[key] = data.draw(st.sampled_from(VALUES))
    return value


def crafted_npz(data, content):
    """An npz with a right digest and an array or a fact that is changed."""
    arrays = dict(np.load(io.BytesIO(content)))
    note = json.loads(str(arrays.pop("note")))
    del arrays["digest"]
    if arrays and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(arrays)))
        how = data.draw(st.sampled_from(["change", "remove", "add"]))
        if how == "remove":
            del arrays[name]
        else:
            new = name if how == "change" else data.draw(st.sampled_from(["x", "2", "2/0"]))
            arrays[new] = data.draw(st.sampled_from(ARRAYS))
    else:
        note = crafted_json(data, note)
    buffer, text = io.BytesIO(), json.dumps(note)
    np.savez_compressed(buffer, note=text, digest=_content(arrays, text), **arrays)
    return buffer.getvalue()


def crafted_column(data, column):
    """A column with a number changed, of another type, or with other lengths."""
    values = column.to_pylist()
    row = data.draw(st.integers(0, len(values) - 1))
    how = data.draw(st.sampled_from(["number", "null", "shorter", "longer", "empty", "type"]))
    if how == "type":
        kind = data.draw(st.sampled_from([pa.string(), pa.float32(), pa.null()]))
        return pa.array([None] * len(values), kind)
    odd = data.draw(
        st.sampled_from(
            [0, -1, 2**62, 10**9]
            if "int" in str(column.type)
            else [0.0, -1.0, 1e308, float("nan"), float("inf"), 1e-320]
        )
    )
    if isinstance(values[row], list):
        part, inner = values[row], values[row]
        if how == "null":
            values[row] = None
        elif how == "shorter":
            values[row] = part[:-1]
        elif how == "longer":
            values[row] = part + part[:1]
        elif how == "empty" or not part:
            values[row] = []
        else:
            while isinstance(inner[0], list) and inner[0]:
                inner = inner[0]
            inner[0] = [] if isinstance(inner[0], list) else odd
    else:
        values[row] = None if how == "null" else odd
    return pa.array(values, column.type)


def crafted_parquet(data, content):
    """A shard with a column or a fact that is changed."""
    table = pq.read_table(pa.BufferReader(content))
    header = json.loads(table.schema.metadata[b"gradbench"])
    how = data.draw(st.sampled_from(["header", "column", "drop", "rows", "order"]))
    if how == "header":
        header = crafted_json(data, header)
    elif how == "column":
        n = data.draw(st.integers(0, table.num_columns - 1))
        column = crafted_column(data, table.column(n).combine_chunks())
        table = table.set_column(n, table.column_names[n], column)
    elif how == "drop":
        table = table.remove_column(data.draw(st.integers(0, table.num_columns - 1)))
    elif how == "rows":
        table = table.slice(0, data.draw(st.integers(0, table.num_rows - 1)))
    else:
        table = table.take(data.draw(st.permutations(range(table.num_rows))))
    keep = {} if data.draw(st.integers(0, 20)) == 0 else {"gradbench": json.dumps(header)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(keep), sink)
    return sink.getvalue().to_pybytes()


def crafted_manifest(data, content):
    """A manifest with a right digest and a fact that is changed."""
    manifest = json.loads(content)
    del manifest["digest"]
    manifest = crafted_json(data, manifest)
    with contextlib.suppress(Exception):
        manifest["suite_hash"] = suite_hash(manifest["suite"])
    return json.dumps(manifest | {"digest": _digest(manifest)}).encode()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crafted") / "results"
    return write_run(folder, problems=("a",), replicates=1, checkpoints=(1,))


def answers(directory, command):
    """What a command prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # of numbers beyond those of float64
        code = main([command[0], str(directory), *command[1:]])
    return code, out.getvalue(), err.getvalue()


def craft_and_read(run, kind, data):
    path = run / "manifest.json"
    if kind != "manifest":
        path = data.draw(st.sampled_from(sorted(p for p in (run / kind).rglob("*") if p.is_file())))
    content = path.read_bytes()
    craft = {"manifest": crafted_manifest, "shards": crafted_parquet}.get(kind, crafted_npz)
    made = craft(data, content)
    name = f"{path.name.split('.')[0]}.{digest(made)}.parquet" if kind == "shards" else path.name
    path.unlink()
    path.with_name(name).write_bytes(made)
    try:
        for command in [*COMMANDS, *(TIMES if kind == "costs" else ())]:
            code, out, err = answers(run, command)
            assert code in (0, 2) and (out or code)
            assert "\x1b" not in out + err
            if code:
                assert err.count("\n") == 1 and err.startswith("gradbench: ") and len(err) < 900
    finally:
        path.with_name(name).unlink()
        path.write_bytes(content)


KINDS = ("manifest", "references", "moments", "costs", "shards")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.slow
def test_a_crafted_file_is_shown_or_refused_in_one_sentence(run, kind, data):
    craft_and_read(run, kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_many_crafted_files_are_shown_or_refused_in_one_sentence(run, kind, data):
    craft_and_read(run, kind, data)


def test_the_run_itself_is_shown(run):
    for command in COMMANDS:
        code, out, err = answers(run, command)
        assert (code, err) == (0, "") and "psa" in out


def test_a_pipe_in_the_place_of_a_file_is_refused(run):
    path = next((run / "costs").rglob("*.npz"))
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    try:
        code, _, err = answers(run, ["show"])
    finally:
        path.unlink()
        path.write_bytes(content)
    assert code == 2 and "is not a file" in err


def test_an_archive_of_more_than_any_results_is_refused(run, monkeypatch):
    monkeypatch.setattr("gradbench.core.archives._SMALL", 10_000)
    path = next((run / "moments").rglob("*.npz"))
    content = path.read_bytes()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(10_000))  # 40 bytes in the file
    path.write_bytes(buffer.getvalue())
    try:
        code, _, err = answers(run, ["rank"])
    finally:
        path.write_bytes(content)
    assert code == 2 and "delete it and run again" in err
