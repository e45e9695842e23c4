"""A small residual network: SGD with Nesterov momentum, OneCycleLR, averaged weights."""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

CLASSES, SIZE, EPOCHS = 4, 16, 3


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                            nn.BatchNorm2d(outputs))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths=(8, 16, 32)):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0])
        blocks, inputs = [], widths[0]
        for i, width in enumerate(widths):
            blocks.append(BasicBlock(inputs, width, stride=1 if i == 0 else 2))
            inputs = width
        self.layers = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, CLASSES)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(torch.flatten(self.avgpool(self.layers(x)), 1))


class EMA:
    """An exponential moving average of parameters and buffers."""

    def __init__(self, model, decay):
        self.module, self.decay = copy.deepcopy(model).eval(), decay

    @torch.no_grad()
    def update(self, model):
        for mine, theirs in zip(self.module.parameters(), model.parameters()):
            mine.mul_(self.decay).add_(theirs, alpha=1 - self.decay)
        for mine, theirs in zip(self.module.buffers(), model.buffers()):
            mine.copy_(theirs)


def shapes(count):
    """Stripes and squares in noise: (count, 3, SIZE, SIZE), and their classes."""
    y = torch.randint(0, CLASSES, (count,))
    x = 0.5 * torch.randn(count, 3, SIZE, SIZE)
    grid = torch.arange(SIZE)
    rows = (grid // 2 % 2).float().view(1, SIZE, 1).expand(3, SIZE, SIZE)
    patterns = torch.stack([rows, rows.transpose(1, 2), rows * rows.transpose(1, 2), 1 - rows])
    return x + patterns[y], y


def main(compiled=False, checkpoint=None):
    torch.manual_seed(5)
    train_set, test_set = TensorDataset(*shapes(208)), TensorDataset(*shapes(64))
    loader = DataLoader(train_set, batch_size=32, shuffle=True)  # the last batch holds 16
    model = ResNet()
    ema = EMA(model, 0.8)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.8, weight_decay=5e-4,
                                nesterov=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, epochs=EPOCHS,
                                                    steps_per_epoch=len(loader))

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
        ema.update(model)
        return loss

    if compiled:
        step = torch.compile(step)
    losses = []
    for _ in range(EPOCHS):
        model.train()
        for x, y in loader:
            if torch.rand(()) < 0.5:
                x = x.flip(-1)
            losses.append(step(x, y).item())
        losses.append(evaluate(model, test_set))
        losses.append(evaluate(ema.module, test_set))
    if checkpoint is not None:
        torch.save({"model": model.state_dict(), "ema": ema.module.state_dict(),
                    "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()},
                   checkpoint)
    return losses


@torch.no_grad()
def evaluate(model, data):
    model.eval()
    x, y = data.tensors
    return F.cross_entropy(model(x), y).item()
