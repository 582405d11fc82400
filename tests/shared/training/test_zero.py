"""Hardware of every kind holds, moves and gives back the same full-precision state."""

from pathlib import Path

import numpy as np
import pytest

from mammofed_shared.models.dual_encoder import LARGEST_LOG_SCALE
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.training.hardware import Distribution, Hardware
from worker_groups import in_group, small_model, steps

ZERO: tuple[Distribution, ...] = ("zero-1", "zero-2", "zero-3")
ALONE = Hardware(threads=1)


@pytest.mark.parametrize("distribution", ["ddp", *ZERO])
def test_a_state_goes_through_a_group_to_the_bit_and_trains_as_on_one_process(
    tmp_path: Path, distribution: Distribution
) -> None:
    began = tmp_path / "began"
    began.mkdir()
    steps(ALONE, 8, 1, str(began), None)
    kept = began / "moments.safetensors"
    (tmp_path / "alone").mkdir()
    alone = steps(ALONE, 8, 2, str(tmp_path / "alone"), str(kept))
    hardware = Hardware(threads=1, distribution=distribution, num_processes=2, micro_batch=2)

    found = in_group(hardware, tmp_path, "steps", 8, 2, str(tmp_path), str(kept))

    own = {name: tensor.numpy() for name, tensor in small_model("frozen").state_dict().items()}
    for rank in found:
        assert rank["before"].keys() == own.keys()
        assert all(np.array_equal(rank["before"][name], own[name]) for name in own)
        assert rank["num_steps"] == 3 == alone["num_steps"]
        assert rank["norms"] == pytest.approx(alone["norms"], rel=1e-4)
        for name, array in alone["after"].items():
            assert rank["after"][name].shape == array.shape
            np.testing.assert_allclose(rank["after"][name], array, rtol=2e-4, atol=2e-5)
    with Payload(tmp_path / "moments.safetensors") as together, Payload(tmp_path / "alone/moments.safetensors") as one:
        assert set(together) == set(one)
        assert together.numbers == one.numbers == {"steps": 3.0}
        for name in one:
            np.testing.assert_allclose(together[name], one[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("distribution", ["zero-2", "zero-3"])
def test_moments_go_through_a_group_to_the_bit(tmp_path: Path, distribution: Distribution) -> None:
    steps(ALONE, 8, 1, str(tmp_path), None)
    kept = tmp_path / "kept.safetensors"
    (tmp_path / "moments.safetensors").rename(kept)
    hardware = Hardware(threads=1, distribution=distribution, num_processes=2)

    in_group(hardware, tmp_path, "steps", 8, 0, str(tmp_path), str(kept))

    assert (tmp_path / "moments.safetensors").read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("distribution", ["zero-1", "zero-3"])
def test_what_leaves_holds_the_clamp_of_the_temperature(tmp_path: Path, distribution: Distribution) -> None:
    hardware = Hardware(threads=1, distribution=distribution, num_processes=1 if distribution == "zero-1" else 2)
    largest = np.float32(LARGEST_LOG_SCALE)

    found = in_group(hardware, tmp_path, "steps", 8, 2, str(tmp_path), None, float(largest) + 0.5)

    for rank in found:
        assert rank["before"]["log_scale"] > largest
        assert rank["after"]["log_scale"] <= largest


def test_zero_computes_in_the_precision_of_the_run_where_deepspeed_would_switch_it_off(tmp_path: Path) -> None:
    hardware = Hardware(threads=1, distribution="zero-2", num_processes=1)

    assert in_group(hardware, tmp_path, "dtypes_on_a_gpu") == [["torch.bfloat16"]]
