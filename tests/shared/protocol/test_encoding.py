"""bfloat16 as torch rounds it, payloads there and back, and what rounding drops is never lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_file_of_torch

from federation import SMALL_SPEC
from mammofed_shared.errors import PayloadError, Refused
from mammofed_shared.protocol import encoding
from mammofed_shared.protocol.encoding import (
    decode,
    encode,
    encoded_names,
    expected_tensors,
    from_bfloat16,
    to_bfloat16,
)
from mammofed_shared.protocol.payload import Payload, reference_of, write_payload
from mammofed_shared.protocol.plan import Encoding

NAMES = encoded_names(SMALL_SPEC, "delta")
Arrays = dict[str, NDArray[Any]]
any_bits = st.integers(0, 2**32 - 1)


def _arrays(seed: int, scale: float = 1.0) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "layer.weight": (scale * random.standard_normal((4, 3))).astype(np.float32),
        "norm.running_mean": random.standard_normal(4).astype(np.float32),
        "norm.num_batches_tracked": np.array(seed, np.int64),
    }


def _torch_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    return torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


# ── the rounding ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_upper_half_and_what_lies_between_rounds_as_torch_does() -> None:
    upper = np.arange(2**16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):  # exact, below, at and above the tie, just before the next
        values = (upper | np.uint32(lower)).view(np.float32)
        numbers = values[~np.isnan(values)]
        assert np.array_equal(to_bfloat16(numbers), _torch_bits(numbers))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(any_bits, min_size=1, max_size=64))
def test_any_number_rounds_as_torch_does_and_nan_stays_nan(bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    is_nan = np.isnan(values)
    rounded = to_bfloat16(values)
    assert np.array_equal(rounded[~is_nan], _torch_bits(values)[~is_nan])
    assert np.isnan(from_bfloat16(rounded)[is_nan]).all()


def test_what_bfloat16_can_say_comes_back_to_the_bit() -> None:
    every = np.arange(2**16, dtype=np.uint16)
    values = from_bfloat16(every)
    numbers = ~np.isnan(values)
    assert np.array_equal(to_bfloat16(values)[numbers], every[numbers])


def test_a_weight_keeps_eight_bits() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    error = np.abs(from_bfloat16(to_bfloat16(values)) - values) / np.abs(values)
    assert 2**-9 < error.max() <= 2**-8


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_alone_are_encoded_and_the_file_is_one_of_safetensors(tmp_path: Path) -> None:
    arrays = _arrays(1)
    write_payload(tmp_path / "whole", arrays)
    reference = encode(tmp_path / "whole", tmp_path / "sent", NAMES)
    assert reference == reference_of(tmp_path / "sent")
    with Payload(tmp_path / "sent") as sent:
        found = {name: (item.dtype, item.shape) for name, item in sent.entries.items()}
    assert found == expected_tensors(SMALL_SPEC, "bf16")
    assert {dtype for dtype, _ in found.values()} == {"BF16", "F32", "I64"}
    of_torch = load_file_of_torch(tmp_path / "sent")
    assert torch.equal(of_torch["layer.weight"], torch.from_numpy(arrays["layer.weight"]).to(torch.bfloat16))
    assert torch.equal(of_torch["norm.running_mean"], torch.from_numpy(arrays["norm.running_mean"]))


def test_whole_tensors_are_those_of_the_task() -> None:
    assert encoded_names(SMALL_SPEC, "fp32") == frozenset()
    assert {name: dtype for name, (dtype, _) in expected_tensors(SMALL_SPEC, "fp32").items()} == {
        name: item.dtype for name, item in SMALL_SPEC.tensors.items()
    }


@pytest.mark.parametrize("block", [1, 5, 2**18])
def test_a_difference_is_added_to_the_state_that_the_coordinator_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(encoding, "BLOCK_VALUES", block)
    master, trained = _arrays(1), _arrays(2)
    write_payload(tmp_path / "master", master)
    encode(tmp_path / "master", tmp_path / "delivered", NAMES)
    decode(tmp_path / "delivered", tmp_path / "received")
    received = load_file(tmp_path / "received")
    write_payload(tmp_path / "trained", trained)
    encode(tmp_path / "trained", tmp_path / "sent", NAMES, base=tmp_path / "received")
    reference = decode(tmp_path / "sent", tmp_path / "taken", base=tmp_path / "master")
    assert reference == reference_of(tmp_path / "taken")
    taken = load_file(tmp_path / "taken")
    difference = trained["layer.weight"] - received["layer.weight"]
    expected = master["layer.weight"] + torch.from_numpy(difference).to(torch.bfloat16).float().numpy()
    assert np.array_equal(taken["layer.weight"], expected)
    for name in ("norm.running_mean", "norm.num_batches_tracked"):
        assert np.array_equal(taken[name], trained[name]), "buffers and counters are the site's own, whole"


def test_nothing_trained_means_nothing_changed_however_the_state_was_rounded(tmp_path: Path) -> None:
    write_payload(tmp_path / "master", _arrays(1))
    encode(tmp_path / "master", tmp_path / "delivered", NAMES)
    decode(tmp_path / "delivered", tmp_path / "received")
    encode(tmp_path / "received", tmp_path / "sent", NAMES, base=tmp_path / "received")
    decode(tmp_path / "sent", tmp_path / "taken", base=tmp_path / "master")
    assert (tmp_path / "taken").read_bytes() == (tmp_path / "master").read_bytes()


def test_a_file_of_whole_tensors_comes_back_as_it_was(tmp_path: Path) -> None:
    write_payload(tmp_path / "whole", _arrays(1))
    encode(tmp_path / "whole", tmp_path / "sent", frozenset())
    decode(tmp_path / "sent", tmp_path / "back")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "sent").read_bytes() == (tmp_path / "back").read_bytes()


def test_what_rounding_dropped_is_what_is_missing(tmp_path: Path) -> None:
    arrays = _arrays(3)
    write_payload(tmp_path / "whole", arrays)
    encode(tmp_path / "whole", tmp_path / "sent", NAMES, keep_dropped=tmp_path / "dropped")
    decode(tmp_path / "sent", tmp_path / "back")
    dropped = load_file(tmp_path / "dropped")
    assert set(dropped) == set(NAMES)
    back = load_file(tmp_path / "back")["layer.weight"]
    assert np.array_equal(back + dropped["layer.weight"], arrays["layer.weight"]), "to the bit"
    assert dropped["layer.weight"].any()


@pytest.mark.parametrize("with_feedback", [True, False])
def test_small_steps_arrive_in_the_end_because_what_was_dropped_is_added_to_the_next(
    tmp_path: Path, with_feedback: bool
) -> None:
    """Many visits whose step is below what rounding can say: with error feedback their sum arrives, without it none."""
    state = {**_arrays(1), "layer.weight": np.ones((4, 3), np.float32)}
    step, visits = np.float32(2**-10), 64
    dropped = None
    for visit in range(visits):
        write_payload(tmp_path / "trained", {**state, "layer.weight": state["layer.weight"] + step})
        kept = tmp_path / f"dropped{visit}"
        encode(tmp_path / "trained", tmp_path / "sent", NAMES, dropped=dropped, keep_dropped=kept)
        decode(tmp_path / "sent", tmp_path / "state")
        state = load_file(tmp_path / "state")
        dropped = kept if with_feedback else None
    wanted = 1 + visits * float(step)
    reached = float(state["layer.weight"][0, 0])
    assert reached == pytest.approx(wanted, abs=2**-7) if with_feedback else reached == 1.0


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("trained", 1), ("base", 2)):
        write_payload(tmp_path / name, _arrays(seed))
    encode(tmp_path / "trained", tmp_path / "first", NAMES, keep_dropped=tmp_path / "dropped")
    twice = [
        encode(
            tmp_path / "trained",
            tmp_path / f"sent{number}",
            NAMES,
            base=tmp_path / "base",
            dropped=tmp_path / "dropped",
            keep_dropped=tmp_path / f"rest{number}",
        )
        for number in (1, 2)
    ]
    assert twice[0] == twice[1]
    assert (tmp_path / "rest1").read_bytes() == (tmp_path / "rest2").read_bytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max])
def test_what_is_not_finite_in_bfloat16_stays_visible(tmp_path: Path, value: float) -> None:
    arrays = _arrays(1)
    arrays["layer.weight"][0, 0] = value
    write_payload(tmp_path / "whole", arrays)
    encode(tmp_path / "whole", tmp_path / "sent", NAMES, keep_dropped=tmp_path / "dropped")
    with Payload(tmp_path / "sent") as sent:
        assert not np.isfinite(from_bfloat16(sent["layer.weight"])[0, 0])


def test_a_sum_beyond_float32_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    huge = {**_arrays(1), "layer.weight": np.full((4, 3), 3e38, np.float32)}
    write_payload(tmp_path / "master", huge)
    encode(tmp_path / "master", tmp_path / "sent", NAMES)
    with pytest.raises(Refused, match=r"NOT_FINITE: layer\.weight"):
        decode(tmp_path / "sent", tmp_path / "taken", base=tmp_path / "master")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master", "sent"]


@pytest.mark.parametrize("encoding_name", ["bf16", "delta"])
def test_a_state_of_another_model_is_no_base(tmp_path: Path, encoding_name: Encoding) -> None:
    write_payload(tmp_path / "whole", _arrays(1))
    write_payload(tmp_path / "other", {**_arrays(1), "layer.weight": np.zeros((3, 4), np.float32)})
    with pytest.raises(PayloadError, match=r"layer\.weight"):
        encode(tmp_path / "whole", tmp_path / "sent", encoded_names(SMALL_SPEC, encoding_name), base=tmp_path / "other")
    assert not (tmp_path / "sent").exists()
