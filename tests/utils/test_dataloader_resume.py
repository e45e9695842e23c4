"""DataLoader.state_dict: the rest of an epoch, exactly, in a new loader."""

import io
import random

import numpy as np
import pytest

import lampion as torch
from lampion.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info


class Augmented(Dataset):
    """Samples that also show the state of three random streams."""

    def __len__(self):
        return 23

    def __getitem__(self, i):
        return i, random.random(), np.random.rand(), torch.rand(1).item()


class Stream(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(start, 11 + 4 * (start == 1), step):
            yield i, random.random(), np.random.rand(), torch.rand(1).item()


def global_state():
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def restore(state):
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])


def seed(n):
    torch.manual_seed(n)
    random.seed(n)
    np.random.seed(n)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


def rest_and_resumed(make, workers, stop, epochs=2, other_workers=None):
    """The batches after number `stop`, and the same from a loader that resumed there."""
    seed(3)
    loader, seen, saved = make(workers), [], None
    for epoch in range(epochs):
        for batch in loader:
            seen.append([column.tolist() for column in batch])
            if len(seen) == stop:
                saved = through_a_file(loader.state_dict()), global_state(), epoch
    seed(99)
    loader = make(workers if other_workers is None else other_workers)
    loader.load_state_dict(saved[0])
    restore(saved[1])
    resumed = []
    for _ in range(saved[2], epochs):
        resumed += [[column.tolist() for column in batch] for batch in loader]
    return seen[stop:], resumed


@pytest.mark.parametrize("options", [
    {"batch_size": 3}, {"batch_size": 3, "shuffle": True},
    {"batch_size": 2, "shuffle": True, "persistent_workers": True},
])  # fmt: skip
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stop", [1, 4, 7, 10])
def test_exact_continuation(options, workers, stop):
    if workers == 0:
        options = {k: v for k, v in options.items() if k != "persistent_workers"}
    rest, resumed = rest_and_resumed(
        lambda n: DataLoader(Augmented(), num_workers=n, **options), workers, stop
    )
    assert rest == resumed


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 5, 6, 7])
def test_exact_continuation_of_a_stream(workers, stop):
    rest, resumed = rest_and_resumed(
        lambda n: DataLoader(Stream(), batch_size=2, num_workers=n), workers, stop
    )
    assert rest == resumed


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
def test_another_number_of_workers(before, after):
    rest, resumed = rest_and_resumed(
        lambda n: DataLoader(Augmented(), 3, shuffle=True, num_workers=n), before, 4, epochs=1,
        other_workers=after,
    )  # fmt: skip
    assert [batch[0] for batch in rest] == [batch[0] for batch in resumed]


def test_threads():
    rest, resumed = rest_and_resumed(
        lambda n: DataLoader(
            Augmented(), 3, shuffle=True, num_workers=n, worker_type="thread"
        ), 2, 4,
    )  # fmt: skip
    assert [batch[0::3] for batch in rest] == [batch[0::3] for batch in resumed]


def test_an_own_generator():
    def make(workers):
        return DataLoader(
            Augmented(), 3, shuffle=True, generator=torch.Generator().manual_seed(5)
        )

    rest, resumed = rest_and_resumed(make, 0, 3)
    assert [batch[0] for batch in rest] == [batch[0] for batch in resumed]


class PythonShuffle(Sampler):
    def __iter__(self):
        order = list(range(23))
        random.shuffle(order)
        return iter(order)

    def __len__(self):
        return 23


def test_a_sampler_that_uses_python_s_random_numbers():
    rest, resumed = rest_and_resumed(
        lambda n: DataLoader(Augmented(), 3, sampler=PythonShuffle(), num_workers=n), 2, 4
    )
    assert [batch[0] for batch in rest] == [batch[0] for batch in resumed]


class Counting(IterableDataset):
    """A stream that keeps its own place."""

    def __init__(self):
        self.place = 0
        self.reads = 0

    def __iter__(self):
        while self.place < 6:
            self.place += 1
            self.reads += 1
            yield self.place
        self.place = 0

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


def test_a_stateful_stream_is_not_read_again():
    loader = DataLoader(Counting(), batch_size=2, num_workers=1)
    iterator = iter(loader)
    assert next(iterator).tolist() == [1, 2]
    state = loader.state_dict()
    again = DataLoader(Counting(), batch_size=2, num_workers=1)
    again.load_state_dict(state)
    assert [b.tolist() for b in again] == [[3, 4], [5, 6]]


def test_between_epochs_the_state_is_empty():
    loader = DataLoader(range(4))
    assert loader.state_dict()["begun"] is False
    list(loader)
    assert loader.state_dict()["begun"] is False


def test_after_break_the_place_is_kept():
    loader = DataLoader(range(6), batch_size=2)
    for _ in loader:
        break
    again = DataLoader(range(6), batch_size=2)
    again.load_state_dict(loader.state_dict())
    assert [b.tolist() for b in again] == [[2, 3], [4, 5]]
    assert len(list(again)) == 3  # the epoch after it is whole


def test_wrong_states_are_refused():
    with pytest.raises(ValueError, match=r"expected a dict from DataLoader.state_dict"):
        DataLoader(range(3)).load_state_dict({})
    loader = DataLoader(Stream(), batch_size=2)
    next(iter(loader))
    with pytest.raises(ValueError, match="continuing needs the same number"):
        DataLoader(Stream(), batch_size=2, num_workers=1).load_state_dict(loader.state_dict())
