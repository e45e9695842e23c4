"""A character-level language model: a GRU on the Zen of Python, which ships with Python."""

import codecs
import contextlib
import io

import torch
import torch.nn.functional as F
from torch import nn

with contextlib.redirect_stdout(io.StringIO()):
    import this

text = codecs.decode(this.s, "rot13")
letters = sorted(set(text))
code = torch.tensor([letters.index(c) for c in text])


class CharModel(nn.Module):
    def __init__(self, n_letters, width=64):
        super().__init__()
        self.embed = nn.Embedding(n_letters, 32)
        self.rnn = nn.GRU(32, width, batch_first=True)
        self.head = nn.Linear(width, n_letters)

    def forward(self, x, state=None):
        y, state = self.rnn(self.embed(x), state)  # (N, T, width)
        return self.head(y), state


def sample(model, start, length):
    """The most likely continuation of `start`."""
    model.eval()
    out, state = list(start), None
    x = torch.tensor([[letters.index(c) for c in start]])
    with torch.no_grad():
        for _ in range(length):
            logits, state = model(x, state)
            x = logits[:, -1].argmax(-1, keepdim=True)
            out.append(letters[x.item()])
    return "".join(out)


torch.manual_seed(0)
model = CharModel(len(letters))
optimizer = torch.optim.RMSprop(model.parameters(), lr=3e-3)
print(f"{len(text)} characters, {len(letters)} letters, "
      f"{sum(p.numel() for p in model.parameters())} parameters")
for step in range(1, 201):
    starts = torch.randint(0, len(code) - 33, (16,))
    batch = torch.stack([code[s:s + 33] for s in starts])  # (N, T + 1)
    logits, _ = model(batch[:, :-1])
    loss = F.cross_entropy(logits.reshape(-1, len(letters)), batch[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:3d}  loss {loss.item():.3f}")
print(repr(sample(model, "Beautiful", 40)))
