"""Frames of cells that are read one by one; what is read of them no sooner than it is needed."""

import pandas as pd
import pytest
from stored import assert_one_sentence, write_run

from gradbench import metrics
from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.metrics import layers_of, rank, summary
from gradbench.metrics.directory import read_cells
from gradbench.metrics.frames import Frames
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


def test_a_choice_of_metrics_is_that_of_the_whole_summary(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=1, checkpoints=(1,))
    found = summary(results, metrics=["bias", "cosine"])
    pd.testing.assert_frame_equal(found, summary(results)[list(found.columns)])
    assert "bias_high" in found and not {"rmse", "snr", "p_unbiased"} & {*found.columns}
    with pytest.raises(GradbenchError, match="did you mean 'bias'"):
        summary(results, metrics=["bais"])


def test_moments_alone_rank_and_test_as_whole_cells_do(tmp_path):
    results = write_run(tmp_path / "results", problems=("a",), replicates=1, checkpoints=(1, 30))
    cells = [cell._replace(moments=None) for cell in read_cells(results)]
    fewer = [cell.moments_only() for cell in cells]
    for function in (rank, metrics.unbiasedness, metrics.coordinates, metrics.crossovers):
        pd.testing.assert_frame_equal(function(fewer), function(cells))
    found = next(layers_of(fewer[0]))
    with pytest.raises(GradbenchError, match="do not keep directions at M = 1"):
        found.directions(1)
