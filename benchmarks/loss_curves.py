"""A 12-layer GPT for 100 steps: eager, compiled and on PyTorch, from the same seed.

    python benchmarks/loss_curves.py [--layers N] [--steps N]

Prints the largest relative distance of the loss curves; the goal is 1e-3.
"""

from __future__ import annotations

import argparse
from typing import Any

from interleaved import torch_module


def curve(torch: Any, layers: int, steps: int, compiling: bool) -> list[float]:
    """The losses of a training with dropout, clipping and a schedule."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(96), nn.LayerNorm(96)
            self.qkv, self.proj = nn.Linear(96, 288), nn.Linear(96, 96)
            self.fc, self.out = nn.Linear(96, 384), nn.Linear(384, 96)
            self.drop = nn.Dropout(0.1)

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = (part.view(b, t, 4, c // 4).transpose(1, 2)
                       for part in self.qkv(self.ln_1(x)).split(c, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.drop(self.proj(y.transpose(1, 2).reshape(b, t, c)))
            return x + self.drop(self.out(F.gelu(self.fc(self.ln_2(x)))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(64, 96), nn.Embedding(48, 96)
            self.blocks = nn.ModuleList([Block() for _ in range(layers)])
            self.ln, self.head = nn.LayerNorm(96), nn.Linear(96, 64, bias=False)

        def forward(self, x: Any) -> Any:
            h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
            for block in self.blocks:
                h = block(h)
            return self.head(self.ln(h))

    torch.manual_seed(1)
    model = GPT()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, steps)
    text = torch.randint(0, 64, (4096,)).cumsum(0) % 64

    def step(x: Any, y: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        schedule.step()
        return loss

    run = torch.compile(step, mode="wait") if compiling else step
    found = []
    for _ in range(steps):
        at = torch.randint(0, len(text) - 49, (8,))
        x = torch.stack([text[i:i + 48] for i in at])
        found.append(run(x, torch.stack([text[i + 1:i + 49] for i in at])).item())
    if compiling:
        assert run.programs == 1 and not run.reasons, run.reasons
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    import lampion

    curves = {"lampion": curve(lampion, given.layers, given.steps, False),
              "lampion compiled": curve(lampion, given.layers, given.steps, True)}
    try:
        curves["torch"] = curve(torch_module(), given.layers, given.steps, False)
    except ImportError:
        print("PyTorch is not installed")
    first = curves["lampion compiled"]
    for name, other in curves.items():
        distance = max(abs(a - b) / abs(b) for a, b in zip(first, other, strict=True))
        print(f"{name:<18} first {other[0]:.6f} last {other[-1]:.6f}  "
              f"largest distance to compiled {distance:.2e}")


if __name__ == "__main__":
    main()
