"""Hospital IT's command: `site-client --site mayo`."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mammofed_shared.commands import DefaultCommandGroup, run_command
from mammofed_shared.config.brought_models import with_located_models
from mammofed_shared.config.loading import load
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, DataError, Refused, StateError
from mammofed_shared.files import remove_halves
from mammofed_shared.log import start_logging
from mammofed_shared.pki import load_identity
from mammofed_site import enrol as enrolment
from mammofed_site.client import SiteClient
from mammofed_site.policy_file import read_policy
from mammofed_site.pseudonym_key import load_or_create_key

app = typer.Typer(
    cls=DefaultCommandGroup,
    no_args_is_help=False,
    help="One hospital in the federation: its data, its key, its training. Without a verb: take part in the run.",
    pretty_exceptions_enable=False,
)

Site = Annotated[str, typer.Option("--site", "-s", help="Name of this site; must be the certificate's.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The site's YAML; configs/site/<site>.yaml by default.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Settings laid over the YAML.", show_default=False),
]


@app.command("run")
def run_(site: Site, config: Config = None, overrides: Overrides = None) -> None:
    """Take part in the run until it is over. A coordinator that is away is waited for."""
    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "site-client.log")
    settings = with_located_models(settings)
    identity = load_identity(settings.identity, settings.consortium, settings.site)
    if settings.policy.file is not None:
        read_policy(settings.policy.file)  # a wrong one is said here, not to the coordinator
    with _only_client(settings.folder):
        remove_halves(settings.folder)
        client = SiteClient(settings, identity)
        try:
            client.run()
        finally:
            client.close()


@app.command()
def enrol(
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
    certificate: Annotated[Path | None, typer.Option(help="The file that the lead sent back.")] = None,
    root_fingerprint: Annotated[
        str | None,
        typer.Option(help="Fingerprint of the consortium's root, as the lead told it by another channel."),
    ] = None,
) -> None:
    """Make this site's key and request; with --certificate, install what the lead sent back.

    The key is made here and never leaves. Send the request by mail; tell its fingerprint by telephone.
    """
    settings = _settings(site, config, overrides)
    if certificate is None:
        request, fingerprint = enrolment.request(settings.identity, settings.site, settings.consortium)
        typer.echo(f"send this file to the lead: {request}")
        typer.echo(f"and tell its key's fingerprint by another channel:\n{fingerprint}")
        return
    if root_fingerprint is None:
        raise ConfigurationError("--certificate needs --root-fingerprint: ask the lead for it by another channel")
    try:
        bundle = certificate.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{certificate}: cannot be read: {error.strerror}") from error
    identity = enrolment.install(settings.identity, bundle, settings.site, settings.consortium, root_fingerprint)
    typer.echo(f"site {identity.name} of {identity.consortium} is enrolled until {identity.not_after:%Y-%m-%d}")


@app.command()
def preprocess(
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read and decode everything, say what would happen, write nothing.")
    ] = False,
    locate: Annotated[
        int | None, typer.Option(metavar="N", help="Tell which file has the local number N, and do nothing else.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="With --locate: look in this data set only.")] = None,
) -> None:
    """Turn this site's DICOM exports into prepared data sets. Nothing leaves; a second call goes on.

    Tables, messages and the quality page name a file by its local number; --locate N tells its path, here at the site.
    """
    from mammofed_site import preprocess_command  # 35 MB of image libraries, for this command alone

    settings = _settings(site, config, overrides)
    if dataset is not None and dataset not in [item.name for item in settings.datasets]:
        raise ConfigurationError(f"--dataset: {site} has {', '.join(item.name for item in settings.datasets)}")
    key = load_or_create_key(settings.folder)
    if locate is not None:
        for name, path in preprocess_command.locate_file(settings, key, locate, dataset):
            typer.echo(f"{name}: {path}")
        return
    if dataset is not None:
        raise ConfigurationError("--dataset goes with --locate; `preprocess` brings all data sets up to date")
    start_logging(settings.folder / "preprocess.log", console=False)
    preprocess_command.preprocess_site(settings, key, Console(), is_dry=dry_run)


@app.command("augment-text")
def augment_text_(site: Site, config: Config = None, overrides: Overrides = None) -> None:
    """Give reports of one section a second text: translated to Italian and back, here at the site, once.

    Run it after `preprocess` and between visits. A second call goes on, or does nothing. Training works without it.
    """
    from mammofed_site.augment_text import augment_text  # brings Parquet; torch comes with the first sentence

    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "augment-text.log", console=False)
    augment_text(settings, Console())


@app.command("features")
def features_(
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Of all exams: pooled, maps, patches-16 or asymmetry-6x5-3x3 (window, stride); without it, what the "
            "task of --run reads."
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The lead's run YAML; without it, as the last plan that came here.")
    ] = None,
    predict: Annotated[bool, typer.Option("--predict", help="Only tell what they take; compute nothing.")] = False,
) -> None:
    """Compute what a task reads of the frozen model, once and ahead of its visits; tell disk and time. Nothing leaves.

    A visit does the same when it comes to it, so this only spares the others its time. A pass that is killed goes on
    with what is not kept yet (docs/data.md).

    Not while `site-client` runs here: both would want the same hardware.
    """
    from mammofed_site.features_command import features_site

    settings = with_located_models(_settings(site, config, overrides))
    start_logging(settings.folder / "features.log", console=False)
    with _only_client(settings.folder):
        features_site(settings, kind, run, Console(), predict=predict)


@app.command("compare")
def compare_(
    first: Annotated[str, typer.Argument(help="A run that was evaluated here, or a `scores.csv`.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Compare the models of two runs on this site's test exams: AUROC of both, and whether chance could have said so.

    Takes the scores that the last evaluation of each left here; nothing is computed anew, and nothing leaves.
    """
    from mammofed_site.compare import compare_runs

    compare_runs(_settings(site, config, overrides), first, second, Console())


@app.command("teach")
def teach_(
    site: Site,
    weights: Annotated[
        Path, typer.Option("--weights", help="MIRAI's weights, as deploy/mirai/convert_snapshot.py writes them.")
    ],
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Compute the teacher of risk prediction: MIRAI's risk of 1 to 5 years for every exam with four views.

    Run it after `preprocess`: it takes the DICOM files of the prepared exams, in MIRAI's own preparation. The scores
    stay here, in a CSV by pseudonym; name it as `teacher:` in the site's YAML and run `preprocess` again. A second call
    goes on. A file that cannot be read costs its exam, and is named by its local number. docs/risk.md
    """
    from mammofed_site.teach import teach  # brings Parquet and image libraries; torch comes with the first exam

    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "teach.log", console=False)
    teach(settings, load_or_create_key(settings.folder), weights, Console())


@app.command("explain")
def explain_(
    site: Site,
    exam: Annotated[
        str, typer.Option("--exam", help="Accession number, study UID, or the pseudonym in exams.parquet.")
    ],
    config: Config = None,
    overrides: Overrides = None,
    risk: Annotated[
        list[Path] | None,
        typer.Option("--risk", help="Export of a run of risk-mirai or of risk-asymmirai; give it twice for both."),
    ] = None,
    autoencoder: Annotated[
        Path | None, typer.Option("--autoencoder", help="Export of a run of sae: its neurons explain risk-mirai.")
    ] = None,
    year: Annotated[int, typer.Option("--year", min=1, max=5, help="Take the risk of so many years apart.")] = 5,
    neurons: Annotated[int, typer.Option("--neurons", min=1, max=64, help="Neurons to show.")] = 8,
    permutations: Annotated[
        int,
        typer.Option("--permutations", min=1, help="Orders of neurons to average over; more is slower and exacter."),
    ] = 100,
) -> None:
    """Write a page on why one exam has its risk: where in the images, and in which words of its report.

    The models are folders that `fl-server export` writes; they stand on the frozen model that `encoder` of the site's
    YAML names. The page shows the exam's images and report: it is written to <folder>/explanations, readable by its
    owner only, and stays in the hospital. Research use; not a medical device. docs/risk.md
    """
    from mammofed_site.explanations.command import ExplainRequest, explain_site_exam

    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "explain.log", console=False)
    request = ExplainRequest(tuple(risk or ()), autoencoder, year, permutations, neurons)
    page = explain_site_exam(settings, load_or_create_key(settings.folder), exam, request, Console())
    typer.echo(f"look at it: {page}")


@app.command("atlas")
def atlas_(
    site: Site,
    autoencoder: Annotated[Path, typer.Option("--autoencoder", help="Export of a run of sae.")],
    config: Config = None,
    overrides: Overrides = None,
    neurons: Annotated[int, typer.Option("--neurons", min=1, max=1024, help="Neurons to show: the most active.")] = 64,
    pictures: Annotated[int, typer.Option("--pictures", min=1, max=24, help="Images of each neuron.")] = 8,
    images: Annotated[
        int, typer.Option("--images", min=1, help="Most images to look at; more than the site has means all.")
    ] = 2000,
) -> None:
    """Write a page on what the autoencoder's neurons stand for here: the images and sentences that each belongs to.

    A call that was interrupted is gone on with by the next one. The page shows images and sentences of reports: it is
    written to <folder>/explanations, readable by its owner only, and stays in the hospital.
    """
    from mammofed_site.explanations.command import AtlasRequest, make_site_atlas

    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "explain.log", console=False)
    typer.echo(
        f"look at it: {make_site_atlas(settings, AtlasRequest(autoencoder, neurons, pictures, images), Console())}"
    )


@app.command("ledger")
def ledger_(site: Site, config: Config = None, overrides: Overrides = None) -> None:
    """Show what this site contributed, and check that its ledger and audit record are as they were written.

    Needs no coordinator. Nothing leaves, and nothing is changed. docs/ledger.md
    """
    from mammofed_site.ledger_check import check_site, print_site

    raise typer.Exit(print_site(check_site(_settings(site, config, overrides)), Console()))


@app.command("plan")
def plan_(
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="The lead's run YAML; without it, as the last plan that came here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Tell what a visit will need: memory, seconds a step, hours, disk. Nothing leaves, and nothing is trained.

    Some ten steps are done with random weights, this site's prepared exams and the worker settings of its YAML, so try
    settings by overrides: `site-client plan --site mayo --run run.yaml worker.micro_batch=4 worker.loaders=8`. What
    does not fit is said with what to change. The next visit logs how far off the prediction was.

    Not while `site-client` runs here: both would want the same hardware.
    """
    from mammofed_site.plan_command import plan_site

    settings = _settings(site, config, overrides)
    start_logging(settings.folder / "plan.log", console=False)
    settings = with_located_models(settings)
    with _only_client(settings.folder):
        plan_site(settings, run, Console(), as_json=as_json)


@app.command("policy")
def policy_(site: Site, config: Config = None, overrides: Overrides = None) -> None:
    """Show which rules are in force here, and whether what was asked last would be allowed. Nothing leaves."""
    from mammofed_site.policy_command import policy_lines

    settings = _settings(site, config, overrides)
    settings = with_located_models(settings)
    for line in policy_lines(settings):
        typer.echo(line)


@app.command("veto")
def veto_(
    site: Site,
    config: Config = None,
    overrides: Overrides = None,
    reason: Annotated[str, typer.Option(help="Why; stays in this site's folder.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="End the veto: take part again.")] = False,
) -> None:
    """Stop this hospital's part at once: a running visit is killed and deleted, nothing leaves, others go on.

    It holds until it is lifted, also over restarts. A running client notices within a second.
    """
    from mammofed_site.policy_command import veto_in_words
    from mammofed_site.veto import lift_veto, set_veto

    folder = _settings(site, config, overrides).folder
    if lift:
        lift_veto(folder)
        typer.echo(f"site {site} takes part again; a running client goes on within a second")
        return
    typer.echo(f"site {site} is VETOED {veto_in_words(set_veto(folder, reason))}")
    typer.echo(f"a running client stops within a second; `site-client veto --site {site} --lift` ends it")


@app.command("privacy")
def privacy_(site: Site, config: Config = None, overrides: Overrides = None) -> None:
    """Tell what noise protects here, every release that was paid, and how much of the budget is spent."""
    from mammofed_site.policy_file import policy_in_force
    from mammofed_site.privacy_status import privacy_lines

    settings = _settings(site, config, overrides)
    try:
        for line in privacy_lines(policy_in_force(settings).settings):
            typer.echo(line)
    except Refused as error:
        raise DataError(str(error)) from error


def _settings(site: str, config: Path | None, overrides: list[str] | None) -> SiteSettings:
    settings = load(config or Path(f"configs/site/{site}.yaml"), SiteSettings, overrides or [])
    if settings.site != site:
        raise ConfigurationError(f"--site is {site!r}, but the YAML is of site {settings.site!r}")
    return settings


@contextmanager
def _only_client(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{folder}: a site-client is already running here") from error
        yield


def main() -> None:
    """Entry point of `site-client`."""
    run_command(app)


if __name__ == "__main__":
    main()
