"""Results of the references beside those of kernels."""

import lampion as torch
from lampion.debug.knobs import override


def both(run):
    """The results of a function of nothing by the references and by kernels."""
    results = []
    for mode in ("off", "sync"):
        torch.manual_seed(0)
        with override(kernels=mode):
            results.append(run())
    return results
