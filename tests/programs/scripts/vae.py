"""A variational autoencoder, the module itself compiled; bfloat16 by autocast, GradScaler."""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH, SIZE, STEPS = 32, 12, 48


class Output(NamedTuple):
    logits: torch.Tensor
    mu: torch.Tensor
    logvar: torch.Tensor


class VAE(nn.Module):
    def __init__(self, latent=4, hidden=96):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(SIZE * SIZE, hidden), nn.SiLU(),
                                     nn.Linear(hidden, hidden), nn.SiLU())
        self.mu, self.logvar = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(),
                                     nn.Linear(hidden, SIZE * SIZE))

    def reparameterize(self, mu, logvar):
        if not self.training:
            return mu
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def forward(self, x):
        h = self.encoder(x.flatten(1))
        mu, logvar = self.mu(h), self.logvar(h)
        return Output(self.decoder(self.reparameterize(mu, logvar)), mu, logvar)


def loss_function(out, x, beta):
    recon = F.binary_cross_entropy_with_logits(out.logits.float(), x.flatten(1), reduction="sum")
    mu, logvar = out.mu.float(), out.logvar.float()
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return (recon + beta * kld) / x.size(0)


def boxes(count):
    """Images of one bright box each: (count, SIZE, SIZE)."""
    corner, side = torch.randint(0, SIZE - 4, (count, 2, 1)), torch.randint(3, 6, (count, 2, 1))
    grid = torch.arange(SIZE)
    inside = (grid >= corner) & (grid < corner + side)  # (count, 2, SIZE)
    return (inside[:, 0, :, None] & inside[:, 1, None, :]).float()


def main(compiled=False, checkpoint=None):
    torch.manual_seed(3)
    data = boxes(BATCH * 8)
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 12, growth_interval=6)
    if compiled:
        model = torch.compile(model)
    losses = []
    for step in range(STEPS):
        model.train()
        x = data[torch.randint(len(data), (BATCH,))]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
        loss = loss_function(out, x, beta=min(1.0, step / 10))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_value_(model.parameters(), 5.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        if step % 8 == 7:
            model.eval()
            with torch.no_grad():
                losses.append(loss_function(model(data[:BATCH]), data[:BATCH], 1.0).item())
    if checkpoint is not None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict()}, checkpoint)
    return losses
