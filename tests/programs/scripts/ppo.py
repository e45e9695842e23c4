"""Proximal policy optimisation of a pole on a cart: rollouts, advantages, clipped updates."""

import torch
import torch.nn as nn
from torch.distributions import Categorical

ENVS, HORIZON, ITERATIONS, EPOCHS, MINIBATCH = 4, 24, 3, 3, 32
GAMMA, LAMBDA, CLIP, TARGET_KL = 0.98, 0.95, 0.2, 0.03


class Carts:
    """ENVS poles on carts at once, in plain tensors."""

    def __init__(self):
        self.state = 0.05 * torch.rand(ENVS, 4)

    def step(self, action):
        x, v, angle, spin = self.state.unbind(1)
        force = torch.where(action == 1, 10.0, -10.0)
        push = (force + 0.05 * spin ** 2 * angle.sin()) / 1.1
        turn = (9.8 * angle.sin() - angle.cos() * push) / (0.5 * (4 / 3 - 0.09 * angle.cos() ** 2))
        pull = push - 0.045 * turn * angle.cos()
        self.state = torch.stack([x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * spin,
                                  spin + 0.02 * turn], dim=1)
        done = (self.state[:, 0].abs() > 2.4) | (self.state[:, 2].abs() > 0.21)
        self.state[done] = 0.05 * torch.rand(int(done.sum()), 4)
        return self.state.clone(), torch.ones(ENVS), done.float()


def layer_init(layer, std=2 ** 0.5):
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, 0.0)
    return layer


class Agent(nn.Module):
    def __init__(self, hidden=32):
        super().__init__()
        self.critic = nn.Sequential(layer_init(nn.Linear(4, hidden)), nn.Tanh(),
                                    layer_init(nn.Linear(hidden, 1), std=1.0))
        self.actor = nn.Sequential(layer_init(nn.Linear(4, hidden)), nn.Tanh(),
                                   layer_init(nn.Linear(hidden, 2), std=0.01))

    def get_action_and_value(self, x, action=None):
        probs = Categorical(logits=self.actor(x))
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(x).squeeze(-1)


@torch.no_grad()
def rollout(agent, carts):
    """HORIZON steps of every cart, with advantages and returns, flat."""
    observed, actions, logprobs, values, rewards, dones = [], [], [], [], [], []
    x = carts.state.clone()
    for _ in range(HORIZON):
        action, logprob, _, value = agent.get_action_and_value(x)
        observed.append(x)
        actions.append(action)
        logprobs.append(logprob)
        values.append(value)
        x, reward, done = carts.step(action)
        rewards.append(reward)
        dones.append(done)
    following, carry = agent.critic(x).squeeze(-1), torch.zeros(ENVS)
    advantages = [None] * HORIZON
    for t in reversed(range(HORIZON)):
        alive = 1.0 - dones[t]
        delta = rewards[t] + GAMMA * following * alive - values[t]
        advantages[t] = carry = delta + GAMMA * LAMBDA * alive * carry
        following = values[t]
    advantages = torch.stack(advantages)
    parts = (torch.stack(observed), torch.stack(actions), torch.stack(logprobs), advantages,
             advantages + torch.stack(values))
    return [p.flatten(0, 1) for p in parts]


class Trainer:
    def __init__(self):
        self.agent = Agent()
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=2.5e-3, eps=1e-5)
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.2, ITERATIONS)
        self.updates = 0

    def update(self, x, action, old_logprob, advantage, returns):
        _, logprob, entropy, value = self.agent.get_action_and_value(x, action)
        log_ratio = logprob - old_logprob
        ratio = log_ratio.exp()
        with torch.no_grad():
            approx_kl = ((ratio - 1) - log_ratio).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        policy_loss = torch.max(-advantage * ratio,
                                -advantage * torch.clamp(ratio, 1 - CLIP, 1 + CLIP)).mean()
        value_loss = 0.5 * ((value - returns) ** 2).mean()
        loss = policy_loss - 0.01 * entropy.mean() + 0.5 * value_loss
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
        self.optimizer.step()
        self.updates += 1
        return loss, approx_kl


def main(compiled=False, checkpoint=None):
    torch.manual_seed(23)
    trainer, carts = Trainer(), Carts()
    if compiled:
        trainer.update = torch.compile(trainer.update)
    losses = []
    for _ in range(ITERATIONS):
        data = rollout(trainer.agent, carts)
        for _ in range(EPOCHS):
            order = torch.randperm(ENVS * HORIZON)
            for start in range(0, len(order), MINIBATCH):
                part = order[start:start + MINIBATCH]
                loss, approx_kl = trainer.update(*(d[part] for d in data))
                losses.append(loss.item())
            if approx_kl > TARGET_KL:
                break
        trainer.scheduler.step()
    losses.append(float(trainer.updates))
    if checkpoint is not None:
        torch.save({"model": trainer.agent.state_dict(), "carts": carts.state,
                    "optimizer": trainer.optimizer.state_dict()}, checkpoint)
    return losses
