"""Datasets, splits, samplers and collation; random orders are recorded from PyTorch 2.13."""

from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest

import lampion as torch
from lampion.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    get_worker_info,
    random_split,
)
from lampion.utils.data._utils.collate import collate, default_collate_fn_map

Pair = namedtuple("Pair", "a b")


class Stream(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))

    def __len__(self):
        return self.n


def test_tensor_dataset_gives_rows():
    data = TensorDataset(torch.arange(4), torch.ones(4, 2))
    x, y = data[2]
    assert len(data) == 4 and x.item() == 2 and y.shape == (2,)


def test_tensor_dataset_refuses_unequal_lengths():
    with pytest.raises(AssertionError, match="Size mismatch between tensors"):
        TensorDataset(torch.zeros(2), torch.zeros(3))


@pytest.mark.parametrize(("index", "value"), [(0, "a"), (2, "c"), (4, "e"), (-1, "e"), (-5, "a")])
def test_concat_dataset_finds_the_part(index, value):
    assert ConcatDataset(["ab", "cde"])[index] == value


def test_concat_dataset_errors():
    with pytest.raises(AssertionError, match="should not be an empty iterable"):
        ConcatDataset([])
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        ConcatDataset([Stream(1)])
    with pytest.raises(ValueError, match="absolute value of index"):
        ConcatDataset(["ab"])[-3]
    with pytest.warns(FutureWarning, match="renamed to `cumulative_sizes`"):
        assert ConcatDataset(["ab", "c"]).cummulative_sizes == [2, 3]


def test_adding_datasets():
    whole = Subset("abc", [0, 2]) + Subset("de", [1])
    assert [whole[i] for i in range(len(whole))] == ["a", "c", "e"]
    chained = Stream(2) + Stream(1)
    assert isinstance(chained, ChainDataset) and list(chained) == [0, 1, 0] and len(chained) == 3


def test_stack_dataset():
    data = TensorDataset(torch.arange(3))
    assert StackDataset(data, "abc")[1] == ((torch.tensor(1),), "b")
    named = StackDataset(x="abc", y=Subset("def", [2, 1, 0]))
    assert named[0] == {"x": "a", "y": "f"}
    assert named.__getitems__([0, 2]) == [{"x": "a", "y": "f"}, {"x": "c", "y": "d"}]
    with pytest.raises(ValueError, match="Size mismatch between datasets"):
        StackDataset("ab", "abc")
    with pytest.raises(ValueError, match="At least one dataset"):
        StackDataset()
    with pytest.raises(ValueError, match="both types are given"):
        StackDataset("a", b="b")


def test_subset_passes_lists_on():
    data = TensorDataset(torch.arange(10))
    part = Subset(data, [7, 8, 9])
    assert part[[0, 2]][0].tolist() == [7, 9]
    assert [x.item() for (x,) in part.__getitems__([2, 0])] == [9, 7]


def test_dataset_without_getitem():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(NotImplementedError):
        iter(Sampler())
    with pytest.raises(TypeError):
        len(Dataset())


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [([3, 7], [3, 7]), ([0.33, 0.33, 0.34], [4, 3, 3]), ([0.01, 0.99], [1, 9]), ([1], [10])],
)
def test_random_split_sizes(lengths, sizes):
    assert [len(part) for part in random_split(range(10), lengths)] == sizes


def test_random_split_order_is_pytorchs():
    first, second = random_split(range(10), [3, 7], generator=torch.Generator().manual_seed(42))
    assert first.indices == [2, 6, 1]
    assert second.indices == [8, 4, 5, 0, 9, 3, 7]


@pytest.mark.parametrize("lengths", [[3, 3], [0.5, 0.4], [0.5, 0.6], [-0.5, 0.5]])
def test_random_split_refuses_wrong_sums(lengths):
    with pytest.raises(ValueError, match="Sum of input lengths does not equal"):
        random_split(range(10), lengths)


def test_random_split_warns_about_empty_parts():
    with pytest.warns(UserWarning, match="Length of split at index 0 is 0"):
        random_split(range(10), [0, 1])
    with pytest.raises(ValueError, match="Fraction at index 0 is not between 0 and 1"):
        random_split(range(10), [1.5, -0.5])


def test_random_sampler_order_is_pytorchs():
    torch.manual_seed(0)
    assert list(RandomSampler(range(8))) == RECORDED["default"]
    torch.manual_seed(0)
    assert list(RandomSampler(range(4), num_samples=10)) == RECORDED["repeated"]
    torch.manual_seed(0)
    assert list(RandomSampler(range(4), replacement=True, num_samples=6)) == RECORDED["replaced"]
    generator = torch.Generator().manual_seed(3)
    assert list(SubsetRandomSampler([5, 6, 7, 8], generator)) == RECORDED["subset"]
    generator = torch.Generator().manual_seed(3)
    weighted = WeightedRandomSampler([0.1, 0.9, 0.4], 6, generator=generator)
    assert list(weighted) == RECORDED["weighted"]


RECORDED = {
    "default": [2, 5, 4, 6, 1, 7, 0, 3],
    "repeated": [2, 3, 0, 1, 1, 0, 3, 2, 1, 0],
    "replaced": [2, 2, 0, 1, 1, 3],
    "subset": [7, 8, 6, 5],
    "weighted": [0, 1, 2, 1, 2, 1],
}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: RandomSampler([]), ValueError, "num_samples should be a positive integer"),
        (lambda: RandomSampler([1], replacement=1), TypeError, "replacement should be a boolean"),
        (lambda: RandomSampler([1], num_samples=2.0), ValueError, "positive integer"),
        (lambda: WeightedRandomSampler([0.1], 0), ValueError, "positive integer"),
        (lambda: WeightedRandomSampler([0.1], 1, 1), ValueError, "boolean value"),
        (lambda: WeightedRandomSampler([[0.1]], 1), ValueError, "weights should be a 1d sequence"),
        (lambda: BatchSampler([1], 0, False), ValueError, "batch_size should be a positive"),
        (lambda: BatchSampler([1], True, False), ValueError, "batch_size should be a positive"),
        (lambda: BatchSampler([1], 1, 1), ValueError, "drop_last should be a boolean"),
        (lambda: DistributedSampler([1], 2, 2), ValueError, r"interval \[0, 1\]"),
    ],
)
def test_sampler_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_batch_sampler():
    sampler = SequentialSampler("abcde")
    assert list(BatchSampler(sampler, 2, False)) == [[0, 1], [2, 3], [4]]
    assert list(BatchSampler(sampler, 2, True)) == [[0, 1], [2, 3]]
    assert len(BatchSampler(sampler, 2, False)) == 3 and len(BatchSampler(sampler, 2, True)) == 2


def test_distributed_sampler():
    parts = [list(DistributedSampler(range(10), 3, rank)) for rank in range(3)]
    assert parts == [[4, 5, 0, 2], [1, 3, 8, 4], [7, 9, 6, 1]]  # recorded
    even = [DistributedSampler(range(10), 3, r, shuffle=False, drop_last=True) for r in range(3)]
    assert [list(part) for part in even] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    sampler = DistributedSampler(range(10), 2, 0)
    before = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != before and len(sampler) == 5
    assert list(DistributedSampler([1], 3, 2)) == [0]


class Names(list):
    pass


def test_collate_containers():
    assert default_collate([(1, "x"), (2, "y")])[1] == ("x", "y")
    assert isinstance(default_collate([Pair(1, 2), Pair(3, 4)]), Pair)
    assert type(default_collate([Names([1]), Names([2])])) is Names
    both = default_collate([{"a": [1, "p"]}, {"a": [2, "q"]}])
    assert both["a"][0].tolist() == [1, 2] and both["a"][1] == ("p", "q")
    assert type(default_collate([OrderedDict(a=1)])) is OrderedDict
    assert default_collate([defaultdict(int, a=1)]).default_factory is int
    assert default_collate(["a", "b"]) == ["a", "b"] and default_collate([(), ()]) == []


@pytest.mark.parametrize(
    ("batch", "dtype"),
    [
        ([1, 2], torch.int64),
        ([1.5, 2.5], torch.float64),
        ([1, 2.5], torch.float32),
        ([True, False], torch.bool),
        ([np.float32(1), np.float32(2)], torch.float32),
        ([np.zeros(2), np.ones(2)], torch.float64),
        ([np.array(1.5), np.array(2)], torch.float64),
        ([torch.ones(2), torch.ones(2)], torch.float32),
    ],
)
def test_collate_dtypes(batch, dtype):
    got = default_collate(batch)
    assert got.dtype is dtype and got.shape[0] == 2


@pytest.mark.parametrize("element", [object(), None, 1 + 2j, np.array(["a"])])
def test_collate_refuses_other_types(element):
    with pytest.raises(TypeError, match="batch must contain tensors, numpy arrays, numbers"):
        default_collate([element])


def test_collate_refuses_unequal_sizes():
    with pytest.raises(RuntimeError, match="each element in list of batch should be of equal size"):
        default_collate([[1, 2], [1]])
    with pytest.raises(RuntimeError, match="equal size"):
        default_collate([torch.zeros(2), torch.zeros(3)])


def test_collate_with_an_own_map():
    table = {**default_collate_fn_map, type(None): lambda batch, *, collate_fn_map=None: len(batch)}
    assert collate([{"a": None}, {"a": None}], collate_fn_map=table) == {"a": 2}


def test_default_convert():
    got = default_convert({"a": np.zeros(1), "b": "s", "c": [np.float32(1)], "d": {1}})
    assert got["a"].dtype is torch.float64 and got["c"][0].item() == 1.0
    assert got["b"] == "s" and got["d"] == {1}
    assert default_convert(Pair(np.ones(1), 2)).b == 2
    assert default_convert(np.array(["a"])).dtype.kind == "U"


def test_no_worker_in_the_main_program():
    assert get_worker_info() is None
