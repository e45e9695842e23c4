"""`lampion demo`: trains a convolutional classifier on scikit-learn's handwritten digits."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from . import manual_seed, nn, ops, optim
from . import save as save_file
from .autograd import no_grad
from .nn import functional as F
from .tensor import Tensor, float32, int64
from .utils.data import DataLoader, Dataset, TensorDataset, random_split

__all__ = ["main"]

EPOCHS = 12


class DigitNet(nn.Module):
    """Two convolutions and a linear head: (N, 1, 8, 8) images to (N, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 48, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(48)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(48 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)  # (N, 24, 4, 4)
        x = F.max_pool2d(F.relu(self.norm2(self.conv2(x))), 2)  # (N, 48, 2, 2)
        return self.head(self.drop(x.flatten(1)))


class History:
    """Loss and accuracy of every epoch."""

    def __init__(self) -> None:
        self.train_loss: list[float] = []
        self.valid_loss: list[float] = []
        self.valid_accuracy: list[float] = []


def load_data() -> tuple[Any, Any, Any]:
    """Training, validation and test set of the 1,797 images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = ops.tensor(digits.images / 16, dtype=float32).unsqueeze(1)
    labels = ops.tensor(digits.target, dtype=int64)
    train_set, valid_set, test_set = random_split(TensorDataset(images, labels), [1257, 180, 360])
    return train_set, valid_set, test_set


def evaluate(model: nn.Module, data: Dataset[Any]) -> tuple[float, float]:
    """Mean loss and accuracy on a data set."""
    model.eval()
    with no_grad():
        x, y = next(iter(DataLoader(data, batch_size=len(data))))  # type: ignore[arg-type]
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        accuracy = (logits.argmax(1) == y).float().mean()
    return loss.item(), accuracy.item()


def train_epoch(model: nn.Module, loader: Any, optimizer: Any, scheduler: Any,
                report: Any) -> float:
    """One pass over the training set; calls `report(images, loss)` after every step."""
    model.train()
    total = seen = 0.0
    for x, y in loader:
        loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        total, seen = total + loss.item() * len(x), seen + len(x)
        report(len(x), loss.item())
    return total / seen


def progress_bar() -> Any:
    """A bar with loss, accuracy, samples per second and time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("epoch {task.fields[epoch]:>2}"), BarColumn(),
                    TextColumn("{task.percentage:>3.0f}%  loss {task.fields[loss]:.3f}  "
                               "accuracy {task.fields[accuracy]:.3f}  "
                               "{task.fields[rate]:,.0f} samples/s"),
                    TimeRemainingColumn(compact=True))


def train(model: nn.Module, train_set: Any, valid_set: Any, history: History) -> bool:
    """Trains for all epochs; False if the user stopped it."""
    loader = DataLoader(train_set, batch_size=64, shuffle=True)
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 6e-3,
                                                    total_steps=EPOCHS * len(loader))
    start, done = time.perf_counter(), 0
    try:
        with progress_bar() as bar:
            task = bar.add_task("train", total=EPOCHS * len(train_set), epoch=1, loss=0.0,
                                accuracy=0.0, rate=0.0)

            def report(images: int, loss: float) -> None:
                nonlocal done
                done += images
                rate = done / (time.perf_counter() - start)
                bar.update(task, advance=images, loss=loss, rate=rate)

            for epoch in range(1, EPOCHS + 1):
                bar.update(task, epoch=epoch)
                history.train_loss.append(train_epoch(model, loader, optimizer, scheduler, report))
                loss, accuracy = evaluate(model, valid_set)
                history.valid_loss.append(loss)
                history.valid_accuracy.append(accuracy)
                bar.update(task, accuracy=accuracy)
    except KeyboardInterrupt:
        return False
    return True


def plot_curves(history: History, path: Path) -> None:
    """Learning curves as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(range(1, len(history.train_loss) + 1), history.train_loss, label="training")
    epochs = range(1, len(history.valid_loss) + 1)
    left.plot(epochs, history.valid_loss, label="validation")
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    right.plot(epochs, history.valid_accuracy, color="tab:green")
    right.set(xlabel="epoch", ylabel="validation accuracy")
    figure.savefig(path, dpi=120)


def plot_predictions(model: nn.Module, data: Any, path: Path) -> None:
    """The first test images with what the model sees in them."""
    from matplotlib.figure import Figure

    model.eval()
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    x, y = next(iter(DataLoader(data, batch_size=24)))
    with no_grad():
        found = model(x).softmax(1)
    for axis, image, label, p in zip(figure.subplots(3, 8).flat, x, y, found, strict=True):
        axis.imshow(image[0].numpy(), cmap="gray_r")
        guess = p.argmax().item()
        axis.set_title(f"{guess} ({p.max().item():.0%})", fontsize=8,
                       color="black" if guess == label.item() else "red")
        axis.axis("off")
    figure.savefig(path, dpi=120)


def summary(model: nn.Module, history: History, test: tuple[float, float], seconds: float) -> None:
    """A table of what was reached."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Handwritten digits: convolutional classifier")
    table.add_column("what")
    table.add_column("value", justify="right")
    rows = [("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
            ("epochs", str(len(history.valid_loss))),
            ("training loss", f"{history.train_loss[-1]:.4f}" if history.train_loss else "-"),
            ("validation accuracy", f"{history.valid_accuracy[-1]:.2%}"
             if history.valid_accuracy else "-"),
            ("test loss", f"{test[0]:.4f}"), ("test accuracy", f"{test[1]:.2%}"),
            ("time", f"{seconds:.1f} s")]
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def save(model: nn.Module, history: History, test_set: Any, folder: Path) -> list[Path]:
    """Writes curves, predictions and weights; returns where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    curves, pictures, weights = (folder / n for n in ("curves.png", "predictions.png", "digits.pt"))
    plot_curves(history, curves)
    plot_predictions(model, test_set, pictures)
    save_file(model.state_dict(), weights)
    return [curves, pictures, weights]


def main(argv: list[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="lampion demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("lampion-demo"),
                        help="where to save pictures and weights (default: lampion-demo)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        print(f'lampion demo needs {error.name}: pip install "lampion[demo]"', file=sys.stderr)
        return 1
    manual_seed(args.seed)
    train_set, valid_set, test_set = load_data()
    model, history, start = DigitNet(), History(), time.perf_counter()
    finished = train(model, train_set, valid_set, history)
    seconds = time.perf_counter() - start
    if not finished:
        print("Stopped: here is what there is so far.")
    summary(model, history, evaluate(model, test_set), seconds)
    for path in save(model, history, test_set, args.folder):
        print(f"saved {path}")
    return 0 if finished else 130
