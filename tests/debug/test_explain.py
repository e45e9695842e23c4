"""`lampion explain`: lines, modules and kernels of a program, and what it says about them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lampion as torch
from lampion.autograd import engine
from lampion.debug.explain import Explainer
from lampion.debug.explain_text import text
from lampion.debug.knobs import override
from lampion.explain import _frames, _modules, why_numpy
from lampion.nn import Module
from lampion.ops import optimize

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """\
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(128)
        self.mlp = nn.Sequential(nn.Linear(128, 256), nn.GELU(), nn.Linear(256, 128))

    def forward(self, x):
        return x + self.mlp(self.norm(x))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)

net = Net()
optimizer = torch.optim.AdamW(net.parameters())
data = [(torch.randn(128), i % 10) for i in range(128)]
seen = 0
for x, y in torch.utils.data.DataLoader(data, 64):
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seen += len(x)
    inverse = torch.linalg.inv(x.T @ x + torch.eye(128))
print("seen", seen)
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    (folder / "train.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "lampion", "explain", str(folder / "train.py")], cwd=ROOT,
        capture_output=True, text=True, timeout=120,
        env=dict(os.environ, LAMPION_CACHE_DIR=str(folder / "cache"), LAMPION_KERNELS="sync"))
    assert (done.returncode, done.stdout) == (0, "seen 128\n"), done.stderr
    return done.stderr


def section(report, title):
    """The lines below a title."""
    lines = report.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = lines[start + 1:]
    return rest[:rest.index("") if "" in rest else len(rest)]


def test_no_line_is_wider_than_a_terminal(report):
    assert max(map(len, report.splitlines())) <= 100


def test_the_parts_add_up(report):
    rows = section(report, "Where the time went")
    names, shares = zip(*((row.split(" ms ")[0].rsplit(maxsplit=1)[0].strip(),
                           int(row.split(" ms ")[1].split("%")[0])) for row in rows), strict=True)
    assert names == ("kernels", "NumPy", "Python", "making kernels")
    assert 97 <= sum(shares) <= 103


def test_lines_are_those_of_the_program(report):
    rows = section(report, "By line")
    assert any(row.startswith("train.py:11 return x + self.mlp(self.norm(x))") for row in rows)
    forward = next(row for row in rows if row.startswith("train.py:11 ")).split()
    assert 10 < int(forward[-7].rstrip("%")) < 95  # of it in backward: gradients count here
    assert not any("lampion/" in row for row in rows)


def test_modules_are_a_tree(report):
    rows = section(report, "By module")
    names = [row[:47].rstrip() for row in rows]
    assert names[0] == "Net"
    place = names.index("    * (3 Block)")
    assert names[place - 1] == "  blocks (ModuleList)"
    assert "      mlp (Sequential)" in names[place:]
    assert "        1 (GELU)" in names or "        0 (Linear)" in names


def test_kernels_have_rates(report):
    rows = section(report, "Kernels")
    product = next(row for row in rows if row.startswith("gemm "))
    assert " @ " in product and product.rstrip().endswith("%")


def test_operators_on_numpy_have_reasons(report):
    rows = section(report, "Operators that ran on NumPy")
    assert any("inv" in row and "no kernel" in row for row in rows)


def test_an_error_of_the_program_is_shown_and_explained(tmp_path):
    (tmp_path / "wrong.py").write_text("import torch\ntorch.ones(3) + torch.ones(4)\n")
    done = subprocess.run(
        [sys.executable, "-m", "lampion", "explain", str(tmp_path / "wrong.py")], cwd=ROOT,
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "wrong.py\", line 2" in done.stderr and "Where the time went" in done.stderr


def explain(run):
    explainer = Explainer(why_numpy)
    undo = [_modules(explainer), _frames(explainer)]
    explainer.start()
    try:
        run()
    finally:
        explainer.stop()
        for back in reversed(undo):
            back()
    return explainer


def line_of(function, part):
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if part in line)


def small_step():
    x = torch.ones(30, 40, requires_grad=True)
    y = torch.sinh(x)
    z = y.sum()
    z.backward()


def test_gradients_count_where_the_forward_ran():
    found = explain(small_step)
    cost = {place[1]: cost for place, cost in found.by_line.items() if place[0] == __file__}
    forward = cost[line_of(small_step, "torch.sinh")]
    assert 0 < forward.backward < forward.total
    assert cost[line_of(small_step, "z.backward")].backward == 0


def test_nothing_is_left_behind():
    before = (Module.__call__, engine.run_backward, optimize._run, torch.sinh, torch.Tensor.sum)
    explain(small_step)
    assert before == (Module.__call__, engine.run_backward, optimize._run, torch.sinh,
                      torch.Tensor.sum)


def test_small_and_large_operators_on_numpy():
    with override(kernels="auto"):
        assert "fewer than 1024 elements" in why_numpy("add", 10)
        assert "PyTorch's order" in why_numpy("normal", 10**6)
        assert why_numpy("view", 10**6) is None
        assert why_numpy("add", -1) is None
    with override(kernels="off"):
        assert why_numpy("add", 10**6) == "LAMPION_KERNELS=off"


def test_other_threads_are_left_alone():
    from threading import Thread

    def run():
        thread = Thread(target=small_step)
        thread.start()
        thread.join()
    found = explain(run)
    assert not any("sinh" in name for name, _ in found.by_operator)


def test_the_text_of_an_empty_program():
    with override(kernels="off"):
        assert "Where the time went" in text(explain(lambda: None), "nothing")
