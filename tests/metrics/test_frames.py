"""Frames of cells that are read one by one; what is read of them no sooner than it is needed."""

import numpy as np
import pandas as pd
import pytest
from stored import assert_one_sentence, drawn, write_run

from gradbench import metrics
from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.metrics import layers_of, rank, summary
from gradbench.metrics.directory import read_cells
from gradbench.metrics.frames import MOST, Frames
from gradbench.metrics.layers import scopes_of, settled
from gradbench.results.store import Results


def test_a_histogram_that_is_not_of_its_groups_is_refused_where_it_is_needed(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=1, checkpoints=(1,))
    with Results.open_or_create(results, Results.open(results).manifest["suite"], 0, 64) as opened:
        cell = opened.cell("a", 0, "epoch 1", "psa")
        meta, blocks = cell.load()
        layer = blocks[2].layers[1]
        wrong = layer._replace(histogram=layer.histogram + 1)
        blocks[2] = blocks[2]._replace(layers=(blocks[2].layers[0], wrong))
        cell.discard()
        cell.append(blocks, meta)
    assert len(rank(results, at="1-draw")) == 2  # by RMSE, which has no groups
    for read in (summary, lambda run: rank(run, "cosine", layer="output", at="1-draw")):
        with pytest.raises(CorruptFile) as error:
            read(results)
        assert_one_sentence(error, cell.directory, "its histogram is not that of its groups")


def test_several_frames_of_cells_that_are_read_once_are_those_of_each_alone(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=2, checkpoints=(1,))
    table = Frames(["summary", "curves", "coordinates"])
    for cell in read_cells(results):
        table.add(cell)
    for name, frame in table.frames().items():
        pd.testing.assert_frame_equal(frame, getattr(metrics, name)(results))


def test_a_wide_layer_has_no_figure_of_its_coordinates_and_this_is_known():
    rng = np.random.default_rng(1)
    sizes = (3, MOST + 1)
    cell = drawn([rng.normal(size=(64, n)) for n in sizes], [np.ones(n) for n in sizes], 16)
    for one, wide in ((cell, True), (drawn(rng.normal(size=(64, 3)), np.ones(3), 16), False)):
        table = Frames(["coordinates"])
        table.add(one)
        assert table.wide == wide
        assert len(table.frames()["coordinates"]) == 3
    assert len(metrics.coordinates([cell])) == sum(sizes)


def test_a_choice_of_metrics_is_that_of_the_whole_summary(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=1, checkpoints=(1,))
    found = summary(results, metrics=["bias", "cosine"])
    pd.testing.assert_frame_equal(found, summary(results)[list(found.columns)])
    assert "bias_high" in found and not {"rmse", "snr", "p_unbiased"} & {*found.columns}
    with pytest.raises(GradbenchError, match="did you mean 'bias'"):
        summary(results, metrics=["bais"])


def test_settled_cells_rank_and_test_as_whole_cells_do(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=1, checkpoints=(1, 30))
    cells = [cell._replace(moments=None) for cell in read_cells(results)]
    fewer = [settled(cell) for cell in cells]
    for function in (rank, metrics.unbiasedness, metrics.crossovers):
        pd.testing.assert_frame_equal(function(fewer), function(cells))
        pd.testing.assert_frame_equal(function([*map(settled, fewer)]), function(cells))
    pd.testing.assert_frame_equal(rank(fewer, level=0.5), rank(cells, level=0.5))
    assert metrics.decide(fewer) == metrics.decide(cells)
    found = next(layers_of(fewer[0]))
    with pytest.raises(GradbenchError, match="do not keep directions at M = 1"):
        found.directions(1)
    with pytest.raises(GradbenchError, match="read the results again"):
        found.estimate("descent")


def test_settled_cells_hold_no_array_of_coordinates(tmp_path):
    def sizes(value, seen):
        """The sizes of all arrays that an object holds."""
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            yield value.size if value.base is None else value.base.size
        elif isinstance(value, dict | list | tuple):
            for part in value.values() if isinstance(value, dict) else value:
                yield from sizes(part, seen)
        elif hasattr(value, "__dict__"):
            yield from sizes(vars(value), seen)

    rng = np.random.default_rng(1)
    draws = [rng.normal(size=(64, 1000)) for _ in range(3)]
    gradient = [np.ones(1000)] * 3
    cell = drawn(draws, gradient, 16)._replace(readout=("layer 3",))
    assert max(sizes(cell, set())) >= 1000
    for name in ("bias", "std", "rmse"):
        for one in scopes_of(settled(cell)).values():
            before = scopes_of(cell)[one.layer]
            assert one.estimate(name, 7) == before.estimate(name, 7)
    assert max(sizes(settled(cell), set())) < 1000
