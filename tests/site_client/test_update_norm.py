"""How far an update may be from what came."""

from pathlib import Path

import numpy as np
import pytest

from federation import small_state
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import PayloadWriter, write_payload
from mammofed_site import update_norm as module
from mammofed_site.update_norm import check_norm, update_norm


def test_the_norm_is_over_all_that_is_trained_and_nothing_else(tmp_path: Path) -> None:
    small_state(tmp_path / "state", 1.0)
    small_state(tmp_path / "update", 3.0)  # 12 weights are 2 away; the running mean and the counter are no weights
    assert update_norm(tmp_path / "state", tmp_path / "update") == pytest.approx(np.sqrt(12 * 4))


def test_the_norm_is_the_same_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    before, after = (rng.normal(size=(37, 11)).astype(np.float32) for _ in range(2))
    write_payload(tmp_path / "state", {"weight": before, "bias": before[0]})
    write_payload(tmp_path / "update", {"weight": after, "bias": after[0]})
    monkeypatch.setattr(module, "_BLOCK", 10)
    both = [(after - before).ravel().astype(np.float64), (after - before)[0].astype(np.float64)]
    assert update_norm(tmp_path / "state", tmp_path / "update") == pytest.approx(np.linalg.norm(np.concatenate(both)))


def test_bfloat16_counts_by_its_value(tmp_path: Path) -> None:
    header = {"weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    with PayloadWriter(tmp_path / "state", header) as writer:
        writer.write(np.array([0x3F80, 0xC000], np.uint16))  # 1 and -2
    write_payload(tmp_path / "update", {"weight": np.array([4.0, 2.0], np.float32)})
    assert update_norm(tmp_path / "state", tmp_path / "update") == 5.0


def test_an_update_that_is_too_far_away_does_not_leave(tmp_path: Path) -> None:
    small_state(tmp_path / "state", 1.0)
    small_state(tmp_path / "update", 3.0)
    assert check_norm(PolicySettings(), tmp_path / "state", tmp_path / "update") is None
    assert check_norm(PolicySettings(largest_update_norm=7), tmp_path / "state", tmp_path / "update") is not None
    with pytest.raises(Refused, match=r"6\.928 away .* allows 6\.9") as caught:
        check_norm(PolicySettings(largest_update_norm=6.9), tmp_path / "state", tmp_path / "update")
    assert caught.value.code is RefusalCode.UPDATE_NORM


def test_a_norm_that_is_no_number_does_not_leave(tmp_path: Path) -> None:
    small_state(tmp_path / "state")
    small_state(tmp_path / "update", **{"layer.weight": np.full((4, 3), np.nan, np.float32)})
    with pytest.raises(Refused, match="UPDATE_NORM"):
        check_norm(PolicySettings(largest_update_norm=1e9), tmp_path / "state", tmp_path / "update")


@pytest.mark.parametrize(
    ("replaced", "code"),
    [
        ({"patients": np.zeros(3, np.float32)}, RefusalCode.TENSOR_NAMES),
        ({"layer.weight": np.zeros((5, 3), np.float32)}, RefusalCode.TENSOR_SHAPE),
    ],
)
def test_other_tensors_than_came_have_no_norm(tmp_path: Path, replaced: dict[str, object], code: RefusalCode) -> None:
    small_state(tmp_path / "state")
    small_state(tmp_path / "update", **replaced)
    with pytest.raises(Refused) as caught:
        update_norm(tmp_path / "state", tmp_path / "update")
    assert caught.value.code is code


def test_control_variates_do_not_count_for_an_update_brings_their_change(tmp_path: Path) -> None:
    small_state(tmp_path / "state", 1.0, **{"control/layer.weight": np.full((4, 3), 100.0, np.float32)})
    small_state(tmp_path / "update", 3.0, **{"control/layer.weight": np.zeros((4, 3), np.float32)})
    assert update_norm(tmp_path / "state", tmp_path / "update") == pytest.approx(np.sqrt(12 * 4))
