"""Wrong programs as a new user writes them: what goes wrong, with which exception.

Every program takes the library (lampion or PyTorch). `says` lists what the message must contain.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple


class Wrong(NamedTuple):
    run: Callable[[Any], Any]
    error: type[BaseException]
    says: tuple[str, ...]


def _layers(t: Any, *sizes: int) -> Any:
    nn = t.nn
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def _step_without_backward(t: Any) -> Any:
    x = t.ones(2)
    return (x * 2).sum().backward()


def _freed(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    loss = (x * x).sum()
    loss.backward()
    loss.backward()


def _overwritten(t: Any) -> Any:
    x = t.ones(2, requires_grad=True)
    y = x.exp()
    y.add_(1)
    y.sum().backward()


def _forgot_super_init(t: Any) -> Any:
    class Net(t.nn.Module):
        def __init__(self) -> None:
            self.layer = t.nn.Linear(2, 2)
    return Net()


def _no_forward(t: Any) -> Any:
    class Net(t.nn.Module):
        pass
    return Net()(t.ones(1))


def _renamed_key(t: Any) -> Any:
    net = t.nn.Sequential(t.nn.Linear(2, 3))
    state = net.state_dict()
    state["0.wieght"] = state.pop("0.weight")
    net.load_state_dict(state)


def _other_shape(t: Any) -> Any:
    t.nn.Linear(2, 3).load_state_dict(t.nn.Linear(4, 3).state_dict())


PROGRAMS: dict[str, Wrong] = {
    # shapes
    "add": Wrong(lambda t: t.ones(3) + t.ones(4), RuntimeError, ("add", "[3]", "[4]")),
    "add in place": Wrong(lambda t: t.ones(3).add_(t.ones(2, 3)), RuntimeError,
                          ("add_", "[3]", "[2, 3]")),
    "matmul": Wrong(lambda t: t.ones(2, 3) @ t.ones(2, 3), RuntimeError,
                    ("mm()", "2x3", "cannot be multiplied")),
    "mm": Wrong(lambda t: t.mm(t.ones(2, 3), t.ones(3)), RuntimeError, ("mm", "[3]", "2")),
    "bmm": Wrong(lambda t: t.bmm(t.ones(2, 3, 4), t.ones(3, 4, 5)), RuntimeError, ("bmm", "batch")),
    "view": Wrong(lambda t: t.ones(2, 3).view(4, 2), RuntimeError,
                  ("view", "shape '[4, 2]' is invalid for input of size 6")),
    "view of a transpose": Wrong(lambda t: t.ones(2, 3).t().view(6), RuntimeError,
                                 ("view", "reshape")),
    "reshape with two unknowns": Wrong(lambda t: t.ones(6).reshape(-1, -1), RuntimeError,
                                       ("only one dimension can be inferred",)),
    "cat": Wrong(lambda t: t.cat([t.ones(2, 3), t.ones(2, 4)]), RuntimeError,
                 ("cat", "[2, 3]", "[2, 4]")),
    "cat of nothing": Wrong(lambda t: t.cat([]), (RuntimeError, ValueError), ("non-empty",)),
    "stack": Wrong(lambda t: t.stack([t.ones(2), t.ones(3)]), RuntimeError,
                   ("stack expects each tensor to be equal size", "[2]", "[3]")),
    "expand": Wrong(lambda t: t.ones(2, 3).expand(4, 3), RuntimeError, ("expand", "4", "2")),
    "squeeze": Wrong(lambda t: t.ones(2, 3).squeeze(5), IndexError, ("-2", "1", "5")),
    "permute": Wrong(lambda t: t.ones(2, 3).permute(0, 0), RuntimeError, ("permute",)),
    "split": Wrong(lambda t: t.ones(5).split([2, 2]), RuntimeError, ("split", "5", "[2, 2]")),
    "item of many": Wrong(lambda t: t.ones(3).item(), RuntimeError, ("3 elements", "Scalar")),
    "truth of many": Wrong(lambda t: bool(t.ones(2)), RuntimeError,
                           ("ambiguous", "(2,)", ".any()")),
    "if on a tensor": Wrong(lambda t: 1 if t.ones(2) > 0 else 2, RuntimeError, ("ambiguous",)),
    "int of many": Wrong(lambda t: int(t.ones(2)), ValueError, ("only one element", "(2,)")),
    "unpack 0-d": Wrong(lambda t: list(t.tensor(1.0)), TypeError, ("0-d tensor",)),
    "len of 0-d": Wrong(lambda t: len(t.tensor(1.0)), TypeError, ("0-d tensor",)),
    # indices
    "index": Wrong(lambda t: t.ones(3)[3], IndexError,
                   ("index 3 is out of bounds for dimension 0 with size 3",)),
    "index in the second place": Wrong(lambda t: t.ones(3, 4)[0, -5], IndexError,
                                       ("index -5", "dimension 1", "size 4", "[3, 4]")),
    "index tensor": Wrong(lambda t: t.ones(3)[t.tensor([0, 7])], IndexError, ("7", "size 3")),
    "too many indices": Wrong(lambda t: t.ones(2, 3)[0, 0, 0], IndexError,
                              ("too many indices", "2")),
    "float index": Wrong(lambda t: t.ones(3)[1.0], (IndexError, TypeError), ("indices", "float")),
    "text index": Wrong(lambda t: t.ones(3)["a"], (IndexError, TypeError), ("str",)),
    "mask of wrong size": Wrong(lambda t: t.ones(3)[t.tensor([True, False])], IndexError,
                                ("mask", "[2]", "[3]")),
    "negative step": Wrong(lambda t: t.ones(3)[::-1], ValueError, ("step", "flip")),
    "gather": Wrong(lambda t: t.gather(t.ones(2, 2), 1, t.tensor([[2], [0]])),
                    (RuntimeError, IndexError), ("gather", "index 2", "size 2")),
    "gather with floats": Wrong(lambda t: t.gather(t.ones(2, 2), 1, t.ones(2, 1)), RuntimeError,
                                ("int64", "gather")),
    "index_select": Wrong(lambda t: t.ones(2).index_select(0, t.tensor([2])),
                          (RuntimeError, IndexError), ("index", "2")),
    "scatter": Wrong(lambda t: t.zeros(2).scatter(0, t.tensor([5]), t.ones(1)),
                     (RuntimeError, IndexError), ("scatter", "index 5", "size 2")),
    "dimension": Wrong(lambda t: t.ones(2, 3).sum(2), IndexError,
                       ("Dimension out of range", "[-2, 1]", "2")),
    "embedding": Wrong(lambda t: t.nn.Embedding(5, 2)(t.tensor([1, 5])), IndexError,
                       ("embedding", "5")),
    "assign too much": Wrong(lambda t: t.ones(3).__setitem__(slice(0, 2), t.ones(3)), RuntimeError,
                             ("2", "3")),
    # types
    "text as tensor": Wrong(lambda t: t.tensor("abc"), (TypeError, ValueError), ("str",)),
    "ragged list": Wrong(lambda t: t.tensor([[1, 2], [3]]), ValueError,
                         ("expected sequence of length 2",)),
    "add text": Wrong(lambda t: t.ones(2) + "a", TypeError, ("str",)),
    "list as tensor": Wrong(lambda t: t.relu([1, 2]), TypeError, ("relu", "Tensor", "list")),
    "numpy missing": Wrong(lambda t: t.ones(1, requires_grad=True).numpy(), RuntimeError,
                           ("numpy", "detach()")),
    "mean of integers": Wrong(lambda t: t.tensor([1, 2]).mean(), RuntimeError,
                              ("mean", "Long", "floating point")),
    "matmul of two types": Wrong(lambda t: t.ones(2, 2) @ t.ones(2, 2, dtype=t.float64),
                                 RuntimeError, ("same dtype", "float", "double")),
    "linear with doubles": Wrong(lambda t: t.nn.Linear(2, 2)(t.ones(1, 2, dtype=t.float64)),
                                 RuntimeError, ("same dtype", "Float", "Double")),
    "linear with integers": Wrong(lambda t: t.nn.Linear(2, 2)(t.ones(1, 2, dtype=t.int64)),
                                  RuntimeError, ("same dtype",)),
    "float result into integers": Wrong(lambda t: t.tensor([1, 2]).add_(0.5), RuntimeError,
                                        ("can't be cast", "Float", "Long")),
    "float result into integers by division": Wrong(
        lambda t: t.tensor([1, 2]).div_(2), RuntimeError, ("can't be cast", "Float", "Long")),
    "bitwise of floats": Wrong(lambda t: t.ones(2) & t.ones(2), (RuntimeError, NotImplementedError),
                               ("bitwise_and", "Float")),
    "minus of bools": Wrong(lambda t: t.tensor([True]) - t.tensor([False]), RuntimeError,
                            ("bool", "logical_xor")),
    "unknown dtype": Wrong(lambda t: t.ones(2, dtype="float32"), TypeError, ("dtype",)),
    "unknown device": Wrong(lambda t: t.ones(2, device="gpu"), RuntimeError, ("gpu",)),
    "sizes as floats": Wrong(lambda t: t.ones(2.5), TypeError, ("ones", "float")),
    "negative size": Wrong(lambda t: t.zeros(-1), RuntimeError, ("negative", "-1")),
    "where with numbers": Wrong(lambda t: t.where(t.ones(2), 1.0, 2.0), RuntimeError,
                                ("condition", "bool")),
    # autograd
    "backward of many": Wrong(lambda t: (t.ones(2, requires_grad=True) * 2).backward(),
                              RuntimeError, ("scalar outputs",)),
    "backward of a constant": Wrong(_step_without_backward, RuntimeError,
                                    ("does not require grad",)),
    "backward twice": Wrong(_freed, RuntimeError, ("second time", "retain_graph=True")),
    "in place on a parameter": Wrong(lambda t: t.ones(2, requires_grad=True).add_(1), RuntimeError,
                                     ("leaf Variable",)),
    "overwritten": Wrong(_overwritten, RuntimeError, ("modified by an inplace operation",)),
    "gradient of integers": Wrong(lambda t: t.tensor([1, 2], requires_grad=True), RuntimeError,
                                  ("floating point",)),
    # modules
    "linear": Wrong(lambda t: _layers(t, 4, 8, 2)(t.ones(3, 5)), RuntimeError,
                    ("3x5", "4x8")),
    "inner layer": Wrong(lambda t: t.nn.Sequential(t.nn.Linear(4, 8), t.nn.ReLU(),
                                                   t.nn.Linear(9, 2))(t.ones(1, 4)),
                         RuntimeError, ("1x8", "9x2")),
    "conv channels": Wrong(lambda t: t.nn.Conv2d(3, 8, 3)(t.ones(1, 1, 8, 8)), RuntimeError,
                           ("[8, 3, 3, 3]", "[1, 1, 8, 8]", "3 channels", "1 channels")),
    "conv rank": Wrong(lambda t: t.nn.Conv2d(3, 8, 3)(t.ones(8, 8)), RuntimeError, ("3D", "4D")),
    "conv too small": Wrong(lambda t: t.nn.Conv2d(1, 1, 5)(t.ones(1, 1, 3, 3)), RuntimeError,
                            ("Kernel size", "(3 x 3)", "(5 x 5)")),
    "batch norm rank": Wrong(lambda t: t.nn.BatchNorm2d(3)(t.ones(2, 3)), ValueError, ("4D", "2D")),
    "batch norm of one value": Wrong(lambda t: t.nn.BatchNorm1d(3)(t.ones(1, 3)), ValueError,
                                     ("more than 1 value per channel", "[1, 3]")),
    "batch norm channels": Wrong(lambda t: t.nn.BatchNorm1d(3)(t.ones(2, 4)), RuntimeError,
                                 ("4", "3")),
    "norms of integers": Wrong(lambda t: t.nn.functional.layer_norm(t.arange(4), (4,)),
                               NotImplementedError, ("LayerNormKernelImpl", "Long")),
    "layer norm": Wrong(lambda t: t.nn.LayerNorm(3)(t.ones(2, 4)), RuntimeError,
                        ("normalized_shape", "[3]", "[2, 4]")),
    "class out of range": Wrong(lambda t: t.nn.functional.cross_entropy(
        t.ones(2, 3), t.tensor([0, 3])), (IndexError, RuntimeError),
        ("Target 3 is out of bounds",)),
    "targets as floats": Wrong(lambda t: t.nn.functional.cross_entropy(
        t.ones(2, 3), t.tensor([0.0, 1.0])), RuntimeError, ()),
    "targets of wrong length": Wrong(lambda t: t.nn.functional.cross_entropy(
        t.ones(2, 3), t.tensor([0])), ValueError, ("2", "1")),
    "probabilities above one": Wrong(lambda t: t.nn.functional.binary_cross_entropy(
        t.tensor([2.0]), t.tensor([1.0])), RuntimeError, ("between 0 and 1",)),
    "bce of two sizes": Wrong(lambda t: t.nn.functional.binary_cross_entropy(
        t.rand(2), t.rand(2, 1)), ValueError, ("[2]", "[2, 1]")),
    "dropout of more than all": Wrong(lambda t: t.nn.Dropout(1.5), ValueError, ("1.5",)),
    "no super().__init__()": Wrong(_forgot_super_init, AttributeError,
                                   ("Module.__init__() call",)),
    "no forward": Wrong(_no_forward, NotImplementedError, ("forward", "Net")),
    "renamed key": Wrong(_renamed_key, RuntimeError,
                         ("Missing key(s)", '"0.weight"', "Unexpected key(s)", '"0.wieght"')),
    "weights of another shape": Wrong(_other_shape, RuntimeError,
                                      ("size mismatch for weight", "[3, 4]", "[3, 2]")),
    "unknown attribute": Wrong(lambda t: t.nn.Linear(2, 2).wieght, AttributeError,
                               ("'Linear' object has no attribute 'wieght'",)),
    "plain tensor as parameter": Wrong(lambda t: setattr(t.nn.Linear(2, 2), "weight", t.ones(2, 2)),
                                       TypeError, ("weight", "Parameter")),
    "list of modules in an optimizer": Wrong(lambda t: t.optim.SGD([t.nn.Linear(2, 2)], lr=0.1),
                                             TypeError, ("optimizer can only optimize Tensors",)),
    "optimizer without parameters": Wrong(lambda t: t.optim.SGD([], lr=0.1), ValueError,
                                          ("empty parameter list",)),
    "negative learning rate": Wrong(lambda t: t.optim.Adam([t.ones(1, requires_grad=True)], lr=-1),
                                    ValueError, ("learning rate", "-1")),
    "optimizer of a non-leaf": Wrong(lambda t: t.optim.SGD([t.ones(1, requires_grad=True) * 2],
                                                           lr=0.1), ValueError, ("non-leaf",)),
    "attention heads": Wrong(lambda t: t.nn.MultiheadAttention(10, 3), AssertionError,
                             ("embed_dim must be divisible by num_heads",)),
    "lstm input": Wrong(lambda t: t.nn.LSTM(3, 4)(t.ones(2, 1, 5)), RuntimeError, ("3", "5")),
    "shuffle and sampler": Wrong(lambda t: t.utils.data.DataLoader(
        [1], shuffle=True, sampler=t.utils.data.SequentialSampler([1])), ValueError,
        ("sampler", "shuffle")),
    "batch of size 0": Wrong(lambda t: t.utils.data.DataLoader([1], batch_size=0), ValueError,
                             ("batch_size",)),
    "tensors of different length": Wrong(
        lambda t: t.utils.data.TensorDataset(t.ones(2), t.ones(3)), AssertionError,
        ("Size mismatch",)),
}
