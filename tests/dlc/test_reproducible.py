"""Reproducible kernels: the same bits on any number of cores and threads, tuned or not."""

from dataclasses import replace

import pytest
import torch

import dlc
from dlc import f32, i64, records
from dlc.compiler import NOMINAL_THREADS, Plan, record_key
from dsl.errors import ScheduleError

M, N = dlc.dims("M N")


def definition(x: f32[M, N]):
    return dlc.sum(x * x, 0, 1), dlc.softmax(x, 1)


steady, usual = dlc.kernel(definition, reproducible=True), dlc.kernel(definition)


@pytest.fixture(autouse=True)
def fresh(cache_dir):
    return cache_dir


def on(kernel, x: torch.Tensor, cores: int) -> Plan:
    request = kernel.request([x.shape], [x.stride()])
    return Plan(replace(request, target=replace(request.target, threads=cores)))


def test_any_number_of_cores_gives_one_order_and_the_same_bits() -> None:
    x = torch.randn(30, 40000)
    plans = [on(steady, x, cores) for cores in (1, 2, 7, 64)]
    assert len({p.order for p in plans}) == 1 and {p.request.target.threads for p in plans} == {NOMINAL_THREADS}
    results = [p.launcher()([x]) for p in plans]
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, before = torch.randn(16, 50000), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(dlc.kernel(definition, reproducible=True)(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


B, H, D, K = dlc.dims("B H D K")


def attended(q: f32[B, H, M, D], k: f32[B, H, N, D], v: f32[B, H, N, D]):
    return dlc.scaled_dot_product_attention(q, k, v, is_causal=True)


def normed(x: f32[M, D], w: f32[N, D]):
    return dlc.layer_norm(x) @ w.T, dlc.rms_norm(x)


def convolved(x: f32[B, 8, H, D], w: f32[16, 8, 3, 3]):
    return dlc.conv2d(x, w, padding=1)


def embedded(at: i64[M], w: f32[N, D]):
    return dlc.embedding(at, w)


def summed(x: f32[M, N]):
    return dlc.sum(x, 0), dlc.mean(x, (0, 1)), dlc.logsumexp(x, 0)


def _r(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


PROGRAMS = {
    "attention": (dlc.kernel(attended, reproducible=True), lambda: tuple(_r(1, 2, 150, 16) for _ in range(3))),
    "one query": (dlc.kernel(attended, reproducible=True), lambda: (_r(1, 1, 1, 16), _r(1, 1, 3000, 16), _r(1, 1, 3000, 16))),
    "norms": (dlc.kernel(normed, reproducible=True), lambda: (_r(130, 700), _r(40, 700))),
    "convolution": (dlc.kernel(convolved, reproducible=True), lambda: (_r(2, 8, 20, 20), _r(16, 8, 3, 3))),
    "sums": (dlc.kernel(summed, reproducible=True), lambda: (_r(3000, 70),)),
    "backward of attention": (dlc.kernel(attended, reproducible=True).vjp, lambda: tuple(_r(1, 2, 70, 16) for _ in range(4))),
    "backward of an embedding": (dlc.kernel(embedded, reproducible=True).vjp,
                                 lambda: (torch.arange(3000) * 37 % 50, _r(50, 24), _r(3000, 24))),
    "backward of a convolution": (dlc.kernel(convolved, reproducible=True).vjp,
                                  lambda: (_r(2, 8, 12, 12), _r(16, 8, 3, 3), _r(2, 16, 12, 12))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_every_kind_keep_their_bits(name: str) -> None:
    """On any number of threads and of cores that the schedule is made for, and with tuned choices of the same order."""
    kernel, make = PROGRAMS[name]
    args, before = make(), torch.get_num_threads()
    request = kernel.request([a.shape for a in args], [a.stride() for a in args])
    plans = [Plan(replace(request, target=replace(request.target, threads=cores))) for cores in (1, 2, 64)]
    assert len({p.order for p in plans}) == 1
    plans = plans[:1] + _tuned(plans[0], 3)
    runs = [*((threads, plans[0]) for threads in (1, 2, 3)), *((2, p) for p in plans[1:])]
    try:
        results = []
        for threads, plan in runs:
            torch.set_num_threads(threads)
            results.append(plan.launcher()(list(args)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


def _tuned(plan: Plan, most: int) -> list[Plan]:
    """Plans with one choice made otherwise, of the same order of every sum."""
    out = []
    for c in list(_made(plan)):
        for value in c.options:
            if value != c.value and len(out) < most:
                other = Plan(replace(plan.request, decisions={c.name: value}))
                if other.order == plan.order and other.nest != plan.nest:
                    out.append(other)
                    break
    return out


def var(x: f32[M, N]):
    return dlc.var(x, axis=1)


CACHES = [(32 << 10, 256 << 10, 2 << 20), (48 << 10, 2 << 20, 96 << 20)]


def test_the_caches_of_a_machine_change_no_order() -> None:
    """Whether a long row is read once or twice follows from the caches: those of a nominal machine."""
    x = torch.empty(4, 100_000, device="meta")

    def orders(kernel) -> set[str]:
        request = kernel.request([x.shape], [x.stride()])
        return {Plan(replace(request, target=replace(request.target, caches=caches))).order for caches in CACHES}

    assert len(orders(dlc.kernel(var))) == 2 and len(orders(dlc.kernel(var, reproducible=True))) == 1


@pytest.mark.parametrize("name", ["attention", "norms", "sums"])
def test_bits_follow_from_the_arguments_not_from_the_calls_before(name: str) -> None:
    """Sizes that keep changing would become arguments of a kernel that is scheduled for another size."""
    kernel, make = PROGRAMS[name]
    called = dlc.kernel(kernel.fn, reproducible=True)
    for n in (60, 57, 50, 33, 20, 9):
        args = tuple(a[:n].contiguous() if a.dim() == 2 else a[:, :, :n].contiguous() for a in make())
        fresh = dlc.kernel(kernel.fn, reproducible=True)(*args)
        assert all(torch.equal(a, b) for a, b in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (called(*args), fresh))))
    assert not called._calls._many


@pytest.mark.parametrize("make", [lambda: (_r(1, 2, 300, 64),) * 3, lambda: (_r(1, 1, 20, 16),) * 3])
def test_a_call_that_autograd_follows_has_the_bits_of_one_that_it_does_not(make) -> None:
    kernel, args = PROGRAMS["attention"][0], make()
    plain = kernel(*args)
    tracked = [a.clone().requires_grad_() for a in args]
    followed = kernel(*tracked)
    assert torch.equal(plain, followed.detach())
    grads = torch.autograd.grad(followed, tracked, torch.ones_like(followed))
    again = torch.autograd.grad(kernel(*tracked), tracked, torch.ones_like(followed))
    assert all(torch.equal(a, b) for a, b in zip(grads, again))


def affine(x: f32[M, K], w: f32[K, N]):
    return dlc.relu(x @ w)


@pytest.mark.parametrize("m", [1, 20, 130])
def test_a_bound_weight_changes_no_bits(m: int) -> None:
    kernel, x, w = dlc.kernel(affine, reproducible=True), _r(m, 700), _r(700, 96)
    assert torch.equal(kernel(x, w), kernel.bind(w=w)(x))


def test_lazy_tensors_keep_what_a_kernel_promises() -> None:
    """A kernel that becomes a part of others makes them reproducible too, and their backwards."""
    x, before = _r(2, 60000), torch.get_num_threads()
    kernel = dlc.kernel(var, reproducible=True)
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            t = dlc.Tensor(x, requires_grad=True)
            y = kernel(t * 1.5)
            y.sum().backward()
            results.append((torch.from_numpy(y.detach().numpy()), torch.from_numpy(t.grad.numpy())))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0]))


def test_a_record_of_another_order_is_not_taken() -> None:
    x = torch.randn(8, 512)
    plan = on(steady, x, 2)
    choice = next(c for c in _made(plan) if c.name.endswith(".vectors") and _order(plan, c.name, 1) != plan.order)
    key = record_key(plan.request)
    records.save(records.Record(key, "definition", {choice.name: 1}, {}, 2.0, order=_order(plan, choice.name, 1)))
    assert on(steady, x, 2).record is None and on(usual, x, 2).record is not None
    records.save(records.Record(key, "definition", {choice.name: choice.value}, {}, 2.0, order=plan.order))
    assert on(steady, x, 2).record is not None


def _made(plan: Plan):
    assert plan.nest
    return plan.decisions.made.values()


def _order(plan: Plan, name: str, value: int) -> str:
    return Plan(replace(plan.request, decisions={name: value})).order


def test_tuning_cannot_be_told_to_change_the_bits() -> None:
    with pytest.raises(ScheduleError, match="definition is reproducible"):
        steady.tune(torch.randn(4, 4), budget=1, reproducible=False)


def test_the_backward_is_reproducible_too() -> None:
    assert steady.vjp.reproducible and not usual.vjp.reproducible


def test_decorator_with_statics() -> None:
    @dlc.kernel(reproducible=True, scale=3.0)
    def scaled(x: f32[N], *, scale: float):
        return x * scale

    assert scaled.reproducible and float(scaled(torch.ones(2))[0]) == 3.0
