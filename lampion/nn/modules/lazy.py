"""Modules that take sizes from their first input."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from ..parameter import is_lazy

__all__ = ["LazyModuleMixin"]

if TYPE_CHECKING:
    from .module import Module as _Base
else:
    _Base = object


class LazyModuleMixin(_Base):
    """Mixed in before a module class: parameters wait for `initialize_parameters(input)`.

    The first call materialises them; then the module becomes an instance of `cls_to_become`.
    """

    cls_to_become: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._load_hook = self._register_load_state_dict_pre_hook(self._lazy_load_hook)
        self._initialize_hook = self.register_forward_pre_hook(
            self._infer_parameters, with_kwargs=True
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for name, param in self._parameters.items():
            if param is not None:
                kept = param if is_lazy(param) or keep_vars else param.detach()
                destination[prefix + name] = kept
        for name, buffer in self._buffers.items():
            if buffer is not None and name not in self._non_persistent_buffers_set:
                kept = buffer if is_lazy(buffer) or keep_vars else buffer.detach()
                destination[prefix + name] = kept

    def _lazy_load_hook(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """A state dict with sizes gives them to parameters that have none."""
        for name, param in itertools.chain(self._parameters.items(), self._buffers.items()):
            key = prefix + name
            if key in state_dict and param is not None and is_lazy(param):
                given = state_dict[key]
                if not is_lazy(given):
                    param.materialize(given.shape)  # type: ignore[union-attr]

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Give every parameter its shape; called with the arguments of the first forward."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )

    def has_uninitialized_params(self) -> bool:
        """Whether any parameter or buffer has no shape yet."""
        return any(is_lazy(t) for t in itertools.chain(
            self._parameters.values(), self._buffers.values()
        ))

    def _infer_parameters(self, module: Any, args: Any, kwargs: Any = None) -> None:
        module.initialize_parameters(*args, **(kwargs or {}))
        if module.has_uninitialized_params():
            raise RuntimeError(
                f"module {self._get_name()} has not been fully initialized: its "
                "initialize_parameters left parameters without a shape"
            )
        module._initialize_hook.remove()
        module._load_hook.remove()
        del module._initialize_hook, module._load_hook
        if module.cls_to_become is not None:
            module.__class__ = module.cls_to_become

    def _replicate_for_data_parallel(self) -> Any:
        raise RuntimeError(
            "Modules with uninitialized parameters can't be used with `DataParallel`. Run a dummy "
            "forward pass to correctly initialize the modules"
        )
