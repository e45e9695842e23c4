"""Three samples of eight features, four classes."""

import torch
from torch import nn

torch.manual_seed(0)
data = torch.rand((3, 8))
model = nn.Linear(8, 4)
logits = model(data)
print(logits)
print(logits.argmax(1))
