"""Write ``spellings.json`` from PyTorch: inner modules from which programs import public names.

Run by hand: it needs torch.
"""

import importlib
import json
from pathlib import Path

PLACES = ("torch.nn", "torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils",
          "torch.utils.data", "torch.autograd", "torch.autograd.functional", "torch.nn.utils",
          "torch.nn.utils.rnn", "torch.nn.utils.parametrize", "torch.nn.utils.parametrizations",
          "torch.amp", "torch.utils.checkpoint",
          "torch.autograd.graph", "torch.nn.attention")
# Old or rare, and not in lampion.
SKIPPED = {"torch.utils.data.datapipes.datapipe", "torch.nn.utils.init",
           "torch.nn.modules.linear_cross_entropy_options", "torch.nn.parallel.parallel_apply",
           "torch.nn.parallel.replicate", "torch.nn.parallel.scatter_gather"}
SKIPPED_NAMES = {"enforce_grad_layout_policy", "set_multithreading_enabled",
                 "LinearCrossEntropyLoss"}
ALSO = {
    "torch.nn.modules": ["Linear", "Module", "Sequential", "Conv2d", "CrossEntropyLoss"],
    "torch.nn.modules.batchnorm": ["_BatchNorm"], "torch.nn.modules.loss": ["_Loss"],
    "torch.nn.modules.utils": ["_pair", "_single", "_triple"],
    "torch.nn.modules.conv": ["_ConvNd"], "torch.nn.modules.dropout": ["_DropoutNd"],
    "torch.optim.lr_scheduler": ["_LRScheduler", "LRScheduler"],
    "torch.optim.optimizer": ["Optimizer", "required"],
    "torch.nn.init": ["_calculate_fan_in_and_fan_out", "_calculate_correct_fan"],
    "torch.utils._pytree": ["tree_map", "tree_flatten", "tree_unflatten"],
    "torch.utils.data.sampler": ["Sampler"], "torch.utils.data._utils.collate": ["default_collate"],
    "torch.utils.data.dataloader": ["default_collate", "_BaseDataLoaderIter"],
    "torch.functional": ["einsum", "norm", "split"], "torch.random": ["fork_rng", "manual_seed"],
    "torch.serialization": ["load", "save"], "torch.types": ["Number", "Device"],
    "torch.autograd.function": ["Function", "once_differentiable", "FunctionCtx"],
    "torch.autograd.variable": ["Variable"], "torch.autograd.grad_mode": ["no_grad"],
    "torch.utils.hooks": ["RemovableHandle"], "torch.hub": ["load_state_dict_from_url"],
    "torch.utils.model_zoo": ["load_url"], "torch.nn.common_types": ["_size_2_t"],
    "torch.nn.parameter": ["Parameter", "Buffer", "UninitializedParameter"],
}


def main():
    found = {place: set(names) for place, names in ALSO.items()}
    for place in PLACES:
        module = importlib.import_module(place)
        for name in dir(module):
            home = getattr(getattr(module, name), "__module__", None) or ""
            if name[0] != "_" and home.startswith(place + ".") and "._" not in home:
                found.setdefault(home, set()).add(name)
    checked = {}
    for place in sorted(found.keys() - SKIPPED):
        names = found[place] - SKIPPED_NAMES
        module = importlib.import_module(place)
        checked[place] = sorted(n for n in names if hasattr(module, n))
    path = Path(__file__).with_name("spellings.json")
    path.write_text(json.dumps(checked, indent=0) + "\n")


if __name__ == "__main__":
    main()
