"""What making kernels costs: the kernels of several models, compiled into an empty cache.

    python benchmarks/compile_time.py [--list]

Each model is trained for two steps in a process of its own, then once more: the second process
must compile nothing. Milliseconds of processor time for one kernel: to build its loops, emit LLVM
IR, compile and load it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

MODELS = {
    "mlp": """
model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 10))
x, y = torch.randn(128, 784), torch.randint(10, (128,))
loss = lambda: F.cross_entropy(model(x), y)
""",
    "cnn": """
model = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Linear(64, 10))
x, y = torch.randn(32, 3, 32, 32), torch.randint(10, (32,))
loss = lambda: F.cross_entropy(model(x), y)
""",
    "transformer": """
layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, activation="gelu")
model = nn.Sequential(nn.Embedding(100, 128), nn.TransformerEncoder(layer, 2), nn.Linear(128, 100))
x = torch.randint(100, (16, 64))
loss = lambda: F.cross_entropy(model(x).flatten(0, 1), x.flatten())
""",
    "lstm": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)
    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])
model = Net()
x, y = torch.randn(64, 30, 64), torch.randint(10, (64,))
loss = lambda: F.cross_entropy(model(x), y)
""",
}
TRAIN = """
import json, sys, time
sys.path.insert(0, {root!r})
import lampion as torch
from lampion import nn
from lampion.codegen import service
service.time.perf_counter, wall = time.thread_time, time.perf_counter  # the machine may be busy
F = nn.functional
{model}
optimizer = torch.optim.AdamW(model.parameters())
start = wall()
for _ in range(2):
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()
seconds = wall() - start
print(json.dumps({{"seconds": seconds, "llvm": "llvmlite.binding" in sys.modules, "made": [
    [m.name, m.seconds, m.compiled] for m in service.made.values()]}}))
"""


def train(model: str, cache: str) -> dict[str, Any]:
    """Two steps in a new process: its seconds and its kernels."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.format(root=str(ROOT), model=model)], capture_output=True,
        text=True, check=True,
        env=dict(os.environ, LAMPION_KERNELS="sync", LAMPION_CACHE_DIR=cache))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="each kernel, the slowest first")
    args = parser.parse_args()
    every: list[tuple[float, str]] = []
    print(f"{'':14s}{'kernels':>8s}{'median ms':>10s}{'slowest ms':>11s}{'steps s':>9s}"
          f"{'second process: compiled':>26s}{'steps s':>9s}")
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as cache:
            first, second = train(model, cache), train(model, cache)
        times = [1e3 * seconds for _, seconds, compiled in first["made"] if compiled]
        every += [(1e3 * seconds, kernel) for kernel, seconds, _ in first["made"]]
        again = sum(compiled for _, _, compiled in second["made"])
        llvm = ", without LLVM" if not second["llvm"] else ""
        print(f"{name:14s}{len(times):8d}{statistics.median(times):10.1f}{max(times):11.1f}"
              f"{first['seconds']:9.2f}{f'{again}{llvm}':>26s}{second['seconds']:9.2f}", flush=True)
    times = [ms for ms, _ in every]
    print(f"{len(times)} kernels: median {statistics.median(times):.1f} ms, "
          f"nine tenths below {sorted(times)[int(len(times) * 0.9)]:.1f} ms")
    if args.list:
        for ms, kernel in sorted(every, reverse=True):
            print(f"{ms:8.1f}  {kernel}")


if __name__ == "__main__":
    main()
