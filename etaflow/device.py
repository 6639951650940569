"""The device a job computes on."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class DeviceError(RuntimeError):
    """A job was given a GPU that it cannot use."""


def visibility() -> str:
    """What the environment says of the devices that a process may see, for messages."""
    return f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')!r}"


def select_device(gpus: int) -> "torch.device":
    """The device for a job that was given `gpus` GPUs: CPU for 0, else the current CUDA device.

    Raises:
        DeviceError: a GPU was given and none can be seen; a job never falls back in silence.
    """
    import torch

    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"this job was given {gpus} GPU(s) but PyTorch {torch.__version__} sees none "
            f"({visibility()}). Check `nvidia-smi` and the driver, or set `gpu: 0` in the profile "
            "to run on the CPU."
        )
    return torch.device("cuda", torch.cuda.current_device())
