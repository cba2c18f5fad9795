"""Every operator against torch: compiled, through the numpy meaning, and its gradients in float64. The table is operators.py."""

import pytest
import torch

import dlc
from dlc.tensor import create
from dsl.ops import catalogue
from tests.dsl.operator_checks import check_gradients, check_sizes, check_specials, check_values
from tests.dsl.operators import CASES, NORMS, POINTWISE, REDUCTIONS, SHAPES

N, K = dlc.dims("N K")
pytestmark = pytest.mark.filterwarnings("ignore:Using padding", "ignore:reduction:UserWarning")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values(case):
    check_values(case, "f32")
    if "f64" in case.dtypes:
        check_values(case, "f64", compiled=False)


@pytest.mark.parametrize("case", [c for c in CASES if c.grad], ids=lambda c: c.name)
def test_gradients(case):
    check_gradients(case)


# torch: means of infinities by Welford's recurrence are NaN; a running variance may not be negative
SPECIAL = [c for c in [*POINTWISE, *REDUCTIONS, *NORMS] if c.name not in ("var_mean", "std_mean", "batch_norm_eval")]


@pytest.mark.parametrize("case", SPECIAL, ids=lambda c: c.name)
def test_nan_and_infinities(case):
    check_specials(case, compiled=False)


EMPTY = [c for c in [*REDUCTIONS, *SHAPES] if not c.fixed and "int" not in str(c.args) and not c.name.startswith(("var", "std"))]


@pytest.mark.parametrize("case", EMPTY, ids=lambda c: c.name)
def test_empty_dimensions(case):
    check_sizes(case, {4: 0, 5: 0})


def test_dlc_exports_the_catalogue():
    """The same functions; makers of tensors (``zeros``) also serve outside a definition, and have the catalogue's meaning inside one."""
    makers = create.CREATORS
    assert ({n: getattr(dlc, n) for n in catalogue.operations() if n not in makers}
            == {n: f for n, f in catalogue.operations().items() if n not in makers})

    @dlc.kernel
    def ones(x: dlc.f32[3]):
        return x + dlc.ones(3)

    assert ones(torch.zeros(3)).tolist() == [1.0] * 3 and set(makers) & set(catalogue.operations())


def test_quotients_of_floats_are_those_of_python():
    """Of arrays and of elements; ``1.0 / 0.1`` is 10, but ``1.0 // 0.1`` is 9."""
    N = dlc.dims("N")

    @dlc.kernel
    def quotients(x: dlc.f64[N], y: dlc.f64[N]):
        return x // y, dlc.compute((N,), lambda i: x[i] // y[i])

    x = torch.tensor([1.0, -1, 5, -5, 3, 0, float("inf"), 1, float("nan"), -0.0, 1e30, 2.0**60, -1e-30, -2], dtype=torch.float64)
    y = torch.tensor([0.1, 0.1, -3, 3, 0, 0, 2, float("inf"), 1, 3, 3e-10, 3, 5, float("inf")], dtype=torch.float64)
    for got in quotients(x, y):
        torch.testing.assert_close(got, x // y, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(got.signbit(), (x // y).signbit())


def test_images_of_bytes_are_rounded_as_in_torch():
    """Between whole numbers, once: not cut off, and not after each dimension."""
    @dlc.kernel
    def larger(x: dlc.u8[2, 3, 5, 4]):
        return dlc.interpolate(x, size=(9, 7), mode="bilinear"), dlc.interpolate(x, scale_factor=2, mode="nearest")

    x = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    smooth, nearest = larger(x)
    exact = torch.nn.functional.interpolate(x.double(), size=(9, 7), mode="bilinear")
    assert smooth.dtype == torch.uint8 and (smooth.double() - exact).abs().max() <= 0.5 + 1e-5
    assert torch.equal(nearest, torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"))


def test_powers_of_truth_values_are_numbers():
    @dlc.kernel
    def powers(x: dlc.bool_[4]):
        return x ** 2, x ** 3

    x = torch.tensor([True, False, True, False])
    for got, want in zip(powers(x), (x ** 2, x ** 3)):
        assert torch.equal(got, want) and got.dtype == want.dtype


@dlc.kernel
def c_division(x: dlc.f32[N], y: dlc.f32[N], n: dlc.i8[K], m: dlc.i8[K]):
    return dlc.fmod(x, y), dlc.fmod(n, m), dlc.div(n, m, rounding_mode="trunc")


def test_division_as_in_c_at_zeros_and_at_the_ends_of_integers():
    x, y = torch.tensor([-0.0, 0.0, 6.0, -6.0, -5.0, 7.5, torch.inf, 3.0]), torch.tensor([3.0, -3.0, 3.0, 3.0, -3.0, 2.0, 3.0, torch.inf])
    n = torch.arange(-128, 128, dtype=torch.int8).repeat(5)
    m = torch.tensor([3, -3, 7, -128, 127], dtype=torch.int8).repeat_interleave(256)
    rest, whole_rest, whole = c_division(x, y, n, m)
    expected = torch.fmod(x, y)
    torch.testing.assert_close(rest, expected, rtol=0, atol=0, equal_nan=True)
    known = ~expected.isnan()
    assert torch.equal(torch.signbit(rest[known]), torch.signbit(expected[known]))
    assert torch.equal(whole_rest, torch.fmod(n, m)) and torch.equal(whole, torch.div(n, m, rounding_mode="trunc"))
