"""Features of coalitions of neurons, against the whole code decoded cell by cell."""

import pytest
import torch
from torch import Tensor

from mammofed_shared.interpretability import coalition
from mammofed_shared.interpretability.coalition import Coalitions, Pooling
from mammofed_shared.interpretability.sparse_maps import sparse_maps
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder

LEVEL = 5


@pytest.fixture(scope="module")
def autoencoder() -> SparseAutoencoder:
    torch.manual_seed(3)
    made = SparseAutoencoder(6, 24, [LEVEL, 24])
    torch.nn.init.normal_(made.pre_bias)
    return made


@pytest.fixture(scope="module")
def maps() -> Tensor:
    return torch.randn(3, 6, 4, 2, generator=torch.Generator().manual_seed(4)) * 2


def decoded(autoencoder: SparseAutoencoder, maps_VChw: Tensor, off: list[int], pooling: Pooling) -> Tensor:
    """Features (V, F): each cell's code cut to the level, decoded as the autoencoder does, then pooled."""
    cells = maps_VChw.flatten(2).transpose(1, 2)
    code = autoencoder.encode(cells.flatten(0, 1))
    kept = torch.zeros_like(code).scatter(1, code.topk(LEVEL, dim=1).indices, 1) * code
    kept[:, off] = 0
    maps = autoencoder.decode(kept).view(cells.shape)
    return maps.mean(dim=1) if pooling == "avg" else torch.cat([maps.mean(dim=1), maps.amax(dim=1)], dim=1)


@pytest.mark.parametrize("pooling", ["avg", "avgmax"])
def test_features_of_a_coalition_are_those_of_the_decoded_code(
    autoencoder: SparseAutoencoder, maps: Tensor, pooling: Pooling
) -> None:
    exam = Coalitions(sparse_maps(autoencoder, maps, LEVEL), autoencoder, pooling)
    active = exam.neurons_A.tolist()
    assert len(active) > 6, "the fixture's code is not trivial"
    off = [[], active[:1], active[2:5], active]
    pooled_MVF = exam.pooled(torch.cat([exam.without(neurons) for neurons in off]))

    for number, neurons in enumerate(off):
        expected = decoded(autoencoder, maps, neurons, pooling)
        torch.testing.assert_close(pooled_MVF[number], expected, rtol=1e-5, atol=1e-6)


def test_maxima_taken_part_by_part_are_those_of_the_whole(
    autoencoder: SparseAutoencoder, maps: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = Coalitions(sparse_maps(autoencoder, maps, LEVEL), autoencoder, "avgmax")
    on_MA = torch.rand(7, len(exam.neurons_A), generator=torch.Generator().manual_seed(5)) < 0.5
    whole = exam.pooled(on_MA)
    monkeypatch.setattr(coalition, "_FLOATS_AT_ONCE", 1)  # cell by cell

    torch.testing.assert_close(exam.pooled(on_MA), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["avg", "avgmax"])
def test_coalitions_made_of_the_one_before_are_those_made_anew(
    autoencoder: SparseAutoencoder, maps: Tensor, pooling: Pooling, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = Coalitions(sparse_maps(autoencoder, maps, LEVEL), autoencoder, pooling)
    order = torch.randperm(len(exam.neurons_A), generator=torch.Generator().manual_seed(6)).argsort()
    joining = order[None] < torch.arange(len(order) + 1)[:, None]
    on_MA = torch.cat([joining, joining.flip(0), joining.flip(0)[-2:]])
    found = exam.pooled(on_MA)
    monkeypatch.setattr(coalition, "_MOST_CHANGES", -1)

    torch.testing.assert_close(found, exam.pooled(on_MA), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "avgmax"])
def test_an_exam_in_which_nothing_fires_is_the_bias(autoencoder: SparseAutoencoder, pooling: Pooling) -> None:
    bias = autoencoder.pre_bias.detach()
    silent = SparseAutoencoder(6, 24, [LEVEL, 24])
    silent.load_state_dict(autoencoder.state_dict() | {"encoder_bias": torch.full((24,), -100.0)})
    exam = Coalitions(sparse_maps(silent, torch.randn(2, 6, 3, 3), LEVEL), silent, pooling)
    pooled_MVF = exam.pooled(torch.ones(1, 0, dtype=torch.bool))

    expected = bias if pooling == "avg" else torch.cat([bias, bias])
    assert pooled_MVF.tolist() == [[expected.tolist(), expected.tolist()]]
