"""Every name that popular programs use resolves, and the coverage page is true."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Names of tier 1 that are missing on purpose, and why.
GAPS: dict[str, str] = {}

# Names with an underscore, and second spellings, that programs use too.
ALSO = [
    "torch.__version__", "torch.optim.lr_scheduler._LRScheduler",
    "torch.utils._pytree.tree_flatten", "torch.utils._pytree.tree_unflatten",
    "torch.utils._pytree.tree_map", "torch.utils._pytree.tree_map_only",
    "torch.utils._pytree.register_pytree_node", "torch._assert", "torch._check",
    "torch.nn.init._calculate_fan_in_and_fan_out", "torch.nn.modules.batchnorm._BatchNorm",
    "torch.nn.modules.instancenorm._InstanceNorm", "torch.nn.modules.loss._Loss",
    "torch.nn.modules.utils._pair", "torch.nn.modules.module._IncompatibleKeys",
    "torch._foreach_add_", "torch._foreach_mul_", "torch._foreach_norm", "torch._utils",
    "torch.nn.modules.Linear", "torch.nn.modules.conv.Conv2d", "torch.functional.einsum",
    "torch.nn.modules.activation.ReLU", "torch.utils.data.dataset.Dataset",
    "torch.utils.data.dataset.random_split", "torch.utils.data.dataloader.default_collate",
    "torch.utils.data.sampler.Sampler", "torch.utils.data._utils.collate.default_collate",
    "torch.optim.optimizer.Optimizer", "torch.optim.adam.Adam", "torch.optim.sgd.SGD",
    "torch.optim.adamw.AdamW", "torch.autograd.function.Function",
    "torch.autograd.function.once_differentiable", "torch.autograd.grad_mode.no_grad",
    "torch.autograd.profiler.record_function", "torch.autograd.Variable",
    "torch.autograd.variable.Variable", "torch.cuda.amp.autocast",
    "torch.cuda.amp.grad_scaler.GradScaler", "torch.amp.autocast_mode.autocast",
    "torch.nn.utils.clip_grad.clip_grad_norm_",
    "torch.nn.utils.stateless.functional_call", "torch._tensor.Tensor",
    "torch.hub._get_torch_home", "torch.torch_version.TorchVersion",
]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_coverage", ROOT / "docs/make_coverage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


coverage = _load()
TIERS = json.loads(coverage.NAMES.read_text())


@pytest.mark.parametrize("name", [n for n in TIERS["1"] if n not in GAPS] + ALSO)
def test_name_exists(name: str) -> None:
    assert coverage.exists(name), f"lampion has no {name}"


def test_expected_gaps_are_gaps() -> None:
    assert not [name for name in GAPS if coverage.exists(name)], "filled: take it off the list"
    assert GAPS.keys() <= set(TIERS["1"])


def test_missing_names_say_so() -> None:
    with pytest.raises(AttributeError, match=r"lampion has no torch.foo.bar"):
        coverage.resolve("torch.foo.bar")
    assert not coverage.exists("torch.nn.Linear.no_such_member")
    assert coverage.exists("torch.optim.Optimizer.param_groups")


def test_coverage_page_is_current() -> None:
    assert coverage.PAGE.read_text() == coverage.page(), "run: python docs/make_coverage.py"
