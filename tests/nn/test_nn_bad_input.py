"""Wrong programs with layers: PyTorch's exception, what was received, and which layer it was."""

import pytest

import lampion as torch
from lampion import nn

F = nn.functional
IMAGE = torch.ones(1, 3, 8, 8)

CASES = {
    "linear": (
        lambda: nn.Linear(3, 2)(torch.ones(2, 4)),
        RuntimeError,
        r"shapes cannot be multiplied \(2x4 and 3x2\)",
    ),
    "dtype": (
        lambda: nn.Linear(3, 2)(torch.ones(2, 3, dtype=torch.float64)),
        RuntimeError,
        "must have the same dtype",
    ),
    "conv channels": (
        lambda: nn.Conv2d(4, 2, 3)(IMAGE),
        RuntimeError,
        "to have 4 channels, but got 3 channels instead",
    ),
    "conv rank": (
        lambda: nn.Conv2d(3, 2, 3)(torch.ones(8, 8)),
        RuntimeError,
        r"Expected 3D \(unbatched\) or 4D \(batched\) input to conv2d",
    ),
    "conv too small": (
        lambda: nn.Conv2d(3, 2, 9)(IMAGE),
        RuntimeError,
        "Kernel size can't be greater than actual input size",
    ),
    "conv groups": (
        lambda: nn.Conv2d(3, 2, 3, groups=2),
        ValueError,
        "in_channels must be divisible by groups",
    ),
    "pool too small": (
        lambda: nn.MaxPool2d(9)(IMAGE),
        RuntimeError,
        "Output size is too small",
    ),
    "pool padding": (
        lambda: F.avg_pool2d(IMAGE, 2, padding=2),
        RuntimeError,
        "pad should be at most half of effective kernel size",
    ),
    "batch norm rank": (
        lambda: nn.BatchNorm2d(3)(torch.ones(2, 3)),
        ValueError,
        r"expected 4D input \(got 2D input\)",
    ),
    "batch norm of one value": (
        lambda: nn.BatchNorm1d(3)(torch.ones(1, 3)),
        ValueError,
        "Expected more than 1 value per channel when training",
    ),
    "layer norm shape": (
        lambda: nn.LayerNorm(5)(torch.ones(2, 4)),
        RuntimeError,
        r"Given normalized_shape=\[5\], expected input with shape \[\*, 5\]",
    ),
    "group norm": (
        lambda: nn.GroupNorm(2, 3),
        ValueError,
        r"num_channels \(3\) must be divisible by num_groups \(2\)",
    ),
    "embedding index": (
        lambda: nn.Embedding(3, 2)(torch.tensor([[0, 5]])),
        IndexError,
        r"index out of range in self.*index 5 at position \[0, 1\].*3 rows",
    ),
    "embedding dtype": (
        lambda: nn.Embedding(3, 2)(torch.ones(2)),
        RuntimeError,
        "scalar types: Long, Int",
    ),
    "target class": (
        lambda: F.cross_entropy(torch.ones(2, 3), torch.tensor([0, 7])),
        IndexError,
        "Target 7 is out of bounds",
    ),
    "target batch": (
        lambda: F.cross_entropy(torch.ones(2, 3), torch.tensor([0])),
        ValueError,
        r"Expected input batch_size \(2\) to match target batch_size \(1\)",
    ),
    "target dtype": (
        lambda: F.nll_loss(torch.ones(2, 3), torch.ones(2)),
        RuntimeError,
        "expected scalar type Long",
    ),
    "bce range": (
        lambda: F.binary_cross_entropy(torch.full((2,), 2.0), torch.ones(2)),
        RuntimeError,
        "all elements of input should be between 0 and 1",
    ),
    "bce logits shape": (
        lambda: F.binary_cross_entropy_with_logits(torch.ones(2, 1), torch.ones(2)),
        ValueError,
        "must be the same as input size",
    ),
    "dropout": (
        lambda: nn.Dropout(1.5),
        ValueError,
        "dropout probability has to be between 0 and 1, but got 1.5",
    ),
    "lstm input": (
        lambda: nn.LSTM(3, 4)(torch.ones(5, 2, 7)),
        RuntimeError,
        r"input.size\(-1\) must be equal to input_size. Expected 3, got 7",
    ),
    "lstm state": (
        lambda: nn.GRU(3, 4)(torch.ones(5, 2, 3), torch.ones(2, 2, 4)),
        RuntimeError,
        r"Expected hidden size \(1, 2, 4\), got \[2, 2, 4\]",
    ),
    "heads": (
        lambda: nn.MultiheadAttention(7, 2),
        AssertionError,
        "embed_dim must be divisible by num_heads",
    ),
    "attention shapes": (
        lambda: F.scaled_dot_product_attention(
            torch.ones(1, 2, 4), torch.ones(1, 2, 5), torch.ones(1, 2, 5)
        ),
        RuntimeError,
        "shapes cannot be multiplied",
    ),
    "interpolate": (
        lambda: F.interpolate(IMAGE, size=(4,)),
        ValueError,
        "must have the same number of spatial dimensions",
    ),
    "reflect": (
        lambda: F.pad(IMAGE, (9, 0, 0, 0), mode="reflect"),
        RuntimeError,
        "Padding size should be less than the corresponding input dimension",
    ),
    "one hot": (
        lambda: F.one_hot(torch.tensor([0, 3]), num_classes=2),
        RuntimeError,
        "Class values must be smaller than num_classes",
    ),
    "not a tensor": (
        lambda: F.conv2d([1.0], IMAGE),
        TypeError,
        r"conv2d\(\): argument 'input' must be Tensor, not list",
    ),
    "glu": (lambda: F.glu(torch.ones(3)), RuntimeError, "Halving dimension must be even"),
    "sparse": (
        lambda: nn.Embedding(3, 2, sparse=True)(torch.tensor([0])),
        NotImplementedError,
        "use sparse=False",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_wrong_program(name):
    run, error, text = CASES[name]
    with pytest.raises(error, match=text):
        run()


def test_a_loss_of_broadcast_shapes_warns_at_the_users_line():
    with pytest.warns(UserWarning, match="Using a target size") as caught:
        nn.MSELoss()(torch.ones(3, 1), torch.ones(3))
    assert caught[0].filename == __file__
