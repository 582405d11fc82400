"""What a site says of itself when it connects."""

from pathlib import Path

import pytest

from federation import coordinator
from identities import make_consortium
from mammofed_site.client import SiteClient
from prepared import site_settings


@pytest.mark.parametrize(("metrics", "told"), [(None, (8, 6)), (("num_exams", "loss"), (8, 6)), (("loss",), (0, 0))])
def test_a_site_that_tells_no_number_of_exams_tells_none_when_it_connects(
    tmp_path: Path, metrics: tuple[str, ...] | None, told: tuple[int, int]
) -> None:
    consortium = make_consortium(tmp_path)
    with coordinator(tmp_path / "spool", consortium) as running:
        settings = site_settings(
            tmp_path / "mayo", "mayo", 3, server=f"127.0.0.1:{running.port}", identity=consortium.sites["mayo"]
        )
        policy = settings.policy.model_copy(update={"metrics": metrics})
        client = SiteClient(settings.model_copy(update={"policy": policy}), consortium.site_identity("mayo"))
        client._introduce()
        client.close()
        (found,) = (item for item in running.board.snapshot() if item.site == "mayo")

    assert (found.num_training_exams, found.num_test_exams) == told
