"""Choose the device."""

import torch

_KINDS = {"cpu": "CPU", "cuda": "CUDA GPU", "mps": "Apple GPU", "xpu": "Intel GPU"}


def pick_device(name: str = "auto") -> torch.device:
    """Resolve ``auto`` to a GPU if there is one, or check that the named device can be used.

    Raises:
        ValueError: the device is unknown or not present.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if kind not in _KINDS:
        raise ValueError(f"unknown device '{name}'; use auto, cpu, cuda, cuda:N, mps or xpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(
            f"device '{name}' is not available: this torch sees no {_KINDS[kind]} for it; "
            "use --device cpu or auto"
        ) from None
    return device
