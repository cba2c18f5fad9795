"""Every kind of bad input, on CPUs and on GPUs that are not here.

What is wrong is refused by an error of ``dlc.errors`` that cites the user's own line, what is merely odd gives the right numbers, and a
disk that fails costs a warning. The last test sees to it that no kind is left out.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import dlc
from codegen.target import by_name
from dlc import cache, calling, errors, f32, i8, i64, records
from dlc.compiler import record_key
from dlc.emulation import emulate
from dlc.gpu_check import run_plan
from dlc.kernel import Kernel
from dlc.runtime.arguments import as_tensor

M, N, K = dlc.dims("M N K")
BOTH, CPU, GPU = ("cpu", "gpu"), ("cpu",), ("gpu",)
#: Every kind, and on which targets it can happen: files and processes know no target.
KINDS = {
    "mismatched dims": BOTH, "missing dims": BOTH, "wrong dtype": BOTH, "wrong device": BOTH, "non-numeric inputs": BOTH,
    "index out of bounds": BOTH, "index data out of bounds": BOTH, "unbound axis": BOTH, "recursive definition": BOTH,
    "illegal schedule step": BOTH, "non-contiguous output": CPU, "overlapping output": CPU, "misaligned pointers": CPU,
    "zero-size dims": BOTH, "size-1 dims": BOTH, "huge dims": BOTH, "NaN and infinities": BOTH, "unknown target": BOTH,
    "gradients that are not there": CPU, "gradients that lie otherwise": CPU,
    "read-only cache": CPU, "full disk": CPU, "corrupt cache": CPU, "corrupt record": CPU, "two processes tune one kernel": CPU,
}
#: Kinds that a test of another file covers.
ELSEWHERE = {("two processes tune one kernel", "cpu"): "dlc/test_tune.py::test_two_processes_tune_one_kernel_and_a_third_finds_the_record"}


@dataclass(frozen=True)
class Bad:
    """A call that must be refused.

    Attributes:
        kind: one of :data:`KINDS`.
        error: the class, exactly.
        says: the title, and a part of the reason or the remedy.
    """

    kind: str
    error: type[errors.DlcError]
    says: tuple[str, str]
    call: Callable[[], Any]
    on: str = "cpu"


@dataclass(frozen=True)
class Odd:
    """A call that must give what ``expected`` gives."""

    kind: str
    kernel: Kernel
    args: Callable[[], tuple[Any, ...]]
    expected: Callable[..., Any]
    on: tuple[str, ...] = BOTH


ALONE: list[tuple[str, str]] = []


def covers(kind: str, on: str) -> Callable[[Any], Any]:
    """Says which kind a test of its own covers."""
    ALONE.append((kind, on))
    return lambda test: test


# -- kernels ---------------------------------------------------------------------------------------------------------
@dlc.kernel
def linear(x: f32[M, K], w: f32[N, K], b: f32[N]):
    return dlc.gelu(dlc.linear(x, w, b))


@dlc.kernel
def scaled(x: f32[M, N], s: f32):
    return x * s


@dlc.kernel
def shifted(x: f32[M]):
    return dlc.compute((M,), lambda i: x[i + 1])


@dlc.kernel
def unbound(x: f32[M, K]):
    k = dlc.reduce_axis(K)
    return dlc.compute((M,), lambda i: x[i, k])


@dlc.kernel
def recursive(x: f32[M]):
    y = dlc.compute((M,), lambda i: x[i] + y[i])  # noqa: B023
    return y


@dlc.kernel
def square_of(x: f32[M * N]):
    return x * 2.0


@dlc.kernel
def taken(i: i64[M], w: f32[N]):
    return dlc.compute((M,), lambda m: w[i[m]])


@dlc.kernel
def rows(x: f32[M, N]):
    return dlc.softmax(x, 1), x.sum(1), x.mean(0), dlc.cumsum(x, 1), dlc.amax(x, axis=0), x.T


@dlc.kernel
def position(x: f32[M, N]):
    return dlc.argmax(x, dim=1)


@dlc.kernel
def doubled(x: i8[N]):
    return x + x


@dlc.kernel
def total(x: i8[N]):
    return x.sum(), dlc.amax(x, axis=0)


@dlc.kernel
def last_and_middle(x: i8[K, N]):
    return dlc.compute((N,), lambda n: x[K - 1, n] + x[K // 2, n])


@dlc.kernel
def special(x: f32[M, N]):
    return (dlc.relu(x), dlc.amax(x, axis=1), dlc.argmax(x, dim=1), x.sum(1), dlc.logsumexp(x, dim=1), dlc.softmax(x, 1), dlc.sqrt(x),
            dlc.isnan(x), dlc.clip(x, -1.0, 1.0), dlc.where(x > 0, x, 0.0), dlc.cummax(x, 1)[0], dlc.sign(x), dlc.tanh(x))


def special_in_torch(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    sign = torch.where(x.isnan(), 0.0, x.sign())
    return (x.relu(), x.amax(1), x.argmax(1), x.sum(1), x.logsumexp(1), x.softmax(1), x.sqrt(), x.isnan(), x.clip(-1, 1),
            torch.where(x > 0, x, 0.0), x.cummax(1)[0], sign, x.tanh())


def rows_in_torch(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    highest = x.amax(0) if len(x) else torch.full(x.shape[1:], -torch.inf)
    return x.softmax(1), x.sum(1), x.mean(0), x.cumsum(1), highest, x.T


def r(*shape: int) -> torch.Tensor:
    return torch.randn(*shape)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def misaligned(n: int) -> torch.Tensor:
    """Floats at an odd address."""
    return torch.frombuffer(bytearray(4 * n + 1), dtype=torch.float32, offset=1, count=n)


def other_device() -> Any:
    """Tensors on a GPU and on the CPU, without a GPU."""
    with FakeTensorMode():
        tensors = [torch.empty(2, 3, device="cuda"), torch.empty(4, 3), torch.empty(4)]
        return calling._on_one_device(linear.program, tensors)


BAD = [
    Bad("mismatched dims", errors.ShapeError, ("`w` and dimension 1 of `x` disagree about K", "but K = 4"),
        lambda: linear(r(3, 4), r(5, 6), r(5))),
    Bad("mismatched dims", errors.ShapeError, ("`w` and dimension 1 of `x` disagree about K", "but K = 4"),
        lambda: linear.compile("sm_90", meta(3, 4), meta(5, 6), meta(5)), "gpu"),
    Bad("mismatched dims", errors.ShapeError, ("`x` has 1 dimensions, its declaration 2", "x: f32[M, K]"),
        lambda: emulate(linear, r(3), r(5, 4), r(5)), "gpu"),
    Bad("missing dims", errors.ShapeError, ("M and N cannot be determined from the arguments", "one equation for M and N"),
        lambda: square_of(r(6))),
    Bad("missing dims", errors.ShapeError, ("M and N cannot be determined from the arguments", "one equation for M and N"),
        lambda: square_of.source("gfx942", r(6)), "gpu"),
    Bad("missing dims", errors.ShapeError, ("linear takes 3 arguments, 2 were given", "x: f32[M, K]"),
        lambda: linear(r(3, 4), r(5, 4))),
    Bad("wrong dtype", errors.DtypeError, ("`x` is f64, its declaration f32", "x.to(torch.float32)"),
        lambda: scaled(r(3, 4).double(), 1.0)),
    Bad("wrong dtype", errors.DtypeError, ("`x` is f64, its declaration f32", "x.to(torch.float32)"),
        lambda: scaled.compile("sm_80", r(3, 4).double(), 1.0), "gpu"),
    Bad("wrong dtype", errors.DtypeError, ("`x` is torch.complex64, its declaration f32", "x.real"),
        lambda: scaled(torch.zeros(3, 4, dtype=torch.complex64), 1.0)),
    Bad("wrong device", errors.TargetError, ("`x` of scaled is on the meta device", "real tensors"), lambda: scaled(meta(3, 4), 1.0)),
    Bad("wrong device", errors.TargetError, ("linear was called with tensors on cuda:0 and on cpu", "w.to('cuda:0')"), other_device, "gpu"),
    Bad("non-numeric inputs", errors.ArgumentError, ("`x` is a str", "pass a torch tensor"), lambda: scaled("abc", 1.0)),
    Bad("non-numeric inputs", errors.ArgumentError, ("`x` is a numpy array of object", "convert it to a numeric dtype"),
        lambda: scaled(np.array([["a"]], dtype=object), 1.0)),
    Bad("non-numeric inputs", errors.ArgumentError, ("`x` is a NoneType", "pass a torch tensor"),
        lambda: scaled.compile("sm_90", None, 1.0), "gpu"),
    Bad("index out of bounds", errors.BoundsError, ("x[i + 1] is out of bounds", "at i = 4 index 0 is 5, but x has 5 elements"),
        lambda: shifted(r(5))),
    Bad("index out of bounds", errors.BoundsError, ("x[i + 1] is out of bounds", "at i = 4 index 0 is 5, but x has 5 elements"),
        lambda: shifted.compile("gfx942", meta(5)), "gpu"),
    Bad("index data out of bounds", errors.BoundsError,
        ("a data-dependent index of taken is out of range", "i[1] is 7, outside [0, 3): w has 3 elements"),
        lambda: taken(torch.tensor([0, 7]), r(3))),
    Bad("unbound axis", errors.IndexingError, ("axis `k` is used in t but nothing binds it", "reduce over it"), lambda: unbound(r(3, 4))),
    Bad("unbound axis", errors.IndexingError, ("axis `k` is used in t but nothing binds it", "reduce over it"),
        lambda: unbound.source("sm_100", meta(3, 4)), "gpu"),
    Bad("recursive definition", errors.UserError, ("a definition in recursive refers to itself", "scans"), lambda: recursive(r(3))),
    Bad("recursive definition", errors.UserError, ("a definition in recursive refers to itself", "scans"),
        lambda: recursive.compile("sm_90", meta(3)), "gpu"),
    Bad("illegal schedule step", errors.ScheduleError, ("", "both update linear_sum[0, 0]"),
        lambda: linear.schedule("cpu", r(3, 4), r(5, 4), r(5), default=False).parallel("linear_sum:k")),
    Bad("illegal schedule step", errors.ScheduleError, ("", "power of two"),
        lambda: scaled.schedule("sm_90", meta(64, 64), 1.0, default=False).split("i", 12).vectorize("i.i").source("triton"), "gpu"),
    Bad("non-contiguous output", errors.ArgumentError, ("out of scaled is not contiguous", "its strides are (1, 2)"),
        lambda: scaled(r(2, 3), 1.0, out=torch.empty(3, 2).T)),
    Bad("misaligned pointers", errors.ArgumentError, ("out of scaled begins at an odd address", "pass aligned memory"),
        lambda: scaled(r(2, 3), 1.0, out=misaligned(6).view(2, 3))),
    Bad("zero-size dims", errors.ShapeError, ("argmax over no elements, in argmax", "has size 0"), lambda: position(r(3, 0))),
    Bad("zero-size dims", errors.ShapeError, ("argmax over no elements, in argmax", "has size 0"),
        lambda: position.compile("sm_90", meta(3, 0)), "gpu"),
    Bad("unknown target", errors.TargetError, ("unknown target 'sm_42'", "did you mean"),
        lambda: scaled.compile("sm_42", r(2, 3), 1.0), "gpu"),
    Bad("unknown target", errors.TargetError, ("no source of kind 'avx1024'", "x86-64-avx2"),
        lambda: scaled.source("avx1024", r(2, 3), 1.0)),
    Bad("gradients that are not there", errors.ArgumentError, ("`d_mul` is a NoneType", "pass a torch tensor"),
        lambda: scaled.vjp(r(2, 3), 1.0, None)),
    Bad("gradients that lie otherwise", errors.ShapeError, ("`d_mul` and dimension 0 of `x` disagree about M", "d_mul: f32[M, N]"),
        lambda: scaled.vjp(r(2, 3), 1.0, r(3, 2))),
]


def _overlapping() -> Any:
    base = r(7)
    return scaled(base[:6].view(2, 3), 1.0, out=base[1:].view(2, 3))


BAD.append(Bad("overlapping output", errors.ArgumentError, ("out of scaled overlaps another argument", "memory of its own"), _overlapping))


@pytest.mark.parametrize("case", BAD, ids=[f"{c.kind} on {c.on} {n}" for n, c in enumerate(BAD)])
def test_refused(case: Bad) -> None:
    with pytest.raises(errors.DlcError) as e:
        case.call()
    found = e.value
    assert type(found) is case.error, found
    assert found.title.startswith(case.says[0]) and case.says[1] in str(found), found
    assert found.loc.file == __file__ and found.loc.text.strip() and found.title and (found.reason or found.remedy)
    assert found.loc.text.strip() in str(found) and f"{__file__}:{found.loc.line}" in str(found)


ODD = [
    *(Odd("zero-size dims", rows, lambda shape=shape: (r(*shape),), rows_in_torch) for shape in ((0, 4), (4, 0), (0, 0))),
    Odd("zero-size dims", linear, lambda: (r(3, 0), r(4, 0), r(4)), lambda x, w, b: torch.nn.functional.gelu(b).expand(3, 4)),
    Odd("zero-size dims", taken, lambda: (torch.zeros(0, dtype=torch.long), r(0)), lambda i, w: w),
    *(Odd("size-1 dims", rows, lambda shape=shape: (r(*shape),), rows_in_torch) for shape in ((1, 1), (1, 5), (5, 1))),
    Odd("size-1 dims", linear, lambda: (r(1, 1), r(1, 1), r(1)), lambda x, w, b: torch.nn.functional.gelu(x @ w.T + b)),
    Odd("misaligned pointers", scaled, lambda: (misaligned(6).view(2, 3), 2.0), lambda x, s: x * s, CPU),
    Odd("huge dims", total, lambda: (torch.ones(1, dtype=torch.int8).expand(2**31 + 16),),
        lambda x: (torch.tensor(2**31 + 16), torch.tensor(1, dtype=torch.int8)), CPU),
    Odd("huge dims", last_and_middle, lambda: (torch.arange(70000, dtype=torch.int8)[:4].expand(2**31 + 7, 4),), lambda x: x[0] * 2, CPU),
    Odd("NaN and infinities", special, lambda: (_specials(),), special_in_torch),
    Odd("gradients that lie otherwise", scaled.vjp, lambda: (r(2, 3), torch.tensor(3.0), r(3, 4).T[::2]),
        lambda x, s, g: (g * s, (g * x).sum()), CPU),
]


def _specials() -> torch.Tensor:
    values = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 1.0, -1.0, 3e38, 1e-42])
    return torch.stack([values, values.flip(0), torch.full((9,), torch.nan), torch.full((9,), -torch.inf), values.roll(4)])


def _agree(got: Any, want: Any) -> None:
    got, want = (x if isinstance(x, (tuple, list)) else (x,) for x in (got, want))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), b, rtol=2e-5, atol=2e-6, equal_nan=True)


@pytest.mark.parametrize("case, on", [pytest.param(c, on, id=f"{c.kind} on {on} {n}") for n, c in enumerate(ODD) for on in c.on])
def test_allowed(case: Odd, on: str) -> None:
    args = case.args()
    if on == "cpu":
        _agree(case.kernel(*args), case.expected(*args))
        return
    tensors = [as_tensor(a, t) for a, t in zip(args, case.kernel.program.inputs)]
    for target in ("sm_90", "gfx942"):
        plan = case.kernel.plan(*tensors, target=by_name(target))
        seen = run_plan(plan, tensors)
        assert not seen.findings, seen.findings
        _agree(seen.outputs, case.expected(*args))


# -- GPUs ------------------------------------------------------------------------------------------------------------
@covers("index data out of bounds", "gpu")
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_index_data_on_a_gpu(target: str) -> None:
    seen = emulate(taken, torch.tensor([0, 2, 7, -1]), r(3), target=target)
    assert seen.findings == ("a run-time check failed: i[2] is 7, outside [0, 3): w has 3 elements\nit is read at m = 2",)


@covers("huge dims", "gpu")
@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
def test_huge_dims_on_a_gpu(target: str) -> None:
    """Indices beyond 32 bits are computed in 64: in the program's number, in offsets, in run-time sizes."""
    for kernel, args in ((doubled, (meta(2**31 + 16, dtype=torch.int8),)), (last_and_middle, (meta(2**31 + 7, 4, dtype=torch.int8),)),
                         (total, (meta(2**31 + 16, dtype=torch.int8),))):
        made = kernel.compile(target, *args)
        for k in made.kernels:
            if "program_id" in k.kernel.source:
                assert "tl.program_id(0).to(tl.int64)" in k.kernel.source
    small = doubled.source(target, meta(2**20, dtype=torch.int8))
    assert "tl.program_id(0)" in small and "int64" not in small, "32 bits where they suffice"


# -- gradients -------------------------------------------------------------------------------------------------------
@covers("gradients that are not there", "cpu")
def test_gradients_that_are_not_there() -> None:
    """Outputs that a loss does not use, and inputs that no output depends on."""

    @dlc.kernel
    def several(x: f32[M, N], y: f32[M, N]):
        return x * y, dlc.detach(x) + 1.0, dlc.argmax(x, dim=1)

    x, y = r(3, 4).requires_grad_(), r(3, 4).requires_grad_()
    product, cut, place = several(x, y)
    assert product.requires_grad and not place.requires_grad
    for got, want in zip(torch.autograd.grad(product.sum(), (x, y), retain_graph=True), (y, x)):
        torch.testing.assert_close(got, want)
    of_cut = torch.autograd.grad(cut.sum(), (x, y), allow_unused=True)
    assert all(g is None or not g.any() for g in of_cut)


@covers("gradients that lie otherwise", "cpu")
@pytest.mark.parametrize("form", ["transposed", "strided", "expanded", "one number"])
def test_gradients_that_lie_otherwise(form: str) -> None:
    g = {"transposed": r(4, 3).T, "strided": r(3, 8)[:, ::2], "expanded": r(3, 1).expand(3, 4),
         "one number": torch.tensor(2.0).expand(3, 4)}[form]
    x, s = r(3, 4).requires_grad_(), torch.tensor(1.5, requires_grad=True)
    got = torch.autograd.grad(scaled(x, s), (x, s), g)
    torch.testing.assert_close(got[0], g * 1.5)
    torch.testing.assert_close(got[1], (g * x).sum())


# -- files and processes ---------------------------------------------------------------------------------------------
@pytest.fixture
def forgetful(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no warning given yet."""
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(records, "_reported", set())
    monkeypatch.setattr(records, "_unsaved", {})
    return cache_dir


def fresh() -> Kernel:
    return dlc.kernel(scaled.fn)


def right(kernel: Kernel) -> None:
    x = torch.ones(5, 7)
    assert torch.equal(kernel(x, 3.0), x * 3)


@covers("read-only cache", "cpu")
def test_a_read_only_cache(forgetful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLC_CACHE_DIR", "/proc/no/such/place")
    with pytest.warns(UserWarning, match="cannot write the kernel cache in /proc/no/such/place"):
        right(fresh())
    kernel = fresh()
    with pytest.warns(UserWarning, match="cannot write tuning records .* kept in this process only"):
        kernel.tune(torch.ones(5, 7), 3.0, budget=60, candidates=2, progress=False)
    right(kernel)


@covers("full disk", "cpu")
def test_a_full_disk(forgetful: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    record = records.Record(records.Key("ab" * 32, ((3,),), ((1,),), "cpu", "m", 1), "scaled", {}, {}, 1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.warns(UserWarning, match="cannot write the kernel cache"):
            right(fresh())
        with pytest.warns(UserWarning, match="cannot write tuning records"):
            assert not records.save(record)
        with pytest.raises(errors.RecordError, match="cannot write"):
            records.export(forgetful / "all.jsonl", [record])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert records.find(record.key) == record, "kept in this process"
    assert not [p for p in forgetful.rglob("*") if p.is_file()], "nothing half written stays"
    right(fresh())


@covers("corrupt cache", "cpu")
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b"x" + b[1:], lambda b: b[:60] + b"\0\0\0" + b[63:]])
def test_a_corrupt_cache(damage: Callable[[bytes], bytes], forgetful: Path) -> None:
    right(fresh())
    files = [p for p in (forgetful / "objects").rglob("*") if p.is_file()]
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    right(fresh())
    assert files and all(cache.get(p.name) is not None for p in files), "mended"


@covers("corrupt record", "cpu")
@pytest.mark.parametrize("damage", [lambda t: "", lambda t: t[:-30], lambda t: t.replace("scaled", "scaied"), lambda t: "[1, 2]",
                                    lambda t: json.dumps({"dlc record": 99})])
def test_a_corrupt_record(damage: Callable[[str], str], forgetful: Path, tmp_path: Path) -> None:
    x = torch.ones(5, 7)
    record = records.Record(record_key(fresh().plan(x, 3.0).request), "scaled", {}, {"default": (1.0,)}, 1.0)
    assert records.save(record)
    (path,) = (forgetful / "records").iterdir()
    path.write_text(damage(path.read_text()))
    with pytest.warns(UserWarning, match="is damaged .* the kernel is compiled untuned"):
        right(fresh())
    exported = tmp_path / "all.jsonl"
    records.export(exported, [record])
    exported.write_text(damage(exported.read_text()) or "nothing")
    with pytest.raises(errors.RecordError, match="is not a tuning record"):
        records.import_(exported)


def test_every_kind_is_covered() -> None:
    wanted = {(kind, on) for kind, targets in KINDS.items() for on in targets}
    cases = {(c.kind, c.on) for c in BAD} | {(c.kind, on) for c in ODD for on in c.on} | set(ALONE)
    for kind, test in ELSEWHERE.items():
        file, name = test.split("::")
        assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text()
        cases.add(kind)
    assert cases == wanted, (sorted(wanted - cases), sorted(cases - wanted))
