"""The sparse autoencoder: nested codes, their errors and gradients, and which neurons are heard."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from mammofed_shared.models.nested_codes import EVERY_LEVEL, keep_largest, turns_of
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

FEATURES, NEURONS = 12, 128
LEVELS = (2, 3, 16, 40, 128)
"""The first two are decoded neuron by neuron."""


def autoencoder(levels: tuple[int, ...] = LEVELS) -> SparseAutoencoder:
    torch.manual_seed(0)
    model = SparseAutoencoder(FEATURES, NEURONS, levels)
    with torch.no_grad():
        model.pre_bias.normal_()
        model.encoder_bias.normal_(std=0.1)
        model.decoder.mul_(torch.rand(NEURONS, 1) + 0.5)
    return model


def patches(count: int = 12) -> Tensor:
    return torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(1))


def figures(model: SparseAutoencoder, features: Tensor, *, in_turn: bool = False) -> tuple[Tensor, ...]:
    count = len(features)
    turns = (np.full(count, EVERY_LEVEL), np.ones(count, np.float32))
    if in_turn:
        turns = turns_of(count, len(model.wide_levels))
    return model(features, *map(torch.from_numpy, turns))[0].unbind(1)


def naive_errors(model: SparseAutoencoder, features: Tensor) -> Tensor:
    """Each level by itself, neuron by neuron, as the definition says."""
    rows = model.decoder / model.decoder.norm(dim=1, keepdim=True)
    code = torch.relu((features - model.pre_bias) @ model.encoder.T + model.encoder_bias)
    errors = []
    for level in model.levels:
        for sample, numbers in zip(features, code, strict=True):
            values = numbers.tolist()
            largest = sorted(range(NEURONS), key=lambda neuron: -values[neuron])[:level]
            given = model.pre_bias + sum(numbers[neuron] * rows[neuron] for neuron in largest)
            errors.append((sample - given).square().sum())
    return torch.stack(errors).view(len(model.levels), -1).T


def test_a_code_of_a_level_holds_that_many_of_the_largest_numbers_of_the_whole_code() -> None:
    code = torch.tensor([[0.5, 0.0, 2.0, 1.0], [0.0, 3.0, 0.0, 0.0]])

    assert keep_largest(code, 2).tolist() == [[0.0, 0.0, 2.0, 1.0], [0.0, 3.0, 0.0, 0.0]]
    assert torch.equal(keep_largest(code, 4), code)


def test_equal_numbers_do_not_make_a_code_longer() -> None:
    assert keep_largest(torch.ones(3, 50), 7).sum(dim=1).tolist() == [7.0, 7.0, 7.0]


def test_each_code_holds_those_of_lower_levels() -> None:
    code = autoencoder().encode(patches())

    for shorter, longer in pairwise(LEVELS):
        kept, further = keep_largest(code, shorter) > 0, keep_largest(code, longer) > 0
        assert bool((kept <= further).all())
        assert int(further.sum()) > int(kept.sum()) or longer > NEURONS // 2


def test_errors_are_those_of_the_definition() -> None:
    model = autoencoder()

    torch.testing.assert_close(model.errors(patches()), naive_errors(model, patches()), rtol=1e-5, atol=1e-5)


def test_reconstruction_has_the_error_that_is_told_of_it() -> None:
    model = autoencoder()

    given = model.decode(keep_largest(model.encode(patches()), 16))

    torch.testing.assert_close((patches() - given).square().sum(dim=1), model.errors(patches())[:, 2])


def test_training_minimises_the_mean_of_the_errors_and_sees_sum_and_length() -> None:
    model = autoencoder()

    error, total, power = figures(model, patches())

    torch.testing.assert_close(error, naive_errors(model, patches()).mean(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, model.encode(patches()).sum(dim=1))
    torch.testing.assert_close(power, patches().square().sum(dim=1))


@pytest.mark.parametrize("levels", [LEVELS, (2,), (40,), (128,)], ids=["both", "narrow", "wide", "whole"])
def test_gradients_are_those_of_the_definition(levels: tuple[int, ...]) -> None:
    model, naive = (autoencoder(levels) for _ in range(2))

    error, total, _ = figures(model, patches())
    (error + 0.1 * total).mean().backward()
    code = torch.relu((patches() - naive.pre_bias) @ naive.encoder.T + naive.encoder_bias)
    (naive_errors(naive, patches()).mean(dim=1) + 0.1 * code.sum(dim=1)).mean().backward()

    for (name, ours), wanted in zip(model.named_parameters(), naive.parameters(), strict=True):
        assert wanted.grad is not None
        assert float(wanted.grad.abs().max()) > 1e-3, name
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_turns_have_the_gradient_of_all_levels_in_the_mean() -> None:
    """Every sample has had every turn once the batch was rolled through all wide levels."""
    whole, turning = autoencoder(), autoencoder()
    num_wide = 3
    third = len(patches()) // num_wide
    assert turning.wide_levels == LEVELS[-num_wide:]

    figures(whole, patches())[0].mean().backward()
    one_turn = torch.autograd.grad(figures(turning, patches(), in_turn=True)[0].mean(), turning.decoder)[0]
    for turn in range(num_wide):
        (figures(turning, patches().roll(turn * third, dims=0), in_turn=True)[0].mean() / num_wide).backward()

    assert whole.decoder.grad is not None
    assert not torch.allclose(one_turn, whole.decoder.grad, rtol=1e-2)
    for (name, ours), wanted in zip(turning.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_turns_of_unequal_length_weigh_alike() -> None:
    alike = patches(1).expand(7, -1)
    assert turns_of(7, 3)[0].tolist() == [0, 0, 0, 1, 1, 2, 2]

    in_turn, whole = figures(autoencoder(), alike, in_turn=True), figures(autoencoder(), alike)

    torch.testing.assert_close(in_turn[0].mean(), whole[0].mean())


def test_a_step_in_chunks_has_the_turns_of_the_whole_step() -> None:
    model = autoencoder()
    turn, weight = map(torch.from_numpy, turns_of(12, 3))

    whole = model(patches(), turn, weight)[0]
    chunks = [model(*rows)[0] for rows in zip(patches().split(5), turn.split(5), weight.split(5), strict=True)]

    torch.testing.assert_close(torch.cat(chunks), whole)


def test_the_dictionary_has_unit_rows_whatever_the_decoder_is() -> None:
    model = autoencoder()

    assert float(model.decoder.detach().norm(dim=1).max()) > 1.2
    torch.testing.assert_close(model.dictionary.norm(dim=1), torch.ones(NEURONS))


def test_a_new_autoencoder_gives_random_features_back_in_the_mean() -> None:
    torch.manual_seed(0)
    features = torch.randn(64, 32)
    model = SparseAutoencoder(32, 1024, (1024,))

    given = model.decode(model.encode(features))

    assert float((given * features).sum() / features.square().sum()) == pytest.approx(1, abs=0.1)


def test_a_neuron_is_heard_when_it_fires_in_training_and_counts_silent_epochs_since() -> None:
    model = autoencoder()
    with torch.no_grad():
        model.encoder[5] = 0
        model.encoder_bias[5] = -1  # never fires
    fires = model.encode(patches()).amax(dim=0) > 0
    assert not fires.all() and fires.any()

    figures(model.eval(), patches())
    assert not model.fired.any()
    model.train().begin_epoch()
    for half in patches().split(6):
        figures(model, half)
        model.note_fired(model.fired)
    assert torch.equal(model.heard == 1, fires)
    assert not model.fired.any()
    for expected in ([0, -1], [-1, -2]):
        model.begin_epoch()
        assert sorted(set(model.heard.tolist()), reverse=True) == expected
        assert torch.equal(model.heard == expected[0], fires)


def test_heard_is_a_counter_that_travels() -> None:
    state = autoencoder().state_dict()

    assert state["heard"].dtype == torch.int64
    assert "fired" not in state
