"""The four-view student: views are told apart, missing ones are not looked at, risk never falls with the year."""

import pytest
import torch
from torch import Tensor

from mammofed_shared.models.mirai import NUM_YEARS, VIEWS, MiraiHead


def _head(**changes: object) -> MiraiHead:
    torch.manual_seed(0)
    return MiraiHead(6, width=16, num_layers=2, num_heads=2, **changes).eval()  # type: ignore[arg-type]


def _features(num_exams: int = 3) -> Tensor:
    return torch.randn(num_exams, len(VIEWS), 6, generator=torch.Generator().manual_seed(1))


ALL = torch.ones(3, 4, dtype=torch.bool)


def test_the_papers_head_is_between_23_and_34_mb() -> None:
    num_values = sum(parameter.numel() for parameter in MiraiHead(2048).parameters())
    assert 23e6 < 4 * num_values < 34e6


def test_the_order_of_views_is_that_of_the_paper() -> None:
    assert ["".join(place) for place in VIEWS] == ["LCC", "LMLO", "RCC", "RMLO"]


@pytest.mark.parametrize("view", range(4))
def test_what_stands_for_a_missing_view_is_not_looked_at(view: int) -> None:
    head, features = _head(), _features()
    present = ALL.clone()
    present[:, view] = False
    other = features.clone()
    other[:, view] = float("nan")

    assert torch.equal(head(features, present), head(other, present))
    assert not torch.allclose(head(features, present), head(features, ALL))


def test_an_exam_is_scored_the_same_whoever_stands_beside_it() -> None:
    head, features = _head(), _features()
    present = ALL.clone()
    present[0, 1:] = False
    together = head(features, present)

    alone = torch.cat([head(features[i : i + 1], present[i : i + 1]) for i in range(3)])
    assert torch.allclose(alone, together, atol=1e-6)


def test_views_are_told_apart() -> None:
    head, features = _head(), _features()
    assert not torch.allclose(head(features, ALL), head(features.flip(1), ALL), atol=1e-4)


def test_risk_never_falls_with_the_year_under_the_hazard_head() -> None:
    logits = _head()(10 * _features(), ALL)
    assert logits.shape == (3, NUM_YEARS)
    assert (logits.diff(dim=1) >= 0).all()


def test_the_plain_head_has_five_logits_of_their_own() -> None:
    logits = _head(head="logits")(10 * _features(), ALL)
    assert logits.shape == (3, NUM_YEARS) and (logits.diff(dim=1) < 0).any()


def test_the_scale_of_the_encoders_features_does_not_matter() -> None:
    head, features = _head(), _features()
    assert torch.allclose(head(features, ALL), head(100 * features, ALL), atol=1e-3)


def test_every_parameter_learns() -> None:
    head = _head().train()
    head(_features(), ALL).square().sum().backward()
    still = [name for name, parameter in head.named_parameters() if parameter.grad is None]
    assert still == []
