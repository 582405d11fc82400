"""Configuration files: what is wrong is said with name, line and the nearest right name."""

from pathlib import Path

import pytest

from mammofed_shared.config.base import Settings
from mammofed_shared.config.loading import load
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.simulation import SimulationSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.errors import ConfigurationError

CONFIGS = Path(__file__).parents[3] / "configs"
RUN = """\
run: demo
consortium: hospitals
sites: [central, mayo]
schedule:
  kind: alternating
  rounds: 3
task:
  name: pretrain
  optimizer: {learning_rate: 2e-3}
text_encoder: configs/text_encoder/demo
server:
  folder: runs/demo
  identity: authority/server
"""


def _load(folder: Path, text: str = RUN, *overrides: str) -> RunSettings:
    path = folder / "run.yaml"
    path.write_text(text)
    return load(path, RunSettings, overrides)


def _complaint(folder: Path, text: str = RUN, *overrides: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        _load(folder, text, *overrides)
    return str(caught.value)


def _configs(kind: str) -> list[Path]:
    found = sorted((CONFIGS / kind).glob("*.yaml"))
    assert found
    return found


@pytest.mark.parametrize(
    ("path", "model"),
    [
        *((path, RunSettings) for path in _configs("run")),
        *((path, SiteSettings) for path in _configs("site")),
        *((path, PolicySettings) for path in _configs("policy")),
        (CONFIGS / "simulation.yaml", SimulationSettings),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value.__name__,
)
def test_every_configuration_file_of_ours_loads(path: Path, model: type[Settings]) -> None:
    assert isinstance(load(path, model), model)


def test_every_configuration_file_is_of_a_known_kind() -> None:
    found = {path.relative_to(CONFIGS).parts[0] for path in CONFIGS.rglob("*.yaml")}
    assert found == {"run", "site", "policy", "simulation.yaml"}


def test_the_values_of_a_file_arrive(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert settings.sites == ("central", "mayo")
    assert settings.schedule.rounds == 3
    assert settings.task.optimizer.learning_rate == 2e-3, "YAML 1.1 reads 2e-3 as text; pydantic does not"


@pytest.mark.parametrize(
    ("right", "wrong", "line", "name", "meant"),
    [
        ("consortium:", "consortum:", 2, "consortum", "consortium"),
        ("  rounds: 3", "  rouds: 3", 6, "schedule.rouds", "rounds"),
        ("learning_rate", "lerning_rate", 9, "task.optimizer.lerning_rate", "learning_rate"),
        ("  folder:", "  foldr:", 12, "server.foldr", "folder"),
    ],
)
def test_a_wrong_key_is_refused_with_its_name_its_line_and_the_nearest_right_name(
    tmp_path: Path, right: str, wrong: str, line: int, name: str, meant: str
) -> None:
    assert RUN.count(right) == 1
    said = _complaint(tmp_path, RUN.replace(right, wrong))
    assert f"line {line}, {name}: unknown key; did you mean {meant!r}?" in said
    assert str(tmp_path / "run.yaml") in said


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("name: pretran", "line 8, task.name: 'pretran' is unknown; did you mean 'pretrain'?"),
        ("name: zzz", "line 8, task.name: 'zzz' is unknown; known here: pretrain, text"),
        ("batch_size: 4", "line 7, task.name: missing; it has no default"),
        ("name: text\n  masked_shar: 0.2", "line 9, task.masked_shar: unknown key; did you mean 'masked_share'?"),
        ("name: text\n  loss: {pair: 1}", "line 9, task.loss.pair: unknown key; did you mean 'pair_weight'?"),
        ("name: text\n  masked_share: 2", "line 9, task.masked_share: Input should be less than 1 (found 2)"),
        ("name: text\n  projection_dim: 8", "line 9, task.projection_dim: unknown key; did you mean"),
        ("name: pretrain\n  image_encoder: {weights: 3}", "task.image_encoder.weights: Input should be a valid string"),
    ],
)
def test_a_task_has_the_keys_of_its_name_and_no_others(tmp_path: Path, task: str, said: str) -> None:
    assert said in _complaint(tmp_path, RUN.replace("name: pretrain", task))


def test_the_name_says_which_task_it_is(tmp_path: Path) -> None:
    assert isinstance(_load(tmp_path, RUN, "task.name=text", "task.swapped_share=0.25").task, TextSettings)
    assert isinstance(_load(tmp_path).task, PretrainSettings)


def test_a_key_that_is_near_to_none_is_answered_with_all_that_are_known(tmp_path: Path) -> None:
    said = _complaint(tmp_path, RUN.replace("  rounds: 3", "  rounds: 3\n  zzzzzz: 1"))
    assert "line 7, schedule.zzzzzz: unknown key; known here: kind, rounds, order, epochs, weighting" in said


def test_a_wrong_key_in_a_list_is_named_with_its_place(tmp_path: Path) -> None:
    text = (CONFIGS / "site/mayo.yaml").read_text()
    path = tmp_path / "mayo.yaml"
    path.write_text(text.replace("    reports:", "    report:"))
    with pytest.raises(ConfigurationError, match=r"line \d+, datasets\.0\.report: unknown key; did you mean 'reports'"):
        load(path, SiteSettings)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    text = (
        RUN.replace("rounds: 3", "rounds: 0").replace("consortium:", "consortum:").replace("run: demo", "run: Demo 1")
    )
    said = _complaint(tmp_path, text)
    assert "line 6, schedule.rounds: Input should be greater than or equal to 1 (found 0)" in said
    assert "line 2, consortum: unknown key" in said
    assert "consortium: missing; it has no default" in said
    assert "line 1, run: " in said and "(found 'Demo 1')" in said


def test_a_site_that_is_not_of_the_run_is_refused(tmp_path: Path) -> None:
    said = _complaint(tmp_path, RUN, "schedule.order=[central, emory]")
    assert "schedule.order names 'emory', which is not one of sites: central, mayo" in said


def test_a_site_that_would_train_twice_at_once_is_refused(tmp_path: Path) -> None:
    order = "schedule.order=[mayo, central, mayo]"
    assert _load(tmp_path, RUN, order).training_sites == ("mayo", "central", "mayo")
    assert "names a site twice" in _complaint(tmp_path, RUN, order, "schedule.kind=fedavg")


def test_overrides_are_laid_over_the_file_in_their_order(tmp_path: Path) -> None:
    settings = _load(tmp_path, RUN, "schedule.rounds=5", "task.loss.variant=reference", "seed=2", "seed=7")
    assert settings.schedule.rounds == 5
    assert settings.schedule.kind == "alternating", "the file's other keys stay"
    assert isinstance(settings.task, PretrainSettings)
    assert settings.task.loss.variant == "reference", "a group that the file does not hold is made"
    assert settings.seed == 7


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    path = CONFIGS / "site/central.yaml"
    changed = load(path, SiteSettings, ["datasets.1.name=cbis"])
    assert [dataset.name for dataset in changed.datasets] == ["central-screening", "cbis"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("schedule.rouds=3", "override, schedule.rouds: unknown key; did you mean 'rounds'?"),
        ("schedule.rounds=many", "override, schedule.rounds: "),
        ("seed", "override 'seed': expected key.sub=value"),
        ("=3", "override '=3': expected key.sub=value"),
        ("seed.x=3", "override 'seed.x=3': "),
        ("run.name=x", "override 'run.name=x': run holds no keys"),
        ("sites.2=emory", "override 'sites.2=emory': '2' is not an index below 2"),
        ("sites.mayo=emory", "override 'sites.mayo=emory': 'mayo' is not an index below 2"),
        ("seed=[1", "override 'seed=[1': the value is not YAML"),
    ],
)
def test_a_wrong_override_is_refused_and_named(tmp_path: Path, override: str, said: str) -> None:
    text = RUN + "seed: 1\n"
    assert said in _complaint(tmp_path, text, override)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML would silently take the second."""
    said = _complaint(tmp_path, RUN.replace("  rounds: 3", "  rounds: 3\n  rounds: 30"))
    assert "line 7, schedule.rounds: stands there twice (first in line 6)" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected keys and values, found NoneType"),
        ("- run\n", "expected keys and values, found list"),
        ("run: [demo\n", "not YAML"),
        ("run: !!python/object/apply:os.system ['true']\n", "not YAML"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in _complaint(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.yaml: cannot be read: No such file.* --config"):
        load(tmp_path / "missing.yaml", RunSettings)


def test_epochs_are_one_number_or_one_for_each_visit_of_a_round(tmp_path: Path) -> None:
    assert _load(tmp_path, RUN, "schedule.epochs=[2, 1]").schedule.epochs == (2, 1)
    assert "lists 1 numbers for 2 visits" in _complaint(tmp_path, RUN, "schedule.epochs=[2]")
    assert "one number for fedavg" in _complaint(tmp_path, RUN, "schedule.epochs=[2, 1]", "schedule.kind=fedavg")
