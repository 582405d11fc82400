"""Text encoder and dual encoder, on the demo's text encoder with random weights."""

import json
import math
from pathlib import Path

import pytest
import torch

from mammofed_shared.models.dual_encoder import LARGEST_LOG_SCALE, DualEncoder
from mammofed_shared.models.image_encoder import ImageEncoder
from mammofed_shared.models.text_encoder import TextEncoder
from mammofed_shared.report.tokenize import ReportTokenizer

FOLDER = Path(__file__).parents[3] / "configs/text_encoder/demo"


@pytest.fixture
def dual() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(ImageEncoder("mammofed_small_cnn", pooling="avgmax"), TextEncoder(FOLDER), 16)


def embed(model: DualEncoder, texts: list[str]) -> torch.Tensor:
    tokens = ReportTokenizer(FOLDER, 64)(texts)
    return model.embed_texts(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask))


def test_embeddings_are_unit_vectors_of_the_shared_space(dual: DualEncoder) -> None:
    images = dual.embed_images(torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8))
    texts = embed(dual, ["There are no masses.", "There is a mass."])

    assert images.shape == texts.shape == (2, 16)
    assert torch.allclose(torch.cat([images, texts]).norm(dim=1), torch.ones(4))


def test_padding_does_not_change_a_text(dual: DualEncoder) -> None:
    dual.eval()
    short, long = "There is a mass.", "There is a mass in the upper left breast at anterior depth."

    with torch.no_grad():
        alone, beside = embed(dual, [short])[0], embed(dual, [short, long])[0]

    assert torch.allclose(alone, beside, atol=1e-6)


def test_text_embedding_is_that_of_the_first_token() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(FOLDER).eval()
    ids = torch.tensor([[2, 9, 10, 3]])
    mask = torch.ones_like(ids)

    with torch.no_grad():
        hidden = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
        assert torch.equal(encoder(ids, mask), hidden[:, 0])


def test_weights_of_the_folder_are_loaded_where_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = TextEncoder(FOLDER)
    saved.model.save_pretrained(tmp_path)
    torch.manual_seed(1)

    loaded, fresh = TextEncoder(tmp_path, pretrained=True), TextEncoder(tmp_path)

    same = [torch.equal(a, b) for a, b in zip(saved.parameters(), loaded.parameters(), strict=True)]
    assert all(same)
    assert not all(torch.equal(a, b) for a, b in zip(saved.parameters(), fresh.parameters(), strict=True))


def test_temperature_starts_at_007_and_its_bound_is_a_scale_of_100(dual: DualEncoder) -> None:
    assert float(dual.log_scale.detach().exp()) == pytest.approx(1 / 0.07)
    assert pytest.approx(math.log(100)) == LARGEST_LOG_SCALE


def test_text_checkpointing_changes_no_gradient() -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = TextEncoder(FOLDER, activation_checkpointing=checkpointing).train()
        ids = torch.tensor([[2, 9, 10, 3]])
        encoder(ids, torch.ones_like(ids)).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None])

    assert found[0]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_last_token_is_the_last_of_the_text_and_not_of_the_padding() -> None:
    torch.manual_seed(0)
    first, last = TextEncoder(FOLDER).eval(), TextEncoder(FOLDER, pooling="last").eval()
    last.load_state_dict(first.state_dict())
    ids = torch.tensor([[2, 7, 9, 3, 0, 0], [2, 7, 9, 11, 12, 3]])
    mask = (ids > 0).long()

    with torch.no_grad():
        hidden = first.hidden_states(ids, mask)
        assert torch.equal(first(ids, mask), hidden[:, 0])
        assert torch.equal(last(ids, mask), torch.stack([hidden[0, 3], hidden[1, 5]]))


def test_a_pooler_that_nothing_looks_at_is_not_trained(tmp_path: Path) -> None:
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 20} | tiny))
    encoder = TextEncoder(tmp_path)

    encoder(torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.long)).square().sum().backward()

    waiting = [name for name, item in encoder.named_parameters() if item.requires_grad and item.grad is None]
    assert not waiting
    assert not any(item.requires_grad for name, item in encoder.named_parameters() if "pooler" in name)
