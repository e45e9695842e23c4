"""Deep Q-learning on a walk along a corridor: replay memory, target network, epsilon-greedy."""

import random
from collections import deque

import torch
import torch.nn as nn
import torch.nn.functional as F

LENGTH, STEPS, BATCH, GAMMA, TAU = 9, 260, 32, 0.95, 0.05


class Corridor:
    """Walk right to the door for a reward; wind sometimes pushes back."""

    def __init__(self, rng):
        self.rng = rng
        self.reset()

    def reset(self):
        self.place, self.time = 2, 0
        return self.observe()

    def observe(self):
        return [self.place / LENGTH, self.time / 40, float(self.place == 0)]

    def step(self, action):
        move = 1 if action == 1 else -1
        if self.rng.random() < 0.15:
            move = -1
        self.place = max(0, self.place + move)
        self.time += 1
        done = self.place >= LENGTH or self.time >= 40
        return self.observe(), (1.0 if self.place >= LENGTH else -0.01), done


class DuelingQ(nn.Module):
    def __init__(self, inputs=3, hidden=64, actions=2):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden),
                                  nn.ReLU())
        self.value, self.advantage = nn.Linear(hidden, 1), nn.Linear(hidden, actions)

    def forward(self, x):
        h = self.body(x)
        a = self.advantage(h)
        return self.value(h) + a - a.mean(dim=-1, keepdim=True)


def main(compiled=False, checkpoint=None):
    torch.manual_seed(17)
    rng = random.Random(17)
    env, memory = Corridor(rng), deque(maxlen=200)
    policy, target = DuelingQ(), DuelingQ()
    target.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3, amsgrad=True)

    def step(state, action, reward, following, done):
        q = policy(state).gather(1, action.unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            best = policy(following).argmax(1, keepdim=True)
            future = target(following).gather(1, best).squeeze(1)
            wanted = reward + GAMMA * future * (1 - done)
        loss = F.smooth_l1_loss(q, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy.parameters(), 10.0)
        optimizer.step()
        with torch.no_grad():
            for mine, theirs in zip(target.parameters(), policy.parameters()):
                mine.lerp_(theirs, TAU)
        return loss

    if compiled:
        step = torch.compile(step)
    losses, state = [], env.reset()
    for t in range(STEPS):
        if rng.random() < max(0.1, 1 - t / 150):
            action = rng.randrange(2)
        else:
            with torch.no_grad():
                action = policy(torch.tensor([state])).argmax(1).item()
        following, reward, done = env.step(action)
        memory.append((state, action, reward, following, float(done)))
        state = env.reset() if done else following
        if len(memory) >= BATCH and t % 4 == 0:
            batch = zip(*rng.sample(list(memory), BATCH))
            losses.append(step(*(torch.tensor(part) for part in batch)).item())
    if checkpoint is not None:
        torch.save({"model": policy.state_dict(), "target": target.state_dict(),
                    "optimizer": optimizer.state_dict()}, checkpoint)
    return losses
