"""Two small trainings, written once for lampion and PyTorch: `losses(lib)` gives the curve."""

from __future__ import annotations

from typing import Any


def _blobs(lib: Any, classes: int, *shape: int) -> Any:
    """Synthetic examples: a pattern for every class, and noise."""
    targets = lib.arange(240) % classes
    patterns = lib.randn(classes, *shape)
    return patterns[targets] + 0.8 * lib.randn(240, *shape), targets


def _loader(lib: Any, x: Any, t: Any) -> Any:
    return lib.utils.data.DataLoader(lib.utils.data.TensorDataset(x, t), batch_size=32,
                                     shuffle=True, drop_last=True)


def _train(lib: Any, net: Any, optimizer: Any, loader: Any, steps: int) -> list[float]:
    found: list[float] = []
    while True:
        for x, t in loader:
            optimizer.zero_grad()
            loss = lib.nn.functional.cross_entropy(net(x), t)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
            if len(found) == steps:
                return found


def mlp(lib: Any, steps: int = 100) -> list[float]:
    """Adam, dropout, a shuffling loader."""
    lib.manual_seed(0)
    nn = lib.nn
    x, t = _blobs(lib, 5, 20)
    net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32),
                        nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 5))
    return _train(lib, net, lib.optim.Adam(net.parameters(), lr=1e-3), _loader(lib, x, t), steps)


def cnn(lib: Any, steps: int = 100) -> list[float]:
    """SGD with momentum, batch norm, pooling."""
    lib.manual_seed(1)
    nn = lib.nn
    x, t = _blobs(lib, 4, 1, 10, 10)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
                        nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
                        nn.Flatten(), nn.Linear(72, 4))
    optimizer = lib.optim.SGD(net.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-4)
    return _train(lib, net, optimizer, _loader(lib, x, t), steps)


TRAININGS = {"mlp": mlp, "cnn": cnn}
