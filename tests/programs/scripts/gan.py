"""A generative adversarial network on a ring of points: two models and two optimizers in a step."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH, LATENT, STEPS = 64, 8, 60


class Generator(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(LATENT, hidden, bias=False), nn.BatchNorm1d(hidden),
                                 nn.SiLU(True), nn.Linear(hidden, hidden, bias=False),
                                 nn.BatchNorm1d(hidden), nn.SiLU(True), nn.Linear(hidden, 2))

    def forward(self, z):
        return 2 * torch.tanh(self.net(z))


class Discriminator(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.SiLU(inplace=True),
                                 nn.Dropout(0.2), nn.Linear(hidden, hidden),
                                 nn.SiLU(inplace=True), nn.Linear(hidden, 1))

    def forward(self, x):
        return self.net(x).view(-1)


def weights_init(m):
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, 0.0, 0.1)
    elif isinstance(m, nn.BatchNorm1d):
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


def ring(count):
    angle = 2 * math.pi * torch.randint(0, 8, (count,)) / 8
    return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(count, 2)


def main(compiled=False, checkpoint=None):
    torch.manual_seed(29)
    G, D = Generator().apply(weights_init), Discriminator().apply(weights_init)
    opt_g = torch.optim.Adam(G.parameters(), lr=2e-3, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=2e-3, betas=(0.5, 0.999))
    decay = torch.optim.lr_scheduler.ExponentialLR(opt_d, gamma=0.98)

    def step(real):
        ones, zeros = torch.ones(real.size(0)), torch.zeros(real.size(0))
        fake = G(torch.randn(real.size(0), LATENT))

        D.zero_grad()
        loss_d = F.binary_cross_entropy_with_logits(D(real), ones) \
            + F.binary_cross_entropy_with_logits(D(fake.detach()), zeros)
        loss_d.backward()
        opt_d.step()

        G.zero_grad()
        D.requires_grad_(False)
        loss_g = F.binary_cross_entropy_with_logits(D(fake), ones)
        loss_g.backward()
        D.requires_grad_(True)
        opt_g.step()
        decay.step()
        return loss_d, loss_g

    if compiled:
        step = torch.compile(step)
    losses = []
    for _ in range(STEPS):
        loss_d, loss_g = step(ring(BATCH))
        losses += [loss_d.item(), loss_g.item()]
    G.eval()
    with torch.no_grad():
        losses.append(G(torch.randn(16, LATENT)).norm(dim=1).mean().item())
    if checkpoint is not None:
        torch.save({"model": G.state_dict(), "discriminator": D.state_dict(),
                    "optimizer": opt_g.state_dict(), "optimizer_d": opt_d.state_dict()},
                   checkpoint)
    return losses
