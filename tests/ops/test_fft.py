"""Fourier transforms: NumPy as the reference, gradients by finite differences, short-time forms."""

from __future__ import annotations

import numpy as np
import pytest

import lampion as torch
from lampion.autograd import gradcheck, gradgradcheck

fft = torch.fft
ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
MANY = ["fftn", "ifftn", "rfftn", "irfftn"]


def signal(name: str, *shape: int) -> torch.Tensor:
    real = name.startswith(("r", "ih"))
    return torch.randn(*shape, dtype=torch.float64 if real else torch.complex128)


def close(a: torch.Tensor, b: object) -> None:
    np.testing.assert_allclose(a.detach().numpy(), np.asarray(b), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("name", ONE)
def test_one_dimension(name: str, norm: str) -> None:
    x = signal(name, 4, 6, 3)
    for n in (None, 4, 9):
        close(getattr(fft, name)(x, n, 1, norm),
              getattr(np.fft, name)(x.numpy(), n, 1, norm))


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("name", MANY)
def test_several_dimensions(name: str, norm: str) -> None:
    x = signal(name, 4, 6, 5)
    for s, dim in ((None, None), ((4, 8), (0, 2)), (None, (1, 0))):
        dims = (0, 1, 2) if dim is None else dim
        close(getattr(fft, name)(x, s, dim, norm),
              getattr(np.fft, name)(x.numpy(), s, dims, norm))


def test_hermitian_pairs() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    close(fft.hfft2(fft.ihfft2(x), s=(4, 6)), x)
    close(fft.irfft2(fft.rfft2(x), s=(4, 6)), x)


@pytest.mark.parametrize("name", [*ONE, *MANY, "hfft2", "ihfft2"])
def test_gradients(name: str) -> None:
    x = signal(name, 3, 4).requires_grad_()
    for norm in ("backward", "ortho"):
        assert gradcheck(lambda t, norm=norm: getattr(fft, name)(t, norm=norm), (x,))
    assert gradgradcheck(getattr(fft, name), (x,))


def test_dtypes_and_errors() -> None:
    assert fft.fft(torch.ones(3)).dtype is torch.complex64
    assert fft.rfft(torch.ones(3, dtype=torch.int64)).dtype is torch.complex64
    assert fft.irfft(torch.ones(3)).dtype is torch.float32
    with pytest.raises(RuntimeError, match="expects a real input"):
        fft.rfft(torch.ones(3) + 0j)
    with pytest.raises(RuntimeError, match="Invalid normalization mode"):
        fft.fft(torch.ones(3), norm="unit")
    with pytest.raises(RuntimeError, match=r"Invalid number of data points \(0\)"):
        fft.fft(torch.ones(3), n=0)
    with pytest.raises(IndexError, match="Dimension out of range"):
        fft.fft(torch.ones(3), dim=2)
    with pytest.raises(RuntimeError, match="same length"):
        fft.fftn(torch.ones(3, 3), s=(2,), dim=(0, 1))


def test_frequencies_and_shifts() -> None:
    for n in (5, 6):
        close(fft.fftfreq(n, 0.5, dtype=torch.float64), np.fft.fftfreq(n, 0.5))
        close(fft.rfftfreq(n, 0.5, dtype=torch.float64), np.fft.rfftfreq(n, 0.5))
        x = torch.arange(n * 3).reshape(n, 3)
        close(fft.fftshift(x), np.fft.fftshift(x.numpy()))
        close(fft.ifftshift(fft.fftshift(x), dim=0), np.fft.fftshift(x.numpy(), 1))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("onesided", [True, False])
def test_short_time_transforms_invert(center: bool, onesided: bool) -> None:
    x = torch.randn(2, 64, dtype=torch.float64)
    w = torch.hamming_window(16, dtype=torch.float64)
    s = torch.stft(x, 16, 4, window=w, center=center, onesided=onesided, return_complex=True)
    assert s.shape == (2, 9 if onesided else 16, 17 if center else 13)
    close(torch.istft(s, 16, 4, window=w, center=center, onesided=onesided, length=64), x)


def test_a_frame_of_stft_is_an_rfft() -> None:
    x = torch.randn(40, dtype=torch.float64)
    w = torch.hann_window(12, dtype=torch.float64)
    s = torch.stft(x, 16, 8, 12, w, center=False, return_complex=True, normalized=True)
    frame = x.numpy()[8:24] * np.pad(w.numpy(), 2)
    close(s[:, 1], np.fft.rfft(frame, norm="ortho"))
    with pytest.warns(UserWarning, match="window was not provided"):
        torch.stft(x, 16, return_complex=True)


@pytest.mark.parametrize("name", ["hann", "hamming", "blackman", "bartlett", "nuttall", "cosine"])
@pytest.mark.parametrize("sym", [True, False])
def test_windows(name: str, sym: bool) -> None:
    scipy = pytest.importorskip("scipy.signal.windows")
    windows = torch.signal.windows
    for m in (0, 1, 2, 9):
        close(getattr(windows, name)(m, sym=sym, dtype=torch.float64),
              getattr(scipy, name)(m, sym=sym))


def test_windows_with_parameters() -> None:
    scipy = pytest.importorskip("scipy.signal.windows")
    windows, wide = torch.signal.windows, {"dtype": torch.float64}
    close(windows.kaiser(9, beta=5.0, **wide), scipy.kaiser(9, 5.0))
    close(windows.gaussian(9, std=2.0, **wide), scipy.gaussian(9, 2.0))
    close(windows.exponential(9, tau=2.0, **wide), scipy.exponential(9, tau=2.0))
    close(torch.kaiser_window(9, beta=5.0, **wide), scipy.kaiser(9, 5.0, sym=False))
    close(torch.hann_window(9, periodic=False, **wide), scipy.hann(9))
    with pytest.raises(ValueError, match="float32 or float64"):
        windows.hann(4, dtype=torch.float16)
