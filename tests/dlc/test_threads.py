"""Threads: torch's pool and torch's number, from several Python threads, inside parallel regions, after a fork, under an affinity mask."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_HEAD = """
import os, sys, threading
import torch, dlc
from dlc import f32
M, N = dlc.dims("M N")

@dlc.kernel
def rows(x: f32[M, N]):
    return dlc.softmax(x, 1)

x = torch.randn(2000, 300)
torch.set_num_threads(2)
exact = torch.softmax(x, 1)

def right(got):
    return torch.allclose(got, exact, rtol=1e-5, atol=1e-7)

def os_threads():
    return len(os.listdir("/proc/self/task"))
"""


def run(body, **facts):
    """Run a program in a process of its own; a hang is a failure."""
    done = subprocess.run([sys.executable, "-c", _HEAD + textwrap.dedent(body)], capture_output=True, text=True, timeout=60, cwd=ROOT,
                          check=False, **facts)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_do_not_wait_for_the_pool_left_behind():
    run("""
    import multiprocessing, numpy
    from dlc.runtime.threads import threads
    assert right(rows(x))                                # the pool exists
    child = os.fork()
    if child == 0:
        small = x[:3]                                    # torch's own parallel operations would hang here
        got = rows(x)
        seen = [threads()]
        t = threading.Thread(target=lambda: seen.append(threads()))
        t.start()
        t.join()
        os._exit(0 if torch.equal(got[:3], rows(small)) and seen == [1, torch.get_num_threads()] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert right(rows(x)) and threads() == 2
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.map(rows, [x[:1000].numpy(), x[1000:].numpy()])
    assert right(torch.from_numpy(numpy.concatenate(parts)))
    """)


def test_several_threads_and_parallel_regions_on_torchs_own_pool():
    run("""
    import ctypes
    from dlc.runtime.cpu import openmp
    assert right(rows(x))
    before = os_threads()
    torch.randn(1000, 1000) @ torch.randn(1000, 1000)
    torch.softmax(torch.randn(3000, 300), 1)
    rows(x)
    assert os_threads() == before, "a second pool was started"
    library, results = openmp(), {}
    if library is not None:
        region = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: results.__setitem__(threading.get_ident(), rows(x)))
        library.GOMP_parallel(region, None, 2, 0)
        assert len(results) == 2 and all(right(r) for r in results.values())
    wrong = []
    def work():
        for _ in range(40):
            if not right(rows(x)):
                wrong.append(1)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong
    """)


def test_the_number_of_threads_is_that_of_the_moment():
    run("""
    from dlc.runtime.threads import threads
    torch.set_num_threads(1)
    before = os_threads()
    a = rows(x)
    assert threads() == 1 and os_threads() == before, "one thread starts no other"
    torch.set_num_threads(4)
    b = rows(x)
    assert threads() == 4 and os_threads() > before
    assert right(a) and torch.equal(a, b), "the same bits on any number of threads"
    """)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity masks")
def test_under_an_affinity_mask_and_a_limit_below_the_number_asked_for():
    run("""
    from dlc.config import cpus
    assert cpus() == 1
    torch.set_num_threads(8)
    assert right(rows(x))
    """, preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
        env={**os.environ, "OMP_THREAD_LIMIT": "1", "OMP_DYNAMIC": "true"})
    run("""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # after the pool was made for more
    assert right(rows(x))
    """)
