"""What is said of estimators that were not measured."""

from gradbench.metrics.left_out import LATE, UNASKED, in_short, reasons

DEAR = f"64 draws of 513 evaluations take too long{UNASKED}"
LEFT_OUT = {
    "vimco": "vimco got no MultiSample",
    "psa": DEAR,
    "top_c": "top_c is for one layer",
    "leg": DEAR,
    **{f"concrete(temperature=0.{k})": LATE for k in range(1, 16)},
    "ap2": "ap2 needs an SBN",
    "ovis": "ovis got no MultiSample",
}


def test_estimators_of_one_reason_are_told_together_those_first_that_one_can_measure():
    found = reasons(LEFT_OUT)
    assert [one.misfit for one in found] == [False, False, True, True, True, True]
    assert str(found[0]) == f"psa and leg: {DEAR}"
    assert str(found[1]).startswith("concrete(temperature=0.1), ")
    assert str(found[1]).endswith(f" and 3 more: {LATE}")
    assert {spec for one in found for spec in one.estimators} == LEFT_OUT.keys()
    assert reasons({}) == []


def test_in_short_misfits_are_counted():
    lines = in_short(LEFT_OUT)
    assert lines[0] == f"not measured: psa and leg: {DEAR}"
    assert lines[2] == "not for this model: vimco, top_c, ap2 and 1 more; the report says why"
    assert in_short({"psa": DEAR}) == [f"not measured: psa: {DEAR}"] and in_short({}) == []
