"""The number of threads of matrix products."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info

import lampion as torch


def test_set_num_threads_limits_the_matrix_library() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.get_num_threads() == 1
        assert all(i["num_threads"] == 1 for i in threadpool_info() if i["user_api"] == "blas")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("wrong", [0, -1])
def test_threads_must_be_positive(wrong: int) -> None:
    with pytest.raises(RuntimeError, match="positive integer"):
        torch.set_num_threads(wrong)


def test_threads_must_be_a_number() -> None:
    with pytest.raises(TypeError, match="expects an int"):
        torch.set_num_threads("2")
