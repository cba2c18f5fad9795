"""dlc.tune.probes: the loops do the work they claim, on every kind of vector they may be built for."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from dlc.tune import probes as module
from dlc.tune.probes import PROBED_DTYPES, fma_probe, host_features, memory_probe, vector_bytes


def test_memory_probes_move_what_they_say() -> None:
    source, target = (np.arange(1 << 12, dtype=np.uint8).repeat(4) for _ in range(2))
    target[:] = 0
    start = -source.ctypes.data % 64, -target.ctypes.data % 64
    for streaming in (False, True):
        probe = memory_probe("copy", streaming)
        probe.run(source.ctypes.data + start[0], target.ctypes.data + start[1], 2 * probe.step, 1)
        assert (target[start[1] :][: 2 * probe.step] == source[start[0] :][: 2 * probe.step]).all()
        assert not target[start[1] + 2 * probe.step :].any()
        target[:] = 0


@pytest.mark.parametrize("dtype", PROBED_DTYPES)
def test_fma_probes_take_time_in_proportion(dtype: str) -> None:
    probe = fma_probe(dtype)

    def fastest(n: int) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            probe.run(n)
            times.append(time.perf_counter() - started)
        return min(times)

    assert fastest(40_000) > 4 * fastest(4_000)


def test_reads_and_writes_stay_inside_their_buffers() -> None:
    probe = memory_probe("write")
    buffer = np.full(4 * probe.step + 128, 7, dtype=np.uint8)
    start = -buffer.ctypes.data % 64
    probe.run(0, buffer.ctypes.data + start, 2 * probe.step, 3)  # the last repeat fills with 2
    inside = buffer[start : start + 2 * probe.step]
    assert (inside.view(np.int32) == 2).all()
    assert (buffer[:start] == 7).all() and (buffer[start + 2 * probe.step :] == 7).all()
    memory_probe("read").run(buffer.ctypes.data + start, 0, 2 * probe.step, 3)
    assert (inside.view(np.int32) == 2).all()


def test_each_thread_may_run_the_same_probe() -> None:
    probe = fma_probe("f32")
    assert probe is fma_probe("f32") and probe.flops % (2 * vector_bytes() // 4) == 0
    assert re.match(r"fma <\d+ x float>", probe.instruction)


def test_a_processor_without_bf16_products_computes_in_f32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "host_features", lambda: host_features() - {"avx512bf16", "amx-bf16"})
    assert module._bf16_probe().instruction == fma_probe("f32").instruction


def test_tiles_that_the_system_refuses_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tiles_granted", lambda: False)
    assert module._amx_probe() is None
