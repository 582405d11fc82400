"""The model of text adaptation: one row a report, ModernBERT's own head."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, ModernBertForMaskedLM

from mammofed_shared.models.text_adaptation import TextAdaptation
from mammofed_shared.models.text_encoder import TextEncoder
from prepared import TEXT_ENCODER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder with its masked-token head, as it is at the hub."""
    torch.manual_seed(1)
    model = ModernBertForMaskedLM(AutoConfig.from_pretrained(TEXT_ENCODER))
    torch.nn.init.normal_(model.decoder.bias)
    model.save_pretrained(tmp_path)
    return tmp_path


def inputs() -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 100, (3, 9), generator=random)
    mask = torch.ones_like(ids)
    mask[2, 6:] = 0
    targets = torch.full_like(ids, -1)
    targets[0, 2], targets[0, 4], targets[1, 1] = 7, 8, 9
    return ids, mask, targets, torch.tensor([1, 0, -1])


def test_the_rows_add_up_to_the_loss_that_transformers_gives(folder: Path) -> None:
    theirs = ModernBertForMaskedLM.from_pretrained(folder).eval()
    model = TextAdaptation(TextEncoder(folder, pretrained=True), folder, pretrained=True).eval()
    ids, mask, targets, pairs = inputs()

    with torch.no_grad():
        loss_B, num_B, pair_loss_B, has_pair_B = model(ids, mask, targets, pairs)
        logits = theirs(input_ids=ids, attention_mask=mask).logits
        expected = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)

    assert float(loss_B.sum() / num_B.sum()) == pytest.approx(float(expected), rel=1e-5)
    assert num_B.tolist() == [2, 1, 0] and has_pair_B.tolist() == [1, 1, 0]
    assert loss_B[2] == 0 == pair_loss_B[2] and (pair_loss_B[:2] > 0).all()


def test_a_head_that_the_folder_lacks_is_drawn_and_the_table_is_the_encoders() -> None:
    torch.manual_seed(0)
    model = TextAdaptation(TextEncoder(TEXT_ENCODER), TEXT_ENCODER, pretrained=True)

    names = set(model.state_dict())
    assert {name.split(".")[0] for name in names} == {"text_encoder", "masked_head", "pair_head"}
    assert sum("embeddings.tok_embeddings" in name for name in names) == 1, "the table travels once"
    assert (model.masked_head.bias == 0).all() and model.masked_head.dense.weight.std() > 0


def test_both_tasks_train_the_encoder_and_their_own_head() -> None:
    model = TextAdaptation(TextEncoder(TEXT_ENCODER), TEXT_ENCODER)
    loss_B, _, pair_loss_B, _ = model(*inputs())

    (loss_B.sum() + pair_loss_B.sum()).backward()

    assert all(parameter.grad is not None for parameter in model.parameters())
    table = model.text_encoder.model.get_input_embeddings().weight.grad
    assert table[7].abs().sum() > 0, "a word that is asked for moves its row of the table"


@pytest.mark.parametrize(("pooling", "token"), [("cls", 0), ("last", 8)])
def test_the_pair_is_asked_of_the_token_that_speaks_for_the_text(pooling: Literal["cls", "last"], token: int) -> None:
    model = TextAdaptation(TextEncoder(TEXT_ENCODER, pooling=pooling), TEXT_ENCODER).eval()
    ids, mask, targets, _ = inputs()

    with torch.no_grad():
        _, pair_B = model.predictions(ids, mask, targets)
        expected = model.pair_head(model.text_encoder.hidden_states(ids, mask)[:2, token]).squeeze(1)

    torch.testing.assert_close(pair_B[:2], expected)


def test_a_batch_in_which_nothing_is_asked_has_gradients_of_zero() -> None:
    model = TextAdaptation(TextEncoder(TEXT_ENCODER), TEXT_ENCODER)
    ids, mask, targets, pairs = inputs()

    loss_B, num_B, pair_loss_B, has_pair_B = model(ids, mask, torch.full_like(targets, -1), torch.full_like(pairs, -1))
    (loss_B.sum() + pair_loss_B.sum()).backward()

    assert num_B.sum() == has_pair_B.sum() == loss_B.sum() == 0
    assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in model.parameters())
