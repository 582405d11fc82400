"""MIRAI as teacher: equal to the original where a golden is, and built of the parts that the published weights have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mammofed_shared.models.mirai_teacher import MiraiTransformer, Pool
from mirai_files import random_mirai

GOLDEN = Path(__file__).parents[2] / "golden/e_mirai_transformer_surv1.npz"
VIEW, SIDE = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
NOW = torch.zeros(1, 4, dtype=torch.long)


def transformer(pool: Pool = "GlobalAvgPool", **risk_factors: int) -> MiraiTransformer:
    torch.manual_seed(1)
    return MiraiTransformer(
        num_features=10, width=24, num_layers=1, num_heads=4, pool=pool, risk_factors=risk_factors
    ).eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(1, 4, 10, generator=torch.Generator().manual_seed(2))


def test_hidden_vectors_and_logits_are_those_of_the_original() -> None:
    golden = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN).items()}
    only_for_training = ("w/fc.", "w/pred_masked_img_fc.")
    weights = {
        name.removeprefix("w/"): values
        for name, values in golden.items()
        if name.startswith("w/") and not name.startswith(only_for_training)
    }
    model = MiraiTransformer(
        num_features=10, width=24, num_layers=3, num_heads=4, pool="GlobalAvgPool", risk_factors={}
    ).eval()
    model.load_state_dict(weights)

    given = [golden[name] for name in ("x", "time_seq", "view_seq", "side_seq")]

    torch.testing.assert_close(model.hidden(*given), golden["hidden"], rtol=0, atol=1e-4)
    torch.testing.assert_close(model(*given), golden["logit"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pool", ["GlobalAvgPool", "GlobalMaxPool", "Simple_AttentionPool"])
def test_the_order_of_the_images_does_not_matter_but_their_view_and_side_do(pool: Pool, features: Tensor) -> None:
    model = transformer(pool, density=4, parous=1)
    order = [2, 0, 3, 1]

    logit = model(features, NOW, VIEW, SIDE)

    torch.testing.assert_close(model(features[:, order], NOW, VIEW[:, order], SIDE[:, order]), logit)
    assert not torch.allclose(model(features, NOW, VIEW, 1 - SIDE), logit, atol=1e-3)
    assert not torch.allclose(model(features, NOW, 1 - VIEW, SIDE), logit, atol=1e-3)


def test_attention_pooling_weighs_the_images_by_a_softmax(features: Tensor) -> None:
    model = transformer("Simple_AttentionPool")
    attention = model.pool.internal_pool["attention_fc"].requires_grad_(False)
    hidden = model.hidden(features, NOW, VIEW, SIDE).detach()
    weight = np.exp(hidden[0].numpy() @ attention.weight[0].numpy() + attention.bias.item())
    expected = (weight / weight.sum()) @ hidden[0].numpy()

    np.testing.assert_allclose(model.pool(hidden)[0], expected, rtol=1e-5, atol=1e-6)


def test_predicted_risk_factors_are_probabilities_after_the_pooled_vector(features: Tensor) -> None:
    model = transformer("GlobalMaxPool", density=4, parous=1, race=3)
    hidden = model.hidden(features, NOW, VIEW, SIDE)

    pooled = model.pool(hidden)[0]

    assert pooled.shape == (24 + 8,)
    torch.testing.assert_close(pooled[:24], hidden[0].amax(dim=0))
    density, parous, race = pooled[24:28], pooled[28], pooled[29:]
    for distribution in (density, race):
        torch.testing.assert_close(distribution.sum(), torch.tensor(1.0))
    torch.testing.assert_close(parous, torch.sigmoid(model.pool.get_submodule("parous_fc")(pooled[:24]))[0])


def test_calibration_is_platts_of_each_year_and_bare_probabilities_stand_without_it() -> None:
    logit = torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]])
    bare = 1 / (1 + np.exp(-logit.double().numpy()))
    slope = 1.0 + np.arange(5)

    calibrated = random_mirai(0).risks(logit)

    expected = 1 / (1 + np.exp(-1.5 * (slope * bare - 2.0) + 0.5))
    np.testing.assert_allclose(calibrated, expected, rtol=1e-12)
    np.testing.assert_allclose(random_mirai(0, calibrated=False).risks(logit), bare, rtol=1e-12)


def test_a_feature_is_the_maximum_over_the_encoders_map() -> None:
    model = random_mirai(3)
    image = torch.randn(96, 64, generator=torch.Generator().manual_seed(4))
    encoder = model.image_encoder

    with torch.no_grad():
        grid = encoder.forward_features(image.expand(1, 3, -1, -1))  # type: ignore[operator]

    assert grid.shape == (1, 512, 3, 2)
    torch.testing.assert_close(model.features(image), grid[0].amax(dim=(1, 2)))
