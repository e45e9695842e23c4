"""A variational autoencoder on handwritten digits."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class VAE(nn.Module):
    def __init__(self, latent=4):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.Tanh())
        self.mean = nn.Linear(96, latent)
        self.log_variance = nn.Linear(96, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, 96), nn.Tanh(), nn.Linear(96, 64))

    def forward(self, x):
        h = self.encoder(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decoder(z), mean, log_variance


def loss_of(logits, x, mean, log_variance):
    """Negative evidence lower bound per image: reconstruction and divergence from the prior."""
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return (reconstruction + divergence) / len(x)


torch.manual_seed(0)
images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
loader = DataLoader(TensorDataset(images), batch_size=128, shuffle=True)
model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(1, 16):
    total = 0.0
    for (x,) in loader:
        loss = loss_of(*(out := model(x))[:1], x, *out[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    print(f"epoch {epoch:2d}  loss {total / len(images):.2f}")

# A picture in characters: one image decoded from the middle of the latent space.
with torch.no_grad():
    picture = torch.sigmoid(model.decoder(torch.zeros(1, 4))).view(8, 8)
for row in picture:
    print("".join(" .:-=+*#%@"[min(int(v * 10), 9)] for v in row))
