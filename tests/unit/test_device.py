import pytest
import torch

from etaflow.device import DeviceError, select_device


def test_a_job_without_a_gpu_computes_on_the_cpu() -> None:
    assert select_device(0) == torch.device("cpu")


def test_a_job_that_was_given_a_gpu_and_sees_none_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(DeviceError, match=r"given 1 GPU.*CUDA_VISIBLE_DEVICES='3'.*set `gpu: 0`"):
        select_device(1)
