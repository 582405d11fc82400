"""The losses of the sparse autoencoder, by hand."""

import pytest
import torch

from mammofed_shared.losses.sparsity import explained_variance, sparsity_loss

ERROR, SUM, POWER = torch.tensor([4.0, 1.0]), torch.tensor([10.0, 0.0]), torch.tensor([8.0, 0.5])


def test_paper_adds_the_weighted_sum_of_the_code_to_the_squared_error() -> None:
    assert sparsity_loss(ERROR, SUM, POWER, variant="paper", l1_weight=0.5).tolist() == [9.0, 1.0]


def test_nmse_is_the_error_as_a_share_of_the_squared_length() -> None:
    assert sparsity_loss(ERROR, SUM, POWER, variant="nmse", l1_weight=0.5).tolist() == [0.5, 2.0]


def test_nmse_of_features_that_are_all_0_is_finite() -> None:
    loss = sparsity_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), variant="nmse", l1_weight=0.0)

    assert loss.tolist() == [0.0]


def test_explained_variance_is_1_for_a_perfect_and_0_for_the_mean_reconstruction() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 8.0]])
    mean = features.mean(dim=0)
    errors = torch.stack([torch.zeros(()), (features - mean).square().sum(), features.square().sum()])

    explained = explained_variance(errors, features.square().sum(), features.sum(dim=0), len(features))

    assert explained[:2].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert float(explained[2]) < -1
