"""Where a local command of this site computes: as the site's YAML says, or the GPU where there is one."""

import torch

from mammofed_shared.errors import ConfigurationError


def device_of(name: str) -> torch.device:
    """The device of ``worker.device``: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: the device is not there.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigurationError("worker.device is cuda, and torch finds no GPU here: set it to auto or cpu")
    return torch.device(name if name != "auto" else "cuda" if has_gpu else "cpu")
