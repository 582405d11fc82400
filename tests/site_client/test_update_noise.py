"""Clipping and noise on update files: the norm that is left, the noise that is there, memory that stays flat."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload, reference_of, write_payload
from mammofed_shared.protocol.task_spec import CONTROL
from mammofed_site.update_noise import measured_norm, write_clipped, write_noised

KEY = bytes(range(32))
IN_A_FRESH_PROCESS = """
import resource, sys
from pathlib import Path
from mammofed_site.update_noise import measured_norm, write_noised

folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
norm = measured_norm(folder / "update", folder / "state")
write_noised(
    folder / "update", folder / "state", folder / "out", norm=norm, clip_norm=1.0, noise_multiplier=1.0, key=bytes(32)
)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
ROOM = np.random.default_rng(0)
BEFORE: dict[str, NDArray[Any]] = {
    "weight": ROOM.normal(size=(300, 500)).astype(np.float32),
    "scale": np.ones(1, np.float64),
    "norm.running_var": np.ones(8, np.float32),
    "norm.num_batches_tracked": np.array(5, np.int64),
}


def moved(length: float) -> dict[str, NDArray[Any]]:
    """``BEFORE``, but its weight moved by a vector of that length, and one step counted."""
    step = ROOM.normal(size=(300, 500))
    return BEFORE | {
        "weight": (BEFORE["weight"] + length * step / np.linalg.norm(step)).astype(np.float32),
        "norm.num_batches_tracked": np.array(9, np.int64),
    }


class Files(NamedTuple):
    """The three files of a filter."""

    update: Path
    state: Path
    out: Path


def files(folder: Path, update: dict[str, NDArray[Any]]) -> Files:
    write_payload(folder / "state", BEFORE)
    write_payload(folder / "update", update)
    return Files(folder / "update", folder / "state", folder / "out")


def clip(folder: Path, clip_norm: float) -> None:
    update, state, out = (folder / name for name in ("update", "state", "out"))
    write_clipped(update, state, out, norm=measured_norm(update, state), clip_norm=clip_norm)


def noise(folder: Path, clip_norm: float, multiplier: float, key: bytes = KEY, out: str = "out") -> None:
    update, state = folder / "update", folder / "state"
    norm = measured_norm(update, state, are_statistics_frozen=True)
    write_noised(update, state, folder / out, norm=norm, clip_norm=clip_norm, noise_multiplier=multiplier, key=key)


def difference(out: Path, names: tuple[str, ...] = ("weight", "scale")) -> NDArray[np.float64]:
    with Payload(out) as payload:
        return np.concatenate([(payload[name].astype(np.float64) - BEFORE[name]).reshape(-1) for name in names])


def test_a_long_update_is_shortened_to_the_norm_and_keeps_its_direction(tmp_path: Path) -> None:
    at = files(tmp_path, moved(8.0))

    clip(tmp_path, 2.0)

    assert np.linalg.norm(difference(at.out)) == pytest.approx(2.0, rel=1e-5)
    np.testing.assert_allclose(difference(at.out), difference(at.update) / 4, atol=5e-7)
    with Payload(at.out) as payload, Payload(at.update) as given:
        assert payload.entries == given.entries
        assert payload["norm.num_batches_tracked"] == 9, "counters stay"


def test_a_short_update_stays_as_it_is_to_the_bit(tmp_path: Path) -> None:
    at = files(tmp_path, moved(1.9))

    clip(tmp_path, 2.0)

    assert reference_of(at.out) == reference_of(at.update)


def test_all_floating_point_tensors_are_clipped_together(tmp_path: Path) -> None:
    at = files(tmp_path, moved(3.0) | {"scale": np.array([5.0])})

    clip(tmp_path, 1.0)

    assert np.linalg.norm(difference(at.out)) == pytest.approx(1.0, rel=1e-5)
    assert difference(at.out, ("scale",))[0] == pytest.approx(4 / 5)


def test_noise_has_the_standard_deviation_that_was_asked_for_on_every_value(tmp_path: Path) -> None:
    at = files(tmp_path, moved(8.0))

    noise(tmp_path, 2.0, 1.5)

    drawn = difference(at.out) - difference(at.update) / 4
    assert drawn.std() == pytest.approx(3.0, rel=0.01) and abs(drawn.mean()) < 0.03
    assert drawn[-1] != 0, "the one value of another tensor has noise, too"
    with Payload(at.out) as payload:
        assert np.array_equal(payload["norm.running_var"], BEFORE["norm.running_var"]), "frozen, so of no data"


def test_the_same_key_gives_the_same_file_and_another_key_another(tmp_path: Path) -> None:
    files(tmp_path, moved(1.0))
    made = []
    for name, key in (("one", KEY), ("again", KEY), ("other", bytes(32))):
        noise(tmp_path, 1.0, 1.0, key, name)
        made.append(difference(tmp_path / name))

    assert np.array_equal(made[0], made[1])
    assert abs(np.corrcoef(made[0], made[2])[0, 1]) < 0.02


def test_statistics_of_batch_norm_that_move_are_refused_under_noise(tmp_path: Path) -> None:
    at = files(tmp_path, moved(1.0) | {"norm.running_var": np.full(8, 1.1, np.float32)})

    with pytest.raises(Refused, match="has moved") as refused:
        noise(tmp_path, 1.0, 1.0)
    assert refused.value.code is RefusalCode.POLICY and not at.out.exists()


def test_control_variates_do_not_leave_beside_what_is_clipped(tmp_path: Path) -> None:
    at = files(tmp_path, moved(1.0))
    for path in (at.update, at.state):
        with Payload(path) as payload:
            tensors = {name: payload[name].copy() for name in payload}
        write_payload(path, tensors | {f"{CONTROL}weight": np.zeros(3, np.float32)})

    with pytest.raises(Refused, match="control variates") as refused:
        clip(tmp_path, 1.0)
    assert refused.value.code is RefusalCode.POLICY and not at.out.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_refused_before_a_byte_is_written(tmp_path: Path, value: float) -> None:
    at = files(tmp_path, moved(1.0) | {"scale": np.array([value])})

    with pytest.raises(Refused) as refused:
        clip(tmp_path, 1.0)
    assert refused.value.code is RefusalCode.NOT_FINITE and not at.out.exists()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"extra": np.zeros(1, np.float32)}, RefusalCode.TENSOR_NAMES),
        ({"scale": np.ones(2, np.float64)}, RefusalCode.TENSOR_SHAPE),
        ({"scale": np.ones(1, np.float32)}, RefusalCode.TENSOR_DTYPE),
    ],
)
def test_a_tensor_that_the_state_has_not_is_refused(
    tmp_path: Path, changed: dict[str, NDArray[Any]], code: RefusalCode
) -> None:
    files(tmp_path, moved(1.0) | changed)

    with pytest.raises(Refused) as refused:
        noise(tmp_path, 1.0, 1.0)
    assert refused.value.code is code


def test_a_large_update_takes_no_memory_of_its_size(tmp_path: Path) -> None:
    large = np.zeros(2**24, np.float32)
    write_payload(tmp_path / "state", {"weight": large})
    write_payload(tmp_path / "update", {"weight": large + np.float32(1e-3)})

    said = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert float(said.stdout) < 48, "MB above what it takes at rest; both files have 67 MB"
