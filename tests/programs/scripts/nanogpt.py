"""A small GPT on characters: AdamW with two groups, a learning rate set by hand, accumulation."""

import math

import torch
import torch.nn as nn
from torch.nn import functional as F

TEXT = ("a lamp is a small machine that makes light of oil and a wick; a lamp that is trimmed "
        "burns long, and one that is not smokes, so the keeper walks the street every night "
        "with a ladder, a can of oil and a pair of scissors, and says nothing at all. ") * 3
BLOCK, BATCH, STEPS, ACCUMULATE = 32, 8, 40, 2


class CausalSelfAttention(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (t.view(B, T, self.heads, C // self.heads).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, C / heads)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = CausalSelfAttention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(),
                                 nn.Linear(4 * width, width), nn.Dropout(dropout))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, letters, width=64, heads=4, layers=2, dropout=0.1):
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(letters, width),
            "wpe": nn.Embedding(BLOCK, width),
            "drop": nn.Dropout(dropout),
            "h": nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)]),
            "ln_f": nn.LayerNorm(width),
        })
        self.lm_head = nn.Linear(width, letters, bias=False)
        self.transformer.wte.weight = self.lm_head.weight  # tied
        self.apply(self._init_weights)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * layers))

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, idx, targets=None):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def configure_optimizer(model, weight_decay, lr, betas):
    params = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in params if p.dim() >= 2], "weight_decay": weight_decay},
              {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas)


def learning_rate(it, peak=3e-3, floor=3e-4, warmup=4):
    if it < warmup:
        return peak * (it + 1) / (warmup + 1)
    ratio = (it - warmup) / (STEPS - warmup)
    return floor + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (peak - floor)


def main(compiled=False, checkpoint=None):
    torch.manual_seed(1337)
    letters = sorted(set(TEXT))
    data = torch.tensor([letters.index(c) for c in TEXT])
    model = GPT(len(letters))
    optimizer = configure_optimizer(model, 0.1, 1e-3, (0.9, 0.95))

    def get_batch():
        ix = torch.randint(len(data) - BLOCK, (BATCH,))
        return (torch.stack([data[i:i + BLOCK] for i in ix]),
                torch.stack([data[i + 1:i + 1 + BLOCK] for i in ix]))

    def step(batches):
        total = 0.0
        for x, y in batches:
            _, loss = model(x, y)
            loss = loss / ACCUMULATE
            loss.backward()
            total = total + loss.detach()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total, norm

    if compiled:
        step = torch.compile(step)
    losses = []
    model.train()
    for it in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(it)
        loss, norm = step([get_batch() for _ in range(ACCUMULATE)])
        losses.append(loss.item())
        assert math.isfinite(norm.item())
    if checkpoint is not None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    return losses
