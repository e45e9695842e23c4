"""Write ``recorded_loss_curves.json`` from PyTorch. Run by hand: it needs torch."""

import json
from pathlib import Path

import torch
import torch.utils.data
from training import TRAININGS

if __name__ == "__main__":
    torch.set_num_threads(1)
    curves = {name: train(torch) for name, train in TRAININGS.items()}
    path = Path(__file__).with_name("recorded_loss_curves.json")
    path.write_text(json.dumps(curves, indent=0) + "\n")
