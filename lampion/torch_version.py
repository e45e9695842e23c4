"""The class of the version string."""

from .version import TorchVersion

__all__ = ["TorchVersion"]
