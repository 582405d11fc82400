"""The Matryoshka sparse autoencoder that turns a patch's features into a few named neurons (paper, Interpreting the
risk using SAE).

A code has one number, at least 0, for each neuron; of its nested codes, that of level k keeps the k largest numbers.
All of them are decoded by the same dictionary and shall all give back the features, so that a short code says the most
important and a longer one adds detail (Zaigrajew, Baniecki, Biecek 2025, *Interpreting CLIP with Hierarchical Sparse
Autoencoders*, section 3).

Shapes: B samples, F features, N neurons, K kept neurons, L levels.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from mammofed_shared.models.nested_codes import UnitRows, WideErrors, keep_largest, narrow_errors, parts_of

_NARROW_FROM = 32
"""A level that keeps less than one neuron of so many is decoded neuron by neuron, a wider one by a product of whole
matrices. Measured at 1 in 64: 0.2 of the product's time; at 1 in 16: 0.6 of it, and its gradients 1.5 of theirs."""


class SparseAutoencoder(nn.Module):
    """Encoder, dictionary and a bias that is taken off before and put on after.

    The dictionary's rows are the decoder's at unit length, so that a neuron's number is the length of what it adds,
    and a mean of several sites' decoders is a dictionary again.

    ``heard`` (N,) says when each neuron fired last: 1 in the epoch in hand, 0 in the one before, −n when n epochs have
    passed without. It travels as a counter of which the largest is kept: where several sites' updates meet, a neuron
    has been silent for as long as at the site that heard it last. So no site can call a neuron dead that another uses.

    Args:
        levels: rising numbers of kept neurons, the last at most ``num_neurons``.
    """

    heard: Tensor
    fired: Tensor

    def __init__(self, num_features: int, num_neurons: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        num_narrow = sum(level * _NARROW_FROM < num_neurons for level in levels)
        self._narrow, self.wide_levels = self.levels[:num_narrow], self.levels[num_narrow:]
        self.decoder = nn.Parameter(F.normalize(torch.randn(num_neurons, num_features), dim=1))
        # So long that the whole code of random features gives them back in the mean: half of the neurons fire, each
        # with the share of the features' power that one direction has.
        self.encoder = nn.Parameter(self.decoder.detach() * min(2 * num_features / num_neurons, 1.0))
        self.encoder_bias = nn.Parameter(torch.zeros(num_neurons))
        self.pre_bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("heard", torch.ones(num_neurons, dtype=torch.int64))
        self.register_buffer("fired", torch.zeros(num_neurons, dtype=torch.bool), persistent=False)

    @property
    def dictionary(self) -> Tensor:
        """What each neuron adds to the features, (N, F), unit rows."""
        return cast(Tensor, UnitRows.apply(self.decoder))

    @torch.no_grad()
    def encode(self, features_BF: Tensor) -> Tensor:
        """The whole code (B, N); at least 0. Without gradient, as all but ``forward``."""
        return F.relu(F.linear(features_BF, self.encoder, self._offset()))

    @torch.no_grad()
    def decode(self, code_BN: Tensor) -> Tensor:
        """Features (B, F) of a code."""
        return code_BN @ self.dictionary + self.pre_bias

    @torch.no_grad()
    def errors(self, features_BF: Tensor) -> Tensor:
        """Squared error of every sample at every level, (B, L)."""
        code_BN, dictionary_NF = self.encode(features_BF), self.dictionary
        wanted_BF = features_BF - self.pre_bias
        return torch.stack(
            [(wanted_BF - keep_largest(code_BN, level) @ dictionary_NF).square().sum(dim=1) for level in self.levels],
            dim=1,
        )

    def forward(self, features_BF: Tensor, turn_B: Tensor, weight_B: Tensor) -> tuple[Tensor]:
        """What the loss needs of each sample, (B, 3).

        The squared error, as the mean over the levels; the code's sum (ℓ1); the squared length of the features. In
        training, ``fired`` notes which neurons fire.

        Args:
            turn_B: the number, among ``wide_levels``, of the level that a sample is trained at, or ``EVERY_LEVEL``.
                Every one of these takes products of whole matrices; in turns all cost as much as one.
            weight_B: what a sample's error at these levels counts (``nested_codes.turns_of``).
        """
        dictionary_NF = self.dictionary
        parts = parts_of(turn_B, self.wide_levels)
        num_kept = self._narrow[-1] if self._narrow else 0
        error_B, sum_B, largest_BK, neurons_BK, fired_N = WideErrors.apply(
            features_BF, self.encoder, self._offset(), dictionary_NF, self.pre_bias, weight_B, parts, num_kept
        )
        if self._narrow:
            wanted_BF = features_BF - self.pre_bias
            error_B = error_B + narrow_errors(wanted_BF, largest_BK, neurons_BK, dictionary_NF, self._narrow)
        if self.training:
            self.fired |= fired_N
        return (torch.stack([error_B / len(self.levels), sum_B, features_BF.square().sum(dim=1)], dim=1),)

    def _offset(self) -> Tensor:
        """The bias is taken off the products, not off the features: its gradient then needs no product of its own."""
        return self.encoder_bias - self.encoder @ self.pre_bias

    @torch.no_grad()
    def note_fired(self, fired_N: Tensor) -> None:
        """Say which neurons fired in a step, at any process, and forget what ``fired`` noted."""
        self.heard[fired_N] = 1
        self.fired.zero_()

    @torch.no_grad()
    def begin_epoch(self) -> None:
        """Count an epoch that has passed."""
        self.heard.copy_(torch.where(self.heard == 1, 0, self.heard - 1))
