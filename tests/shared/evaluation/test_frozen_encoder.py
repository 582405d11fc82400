"""The frozen model: the networks of its export, of which nothing ever moves."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest
from mammofed_shared.errors import ConfigurationError
from mammofed_shared.evaluation.frozen_encoder import load_frozen_dual_encoder, load_frozen_image_encoder
from mammofed_shared.protocol.payload import Payload

GREYS = torch.randint(0, 256, (6, 64, 40), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_frozen_encoder(tmp_path_factory.mktemp("encoder"))


def test_it_has_the_weights_of_the_checkpoint_that_was_exported(encoder: Path) -> None:
    model = load_frozen_dual_encoder(encoder)

    found = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with Payload(encoder.parent / "first.safetensors") as state:
        assert set(found) == set(state)
        assert all((found[name] == state[name]).all() for name in state)


def test_images_are_pooled_as_they_were_in_training(encoder: Path, tmp_path: Path) -> None:
    averaged = load_frozen_image_encoder(write_frozen_encoder(tmp_path, pooling="avg"))
    both = load_frozen_image_encoder(encoder)

    feature_map = both.feature_map(GREYS)
    assert averaged(GREYS).shape == (6, 80)
    assert torch.equal(both(GREYS), torch.cat([feature_map.mean((2, 3)), feature_map.amax((2, 3))], 1))
    assert torch.equal(load_frozen_dual_encoder(encoder).image_encoder(GREYS), both(GREYS))


def test_no_weight_and_no_statistic_moves_inside_a_model_that_is_trained(encoder: Path) -> None:
    frozen = load_frozen_dual_encoder(encoder)
    head = nn.Linear(frozen.image_encoder.num_features, 1)
    model = nn.ModuleDict({"frozen": frozen, "head": head})
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)

    model.train()
    first = head.weight.detach().clone()
    for _ in range(3):
        loss = head(frozen.image_encoder(GREYS)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    assert not torch.equal(head.weight, first), "the head is trained"
    assert head.training and not any(module.training for module in frozen.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_the_statistics_of_an_encoder_that_is_not_frozen_would_have_moved(encoder: Path) -> None:
    """So the test above can fail: batch normalisation takes part, and moves when it is left to train."""
    frozen = load_frozen_image_encoder(encoder)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}

    nn.Module.train(frozen.model, True)
    frozen(GREYS)

    assert any(not torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())


def test_weights_of_another_model_are_refused(encoder: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(encoder, tmp_path / "copied"))
    (copied / "image_encoder" / "model.safetensors").write_bytes((copied / "projections.safetensors").read_bytes())

    assert encoder_digest(copied) != encoder_digest(encoder)
    with pytest.raises(ConfigurationError, match="is not of the model"):
        load_frozen_image_encoder(copied)
