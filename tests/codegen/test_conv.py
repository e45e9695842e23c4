"""Generated convolutions against the reference in float64: shapes, steps, groups, layouts."""

import numpy as np
import pytest

import lampion as torch
from lampion import nn
from lampion.codegen.conv import conv_forward, conv_grad_input, conv_grad_weight
from lampion.debug.knobs import override
from lampion.ops.reference import conv as reference
from lampion.runtime.threads import get_num_threads, set_num_threads

pytestmark = pytest.mark.usefixtures("kernels_at_once")


class Case:
    """A convolution with random operands."""

    def __init__(self, rng, x, o, kernel, stride, padding, dilation, groups=1, dtype="f4"):
        self.args = (stride, padding, dilation, groups)
        self.x = rng.standard_normal(x).astype(dtype)
        self.w = rng.standard_normal((o, x[1] // groups, *kernel)).astype(dtype)
        self.size = reference.output_size(x[2:], kernel, stride, padding, dilation)
        self.bias = rng.standard_normal(o).astype(dtype)
        if min(self.size) > 0:
            self.g = rng.standard_normal((x[0], o, *self.size)).astype(dtype)

    def check(self, found, expected, terms):
        bound = np.finfo(found.dtype).eps * (16 + 8 * np.sqrt(terms))
        np.testing.assert_allclose(found, expected, rtol=bound, atol=bound * np.sqrt(terms + 1))

    def forward(self):
        out = np.full(self.g.shape, np.nan, self.x.dtype)
        assert conv_forward(out, self.x, self.w, self.bias, *self.args)
        expected = reference.convolve(self.x.astype("f8"), self.w.astype("f8"), *self.args)
        expected += self.bias.reshape(-1, *(1,) * len(self.size))
        self.check(out, expected, self.w[0].size)

    def grad_input(self):
        gx = np.full(self.x.shape, np.nan, self.x.dtype)
        bias = self.x[0].reshape(self.x.shape[1], -1)[:, 0]
        assert conv_grad_input(gx, self.g, self.w, bias, *self.args)
        expected = reference.input_gradient(self.g.astype("f8"), self.w.astype("f8"),
                                            self.x.shape[2:], *self.args)
        expected = expected + bias.reshape(-1, *(1,) * len(self.size))
        self.check(gx, expected, self.w[:, 0].size)

    def grad_weight(self):
        gw = np.full(self.w.shape, np.nan, self.x.dtype)
        assert conv_grad_weight(gw, self.x, self.g, *self.args)
        expected = reference.weight_gradient(self.g.astype("f8"), self.x.astype("f8"),
                                             self.w.shape[2:], *self.args)
        self.check(gw, expected, self.g.size // self.g.shape[1])

    def all(self):
        self.forward()
        self.grad_input()
        self.grad_weight()


def random_case(rng, dtype):
    axes, groups = rng.integers(1, 4), int(rng.choice([1, 1, 2, 3]))
    size, kernel, stride, padding, dilation = (
        tuple(int(v) for v in rng.integers(low, high, axes))
        for low, high in ((1, 20 if axes < 3 else 8), (1, 4), (1, 4), (0, 3), (1, 3)))
    x = (int(rng.integers(1, 4)), groups * int(rng.integers(1, 8)), *size)
    return Case(rng, x, groups * int(rng.integers(1, 20)), kernel, stride, padding, dilation,
                groups, dtype)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_random_convolutions(instructions, dtype):
    rng = np.random.default_rng(0)
    for _ in range(40):
        case = random_case(rng, dtype)
        if min(case.size) > 0:
            case.all()


BLOCKS = [((2, 100, 16, 16), 40, (3, 3), 1, 1), ((2, 400, 4, 4), 70, (3, 3), 1, 1),
          ((2, 30, 7, 7), 1100, (1, 1), 1, 0), ((1, 3, 40, 64), 16, (7, 7), 2, 3),
          ((2, 3, 32, 32), 8, (16, 16), 16, 0), ((1, 20, 30, 31), 33, (3, 3), 1, 1),
          ((1, 1024, 5, 5), 20, (1, 1), 1, 0)]


@pytest.mark.parametrize("x, o, kernel, stride, padding", BLOCKS)
def test_several_blocks_and_panels(x, o, kernel, stride, padding):
    case = Case(np.random.default_rng(1), x, o, kernel, (stride,) * 2, (padding,) * 2, (1, 1))
    case.all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_random_depthwise_convolutions(instructions, dtype):
    rng = np.random.default_rng(5)
    for _ in range(5):
        groups, many = int(rng.integers(2, 6)), int(rng.choice([1, 1, 2]))
        size, kernel, stride, padding, dilation = (
            tuple(int(v) for v in rng.integers(low, high, 2))
            for low, high in ((1, 40), (1, 6), (1, 4), (0, 4), (1, 4)))
        x = (int(rng.integers(1, 4)), groups, *size)
        case = Case(rng, x, groups * many, kernel, stride, padding, dilation, groups, dtype)
        if min(case.size) > 0:
            case.all()


@pytest.mark.parametrize("size, kernel, stride, padding", [
    ((70, 1300), (3, 3), 1, 1), ((130, 700), (3, 3), 2, 1), ((40, 40), (7, 7), 1, 3),
    ((7, 7), (3, 3), 1, 1), ((30, 600), (8, 8), 4, 0)])
def test_depthwise_planes_in_parts(size, kernel, stride, padding):
    case = Case(np.random.default_rng(6), (3, 3, *size), 3, kernel, (stride,) * 2, (padding,) * 2,
                (1, 1), 3)
    case.all()
    case.x = case.x[:, :, :, ::-1]
    case.g = case.g[:, :, ::-1]
    case.all()


@pytest.mark.parametrize("x, o, kernel, stride, padding, groups", [
    ((3, 1, 28, 28), 6, (5, 5), 1, 2, 1), ((3, 6, 14, 14), 16, (5, 5), 1, 0, 1),
    ((2, 3, 40, 64), 37, (7, 7), 2, 3, 1), ((2, 3, 9, 600), 5, (3, 3), 1, 1, 1),
    ((2, 12, 28, 31), 12, (3, 3), 1, 1, 3), ((1, 2, 5, 1), 3, (3, 1), 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_few_channels(x, o, kernel, stride, padding, groups, dtype):
    case = Case(np.random.default_rng(9), x, o, kernel, (stride,) * 2, (padding,) * 2, (1, 1),
                groups, dtype)
    case.all()


@pytest.mark.parametrize("x, o, kernel, stride, padding, dilation", [
    ((3, 6, 14, 14), 16, (5, 5), (1, 1), (2, 2), (1, 1)),
    ((1, 3, 20, 9), 32, (3, 4), (2, 1), (4, 0), (1, 1)),
    ((2, 4, 11, 23), 16, (3, 2), (1, 2), (1, 1), (3, 4)),
    ((2, 16, 5, 7), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
    ((2, 5, 6), 48, (11,), (1,), (5,), (1,))])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_narrow_images(x, o, kernel, stride, padding, dilation, dtype):
    case = Case(np.random.default_rng(10), x, o, kernel, stride, padding, dilation, 1, dtype)
    case.all()
    case.x = np.moveaxis(np.ascontiguousarray(np.moveaxis(case.x, 1, -1)), -1, 1)
    case.g = case.g[:, ::-1]
    case.all()


WINOGRAD = [((1, 32, 32, 32), 32, 1), ((3, 64, 16, 16), 48, 1), ((8, 33, 7, 7), 70, 1),
            ((17, 64, 4, 4), 64, 1), ((2, 40, 14, 14), 100, 1), ((1, 32, 30, 57), 32, 0),
            ((2, 32, 9, 64), 64, 2), ((2, 400, 12, 11), 400, 1), ((2, 520, 12, 13), 260, 1)]


@pytest.mark.parametrize("x, o, padding", WINOGRAD)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_three_by_three_taps_with_fewer_multiplications(x, o, padding, dtype):
    case = Case(np.random.default_rng(1), x, o, (3, 3), (1, 1), (padding, padding), (1, 1), 1,
                dtype)
    case.all()


def test_fewer_multiplications_without_masks(instructions):
    for x, o, padding in (((2, 32, 9, 30), 40, 1), ((8, 128, 7, 7), 130, 1)):
        Case(np.random.default_rng(8), x, o, (3, 3), (1, 1), (padding,) * 2, (1, 1)).all()


def channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("x, o, padding", WINOGRAD[1:5])
def test_fewer_multiplications_with_channels_last(x, o, padding):
    """The same bits as with rows last: only copies into tiles differ."""
    case = Case(np.random.default_rng(3), x, o, (3, 3), (1, 1), (padding, padding), (1, 1))
    results = []
    for layout in (np.ascontiguousarray, channels_last):
        out, gx = (np.full_like(layout(a), np.nan) for a in (case.g, case.x))
        gw = np.full_like(case.w, np.nan)
        conv_forward(out, layout(case.x), case.w, case.bias, *case.args)
        conv_grad_input(gx, layout(case.g), case.w, None, *case.args)
        conv_grad_weight(gw, layout(case.x), layout(case.g), *case.args)
        results.append((out, gx, gw))
    for plain, turned in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, turned)


def test_error_of_fewer_multiplications():
    """At most 2.5e-5 of the result's spread, at the median six times that of the direct sum."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 256, 24, 24)).astype("f4")
    w = (rng.standard_normal((64, 256, 3, 3)) / 48).astype("f4")
    g = rng.standard_normal((2, 64, 24, 24)).astype("f4")
    out, gw, args = np.empty_like(g), np.empty_like(w), ((1, 1), (1, 1), (1, 1), 1)
    conv_forward(out, x, w, None, *args)
    conv_grad_weight(gw, x, g, *args)
    for found, rule, operands, more in (
            (out, reference.convolve, (x, w), ()),
            (gw, reference.weight_gradient, (g, x), ((3, 3),))):
        exact = rule(*(a.astype("f8") for a in operands), *more, *args)
        errors, direct = (np.abs(a - exact) for a in (found, rule(*operands, *more, *args)))
        assert errors.max() < 2.5e-5 * exact.std()
        assert np.median(errors) < 6 * np.median(direct)


def test_strided_operands():
    rng = np.random.default_rng(2)
    case = Case(rng, (2, 6, 9, 20), 5, (3, 3), (1, 1), (1, 1), (1, 1))
    case.x = rng.standard_normal((2, 9, 20, 6)).astype("f4").transpose(0, 3, 1, 2)
    case.w = rng.standard_normal((5, 3, 3, 12)).astype("f4")[..., ::2].transpose(0, 3, 1, 2)
    case.bias = rng.standard_normal(10).astype("f4")[::2]
    case.g = case.g[:, :, ::-1]
    case.all()
    out = np.empty((2, 9, 20, 5), "f4").transpose(0, 3, 1, 2)
    plain = np.empty(out.shape, "f4")
    conv_forward(out, case.x, case.w, case.bias, *case.args)
    conv_forward(plain, case.x, case.w, case.bias, *case.args)
    np.testing.assert_array_equal(out, plain)


def test_the_same_bits_with_any_number_of_threads():
    rng = np.random.default_rng(7)
    cases = [Case(rng, (2, 64, 20, 20), 64, (3, 3), (1, 1), (1, 1), (1, 1)),
             Case(rng, (2, 30, 20, 20), 70, (5, 5), (2, 2), (2, 2), (1, 1)),
             Case(rng, (3, 16, 32, 32), 20, (3, 3), (2, 2), (1, 1), (1, 1)),
             Case(rng, (2, 6, 14, 14), 16, (5, 5), (1, 1), (2, 2), (1, 1)),
             Case(rng, (4, 30, 20, 20), 30, (3, 3), (1, 1), (1, 1), (1, 1), 30)]
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            results.append([])
            for case in cases:
                out, gx, gw = (np.empty_like(a) for a in (case.g, case.x, case.w))
                conv_forward(out, case.x, case.w, case.bias, *case.args)
                conv_grad_input(gx, case.g, case.w, None, *case.args)
                conv_grad_weight(gw, case.x, case.g, *case.args)
                results[-1] += [out, gx, gw]
    finally:
        set_num_threads(before)
    for one, two, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_nothing_to_do():
    conv_forward(np.empty((0, 4, 3, 3), "f4"), np.empty((0, 2, 5, 5), "f4"),
                 np.ones((4, 2, 3, 3), "f4"), None, (1, 1), (0, 0), (1, 1), 1)
    out = np.empty((2, 4, 5), "f4")
    conv_forward(out, np.empty((2, 0, 5), "f4"), np.ones((4, 0, 1), "f4"),
                 np.arange(4, dtype="f4"), (1,), (0,), (1,), 1)
    assert (out == np.arange(4)[:, None]).all()
    gw = np.ones((4, 2, 3, 3), "f4")
    conv_grad_weight(gw, np.empty((0, 2, 5, 5), "f4"), np.empty((0, 4, 3, 3), "f4"), (1, 1),
                     (0, 0), (1, 1), 1)
    assert (gw == 0).all()


def test_not_finite():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 2, 6, 6)).astype("f4")
    x[0, 0, 0, 0], x[0, 1, 5, 5] = np.inf, np.nan
    w, out = rng.standard_normal((3, 2, 3, 3)).astype("f4"), np.empty((1, 3, 6, 6), "f4")
    conv_forward(out, x, w, None, (1, 1), (1, 1), (1, 1), 1)
    with np.errstate(invalid="ignore"):
        expected = reference.convolve(x, w, (1, 1), (1, 1), (1, 1), 1)
    np.testing.assert_array_equal(np.isfinite(out), np.isfinite(expected))


def test_shapes_that_do_not_fit():
    x, w = np.ones((1, 4, 8, 8), "f4"), np.ones((6, 4, 3, 3), "f4")
    ones = ((1, 1), (0, 0), (1, 1), 1)
    with pytest.raises(ValueError, match="do not fit"):
        conv_forward(np.empty((1, 6, 7, 7), "f4"), x, w, None, *ones)
    with pytest.raises(ValueError, match="do not fit"):
        conv_forward(np.empty((1, 6, 6, 6), "f4"), x, w, np.ones(5, "f4"), *ones)
    with pytest.raises(ValueError, match="float64"):
        conv_forward(np.empty((1, 6, 6, 6), "f4"), x, w.astype("f8"), None, *ones)
    with pytest.raises(ValueError, match="spatial axes"):
        conv_forward(np.empty((1, 6, 6, 6), "f4"), x, w, None, (1,), (0,), (1,), 1)
    with pytest.raises(ValueError, match="bias"):
        conv_grad_input(x.copy(), np.ones((1, 6, 6, 6), "f4"), w, np.ones(6, "f4"), *ones)


@pytest.mark.parametrize("kernels", ["sync", "off"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradients_of_no_images(groups, kernels):
    conv = nn.Conv2d(4, 8, 3, padding=1, groups=groups)
    x = torch.empty(0, 4, 5, 6, requires_grad=True)
    with override(kernels=kernels):
        conv(x).sum().backward()
    assert x.grad.shape == x.shape
    assert (conv.weight.grad == 0).all() and (conv.bias.grad == 0).all()
