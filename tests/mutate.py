"""Inputs that are wrong in all ways: texts and files changed at random, also with right digests."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradbench.core.atomic import _content
from gradbench.results.manifest import _digest, suite_hash

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
# What stands in the place of a number, a name or a word in a text.
WORDS = [
    "0", "-1", "1", "2", "3", "0.5", "-0.0", "1e400", "nan", "inf", "-inf", "1_000", "0x10",
    "1e-400", "10000", "1000000000", "99999999999999999999999999", "9" * 5000, "1" + "0" * 308,
    "true", "None", "[]", "{}", "()", '""', "''", '"x"', "'..'", '"../../etc"', '"/"', '"a/b"',
    '"\\u0000"', '"\x1b[31m"', "\x00", "\ufeff", "\u202e", "\ud83d\ude00", "é", "\u0131", "ß",
    "\u0661", "$x_1$", "%s", "{0}", "<b>", "&amp;", "'; drop", "`id`", "$(id)", "\n", "\r\n",
    "\t", "#", "=", ",", ".", "..", ":", ";", "(", ")", "[", "]", "psa", "nested(weights='arm')",
    "exact", "epoch 10", "reinforce(baseline=1)", "x" * 300, "x" * 5000, "lambda: 0",
    "__import__('os')", "a=1", "**x", "*x", "1%", "5 %", "-1%", "1ms", "10-draws", "-", "--",
]  # fmt: skip


# --- texts ---


def changed_text(rng, text, others=()):
    """A text with parts removed, doubled, moved, or replaced by something odd or from elsewhere."""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        text = _changed_once(rng, text, others)
    return text


def _changed_once(rng, text, others):
    how = rng.randrange(8)
    if how == 0 or not text:  # something odd anywhere
        at = rng.randint(0, len(text))
        return text[:at] + rng.choice(WORDS) + text[at:]
    if how in (1, 2):  # or in the place of a word
        words = _words(text)
        start, end = rng.choice(words) if words else (0, len(text))
        return text[:start] + rng.choice(WORDS) + text[end:]
    if how == 3:  # a word of it, or of another one, in the place of another word
        one, two = _words(text), _words(source := rng.choice([text, *others]))
        if not one or not two:
            return source
        (start, end), (first, last) = rng.choice(one), rng.choice(two)
        return text[:start] + source[first:last] + text[end:]
    if how == 4:  # one letter
        at = rng.randrange(len(text))
        return (
            text[:at]
            + chr(rng.choice([rng.randrange(128), rng.randrange(0xD800)]))
            + text[at + 1 :]
        )
    if how == 5:  # a part is gone
        start = rng.randrange(len(text))
        return text[:start] + text[start + rng.choice([1, 1, 3, 10, 100]) :]
    if how == 6:  # cut
        return text[: rng.randrange(len(text))]
    lines = text.split("\n")  # a line of it, or of another one, more, less, or elsewhere
    new = rng.choice(rng.choice([text, *others]).split("\n"))
    lines.insert(rng.randint(0, len(lines)), new)
    if rng.random() < 0.5:
        del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def _words(text):
    """Where words and numbers begin and end."""
    found, start = [], None
    for at, letter in enumerate(f"{text} "):
        if letter.isalnum() or letter in "_.":
            start = at if start is None else start
        elif start is not None:
            found.append((start, at))
            start = None
    return found


# --- bytes ---


def damaged(rng, content, others=()):
    """The bytes of a file as a disk or a transfer damages them; never those that they were."""
    new = content
    while new == content:
        how = rng.randrange(7)
        at = rng.randrange(len(content)) if content else 0
        length = rng.choice([1, 1, 4, 16, 512])
        if how == 0 or not content:  # cut
            new = content[:at]
        elif how in (1, 2):  # a bit
            new = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        elif how == 3:  # nothing, as of blocks that were never written
            new = content[:at] + bytes(len(content[at : at + length])) + content[at + length :]
        elif how == 4:  # noise
            new = content[:at] + rng.randbytes(length) + content[at + length :]
        elif how == 5:  # a part is gone, or twice there
            end = at + rng.choice([-length, length])
            new = content[:at] + content[max(0, end) :]
        else:  # a part of another file, or all of it
            other = rng.choice([content[::-1], *others])
            start = rng.randrange(len(other)) if other else 0
            new = rng.choice([other, content[:at] + other[start : start + length] + content[at:]])
    return new


# --- files with right digests ---


def paths_in(value, path=()):
    """All places inside a value of JSON."""
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from paths_in(part, (*path, key))


def crafted_json(rng, value):
    """A value of JSON with one part changed, removed, or added."""
    value = json.loads(json.dumps(value))
    *above, key = rng.choice(sorted(paths_in(value), key=str))
    inner = value
    for step in above:
        inner = inner[step]
    how = rng.choice(["change", "remove", "add", "copy"])
    if how == "remove":
        del inner[key]
    elif how == "add" and isinstance(inner, dict):
        inner[rng.choice(["x", "", "digest", "until", "families"])] = 1
    elif how == "copy" and isinstance(inner, list):
        inner.append(inner[key])
    else:
        inner[key] = rng.choice(VALUES)
    return value


def crafted_npz(rng, content):
    """An npz with a right digest and an array or a fact that is changed."""
    arrays = dict(np.load(io.BytesIO(content)))
    note = json.loads(str(arrays.pop("note")))
    del arrays["digest"]
    if arrays and rng.random() < 0.5:
        name = rng.choice(sorted(arrays))
        how = rng.choice(["change", "number", "remove", "add"])
        if how == "remove":
            del arrays[name]
        elif how == "number" and arrays[name].size:
            odd = rng.choice([0.0, -1.0, 0.5, 1e308, -1e308, float("nan"), float("inf"), 1e-320])
            arrays[name].flat[rng.randrange(arrays[name].size)] = odd
        else:
            new = rng.choice(["x", "2", "2/0"]) if how == "add" else name
            arrays[new] = rng.choice(ARRAYS)
    else:
        note = crafted_json(rng, note)
    buffer, text = io.BytesIO(), json.dumps(note)
    np.savez_compressed(buffer, note=text, digest=_content(arrays, text), **arrays)
    return buffer.getvalue()


def crafted_column(rng, column):
    """A column with a number changed, of another type, or with other lengths."""
    values = column.to_pylist()
    row = rng.randrange(len(values))
    how = rng.choice(["number", "null", "shorter", "longer", "empty", "type"])
    if how == "type":
        return pa.array([None] * len(values), rng.choice([pa.string(), pa.float32(), pa.null()]))
    odd = rng.choice(
        [0, -1, 2**62, 10**9]
        if "int" in str(column.type)
        else [0.0, -1.0, 1e308, float("nan"), float("inf"), 1e-320]
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


def crafted_parquet(rng, content):
    """A shard with a column or a fact that is changed."""
    table = pq.read_table(pa.BufferReader(content))
    header = json.loads(table.schema.metadata[b"gradbench"])
    how = rng.choice(["header", "column", "drop", "rows", "order"])
    if how == "header":
        header = crafted_json(rng, header)
    elif how == "column":
        n = rng.randrange(table.num_columns)
        column = crafted_column(rng, table.column(n).combine_chunks())
        table = table.set_column(n, table.column_names[n], column)
    elif how == "drop":
        table = table.remove_column(rng.randrange(table.num_columns))
    elif how == "rows":
        table = table.slice(0, rng.randrange(table.num_rows))
    else:
        table = table.take(rng.sample(range(table.num_rows), table.num_rows))
    keep = {} if rng.randrange(20) == 0 else {"gradbench": json.dumps(header)}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(keep), sink)
    return sink.getvalue().to_pybytes()


def crafted_manifest(rng, content):
    """A manifest with a right digest and a fact that is changed."""
    manifest = json.loads(content)
    del manifest["digest"]
    manifest = crafted_json(rng, manifest)
    with contextlib.suppress(Exception):
        manifest["suite_hash"] = suite_hash(manifest["suite"])
    return json.dumps(manifest | {"digest": _digest(manifest)}).encode()


def crafted(rng, path: Path):
    """The content of a file of results with something changed, and a digest that is right."""
    kinds = {".json": crafted_manifest, ".parquet": crafted_parquet, ".npz": crafted_npz}
    return kinds[path.suffix](rng, path.read_bytes())
