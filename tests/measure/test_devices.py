"""Draws on several devices are those of one, bit for bit."""

import hashlib
import os
import subprocess
import sys

import jax
import pytest
from conftest import precision, small
from stored import as_bytes

from gradbench.estimators import arm, psa
from gradbench.measure import devices
from gradbench.measure.draws import make_plan, measure

KEY = jax.random.key(3)


def digest(dtype, estimators):
    """A digest of all blocks; the last of them is shorter, and 37 are no multiple of 2 or 8."""
    found = hashlib.sha256()
    with precision(True):
        network, params, batch = small((2, 3, 2, 1))
        cast = lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree)  # noqa: E731
        for make in estimators:
            plan = make_plan(74 - 1, (3, 7), 20)
            assert (plan.block, plan.blocks) == (2, 37)
            for block in measure(make(network), cast(params), cast(batch), params, KEY, plan):
                for field in as_bytes(block):
                    found.update(field)
    return found.hexdigest()


SCRIPT = """
import sys
import jax
import test_devices
from gradbench import estimators
assert len(test_devices.devices.devices()) == int(sys.argv[1])
print(test_devices.digest(sys.argv[2], [getattr(estimators, name) for name in sys.argv[3:]]))
"""


def elsewhere(count, dtype, estimators):
    """The digest in a process with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    names = [make.__name__ for make in estimators]
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.dirname(here), *sys.path])
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(count), dtype, *names],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


@pytest.mark.parametrize(
    ("count", "dtype"), [(8, "float64"), (2, "float64"), (2, "float32"), (8, "float32")]
)
@pytest.mark.slow
def test_draws_on_several_devices_are_those_of_one_bit_for_bit(count, dtype):
    assert elsewhere(count, dtype, [arm]) == digest(dtype, [arm])
    if dtype == "float32":
        assert elsewhere(count, dtype, [psa]) == digest(dtype, [psa])


def test_a_device_that_was_chosen_is_the_only_one():
    with jax.default_device(jax.local_devices()[0]):
        assert devices.devices() == [jax.local_devices()[0]]
    assert devices.devices() == jax.local_devices()


def test_a_chunk_on_an_accelerator_takes_a_share_of_its_memory(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 64 * 2**30}

    monkeypatch.setattr(devices, "devices", lambda: [Device()])
    assert devices.chunk_numbers() == 2**30 // 8
    monkeypatch.setattr(Device, "memory_stats", lambda self: None)
    assert devices.chunk_numbers() == 1 << 18
