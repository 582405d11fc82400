"""Noise out of a key: normal, secret, the same on every device, on a grid."""

import numpy as np
import pytest
import torch
from scipy import stats

from mammofed_shared.noise import NoiseStream, grid_of, on_grid, subkey
from mammofed_shared.training.private_step import add_noise, normals

KEY = bytes(range(32))


def test_noise_is_normal_and_its_neighbours_are_independent() -> None:
    drawn = NoiseStream(KEY).normals(200_001)

    assert drawn.shape == (200_001,)
    assert stats.kstest(drawn, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01
    half = len(drawn) // 2
    assert abs(np.corrcoef(drawn[:half], drawn[half + 1 :])[0, 1]) < 0.01, "both numbers of a pair"


def test_uniform_numbers_fill_the_unit_interval() -> None:
    drawn = NoiseStream(KEY).uniforms(100_000)

    assert drawn.min() >= 0 and drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_a_key_gives_one_stream_that_goes_on_and_another_key_another() -> None:
    stream = NoiseStream(KEY)
    first, second = stream.words(5), stream.words(7)

    assert np.array_equal(np.concatenate([first, second]), NoiseStream(KEY).words(12))
    assert not np.intersect1d(NoiseStream(KEY).words(1000), NoiseStream(bytes(32)).words(1000)).size


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A has no vector that begins at counter 0; FIPS 197's appendix of AES-256 is one block of it."""
    zeros = NoiseStream(bytes(32)).words(2).tobytes()
    assert zeros.hex() == "dc95c078a2408989ad48a21492842087", "AES-256 of a block of zeros under a key of zeros"


def test_keys_for_other_purposes_differ_and_labels_do_not_run_together() -> None:
    keys = {subkey(KEY, *labels) for labels in [("a", "b"), ("ab",), ("a", "b", ""), ("a", 1), ("a", "1"), ()]}

    assert len(keys) == 6 and KEY not in keys and all(len(key) == 32 for key in keys)
    assert subkey(KEY, "a", "b") == subkey(KEY, "a", "b") != subkey(bytes(32), "a", "b")


def test_torch_and_numpy_make_the_same_noise_of_a_key() -> None:
    expected = NoiseStream(KEY).normals(10_001)
    np.testing.assert_allclose(normals(NoiseStream(KEY), 10_001, torch.device("cpu")).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("deviation", [3e-4, 1.0, 0.7, 250.0])
def test_what_carries_noise_lies_on_a_grid_that_is_a_millionth_of_it(deviation: float) -> None:
    grid = grid_of(deviation)
    assert 2.0**-21 <= grid / deviation <= 2.0**-20
    values = torch.full((40_000,), 0.1)
    add_noise(values, deviation, NoiseStream(KEY))
    steps = values.double().numpy() / grid
    # A float32 that is much larger than the deviation is coarser than the grid.
    assert np.array_equal(steps, np.rint(steps))
    assert np.array_equal(on_grid(steps * grid + 0.3 * grid, grid), steps * grid)
    assert (values - 0.1).std() == pytest.approx(deviation, rel=0.02)
