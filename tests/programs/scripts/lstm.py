"""A character model with an LSTM: state carried over batches, sequences of several lengths."""

import torch
import torch.nn as nn
import torch.nn.functional as F

VERSE = ("the lamps are lit along the quay, the tide goes out, the ships go too, "
         "and every lamp that lights the bay is lit by someone just like you. ")
BATCH, LENGTHS, ROUNDS = 6, (20, 20, 13, 20), 8


class CharLSTM(nn.Module):
    def __init__(self, letters, width=32, hidden=48, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(letters, width)
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, dropout=0.2)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, letters)
        self.layers, self.hidden = layers, hidden

    def initial(self, batch):
        zeros = torch.zeros(self.layers, batch, self.hidden)
        return zeros, zeros.clone()

    def forward(self, x, state):
        y, state = self.lstm(self.embedding(x), state)
        return self.head(self.norm(F.dropout(y, 0.1, self.training))), state


def chunks(data, round):
    """Consecutive pieces of BATCH places of the text."""
    starts = torch.arange(BATCH) * 11 + 3 * round
    offset = 0
    for length in LENGTHS:
        index = (starts[:, None] + offset + torch.arange(length + 1)) % len(data)
        yield data[index[:, :-1]], data[index[:, 1:]]
        offset += length


def main(compiled=False, checkpoint=None):
    torch.manual_seed(11)
    letters = sorted(set(VERSE))
    data = torch.tensor([letters.index(c) for c in VERSE])
    model = CharLSTM(len(letters))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=4e-3, momentum=0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    def step(x, y, state):
        state = tuple(s.detach() for s in state)  # truncated backpropagation through time
        logits, state = model(x, state)
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss, state

    if compiled:
        step = torch.compile(step)
    losses = []
    for round in range(ROUNDS):
        state, total = model.initial(BATCH), 0.0
        for x, y in chunks(data, round):
            loss, state = step(x, y, state)
            losses.append(loss.item())
            total += losses[-1]
        scheduler.step(total)
    if checkpoint is not None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "state": state}, checkpoint)
    return losses
