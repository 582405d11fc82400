"""Gaussian noise that nobody can guess or draw again without the key: AES-256 in counter mode, then Box–Muller.

numpy's and torch's generators are no secret: who sees some of their output can compute the rest. Here one key gives one
endless stream, the same at each call, and nothing is known of it without the key.

The noise is a Gaussian in 64-bit floating-point numbers, not an exact one. Which of them occur hangs on their last
bits, from which the noise-free value can be told (Mironov 2012, *On Significance of the Least Significant Bits for
Differential Privacy*). Therefore what carries noise is rounded to a grid much coarser than those bits (``on_grid``).
"""

import hashlib
import hmac
import json
import math

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32
ANGLE_MASK, ANGLE_UNIT = 2**53 - 1, 2.0**-53
RADIUS_MASK, RADIUS_UNIT = 2**63 - 1, 2.0**-63
"""Bits of a word that make a number, and what they are multiplied by."""
_GRID_BITS = 20


def subkey(key: bytes, *labels: str | int) -> bytes:
    """A key for one purpose, 32 bytes; other labels give another one, and none tells of another (HMAC-SHA256)."""
    return hmac.digest(key, json.dumps(labels).encode(), hashlib.sha256)


class NoiseStream:
    """Random numbers out of a key, one after the other. A key serves one stream."""

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> NDArray[np.int64]:
        """So many uniform 64-bit words, in memory that may be written to."""
        filled = bytearray(8 * count + 15)  # the cipher asks for room for one block more
        self._encryptor.update_into(bytes(8 * count), filled)
        return np.frombuffer(filled, "<i8", count)

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """So many numbers, uniform over the multiples of 2⁻⁵³ in [0, 1)."""
        return (self.words(count) >> 11 & ANGLE_MASK).astype(np.float64) * ANGLE_UNIT

    def normals(self, count: int) -> NDArray[np.float64]:
        """So many independent numbers of a standard normal distribution.

        Radii come of 63 bits, so they reach 9.4, beyond which 10⁻²⁰ of the distribution lies.
        """
        half = -(-count // 2)
        words = self.words(2 * half)
        radius = np.sqrt(-2.0 * np.log(((words[:half] >> 1 & RADIUS_MASK) + 0.5) * RADIUS_UNIT))
        angle = (words[half:] >> 11 & ANGLE_MASK) * (2.0 * np.pi * ANGLE_UNIT)
        both = np.empty(2 * half)
        np.multiply(radius, np.cos(angle), out=both[:half])
        np.multiply(radius, np.sin(angle), out=both[half:])
        return both[:count]


def grid_of(deviation: float) -> float:
    """Distance of the values that noise of a standard deviation is rounded to: a power of 2, a millionth of it."""
    return math.ldexp(1.0, math.frexp(deviation)[1] - 1 - _GRID_BITS)


def on_grid(values: NDArray[np.float64], grid: float) -> NDArray[np.float64]:
    """Values, rounded to multiples of the grid."""
    return np.rint(values / grid) * grid
