"""The consortium lead's command: `fl-server`."""

import getpass
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from mammofed_server import ca
from mammofed_server.control import Control
from mammofed_server.export import export_checkpoint
from mammofed_server.quality import quality_table
from mammofed_server.run_state import RunState
from mammofed_server.serve import serve
from mammofed_server.status import RunStatus, read_status, skipped_visit, status_table
from mammofed_shared.commands import DefaultCommandGroup, ExitCode, run_command
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.text_encoder import locate_text_encoder
from mammofed_shared.errors import ConfigurationError, StateError
from mammofed_shared.log import start_logging

DEFAULT_CONFIG = Path("configs/run/demo.yaml")
PASSPHRASE_VARIABLE = "MAMMOFED_CA_PASSPHRASE"

app = typer.Typer(
    cls=DefaultCommandGroup,
    no_args_is_help=False,
    help="Coordinate a run: who trains when, and adding up what comes back. Without a verb: run or resume it.",
    pretty_exceptions_enable=False,
)
authority = typer.Typer(help="The consortium's certificate authority.", no_args_is_help=True)
app.add_typer(authority, name="ca")

Config = Annotated[Path, typer.Option("--config", "-c", help="The run's YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.SUB=VALUE]...", help="Settings laid over the YAML.", show_default=False),
]
Site = Annotated[str, typer.Option("--site", help="Name of the site.")]
Folder = Annotated[Path, typer.Option("--folder", help="Folder of the authority.")]


@app.command("run")
def run_(config: Config = DEFAULT_CONFIG, overrides: Overrides = None, watch: bool = True) -> None:
    """Run the run, or resume it where it was; ends when the last turn is committed."""
    settings = load(config, RunSettings, overrides or [])
    console = Console(stderr=True)
    live = watch and console.is_terminal
    start_logging(settings.server.folder / "fl-server.log", console=not live)
    if not live:
        finished = serve(settings)
    else:
        with Live(console=console, refresh_per_second=2, get_renderable=lambda: _picture(settings.server.folder)):
            finished = serve(settings)
    manifest = finished.manifest(finished.last_turn())
    typer.echo(f"finished: {finished.checkpoint_folder(manifest.turn)}")
    for item in manifest.skipped:
        typer.echo(f"WITHOUT {skipped_visit(item)}")
    typer.echo(f"sha256 {manifest.state.digest}")


def _picture(folder: Path) -> Table | str:
    try:
        return status_table(read_status(folder))
    except StateError:
        return "starting …"


@app.command()
def status(
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until Ctrl-C.")] = False,
) -> None:
    """Show each site's state, round, step, loss and speed."""
    folder = load(config, RunSettings, overrides or []).server.folder
    current = read_status(folder)
    if json:
        typer.echo(current.model_dump_json(indent=1))
    elif watch:
        _watch(folder)
    else:
        Console().print(status_table(current))


def _watch(folder: Path) -> None:
    with Live(console=Console(), refresh_per_second=2) as live:
        current: RunStatus = read_status(folder)
        while current.state in ("starting", "running", "paused"):
            live.update(status_table(current))
            time.sleep(0.5)
            current = read_status(folder)
        live.update(status_table(current))


@app.command()
def quality(config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Show what data the sites hold: counts, protected by each site, told before the first turn."""
    run = RunState.open(load(config, RunSettings, overrides or []).server.folder)
    record = run.quality()
    if record is None:
        raise StateError("not every site has told its counts yet; `fl-server status` shows who is there")
    Console().print(quality_table(run, record))


@app.command()
def pause(config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Let visits in hand finish, then begin no other."""
    Control(_folder_of_run(config, overrides)).say("pause")
    typer.echo("paused: visits in hand finish, no other begins; `fl-server resume` goes on")


@app.command()
def resume(config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Go on after `pause`, or let a stopped run try its failed visits again at its next start."""
    folder = _folder_of_run(config, overrides)
    Control(folder).say("run")
    retried = _forget_failures(folder)
    typer.echo(f"resumed{f'; {retried} failed visit(s) will be tried again: start fl-server' if retried else ''}")


@app.command()
def cancel(config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """End the run for good: workers at the sites are killed, what was committed stays."""
    Control(_folder_of_run(config, overrides)).say("cancel")
    typer.echo("cancelled: a running coordinator stops within a second")


@app.command()
def join(site: Site, config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Take a site into a run that is going on: it trains from the next round on, once it is connected.

    It needs a certificate (`ca sign`) and its own YAML, nothing else; the run goes on meanwhile.
    """
    RunState.open(_folder_of_run(config, overrides)).members().ask(site, "join")
    typer.echo(f"{site} joins at the next round that begins after it has connected and told its counts")


@app.command()
def leave(site: Site, config: Config = DEFAULT_CONFIG, overrides: Overrides = None) -> None:
    """Let a site leave a run: what it gave stays, and from the next round on nobody waits for it.

    A visit that it is making now is still taken; one for which the run waits in vain is given up at once.
    """
    run = RunState.open(_folder_of_run(config, overrides))
    run.members().ask(site, "leave", run.record.settings.quorum or 1)
    typer.echo(f"{site} leaves before the next round; `fl-server join` takes it back")


def _folder_of_run(config: Path, overrides: list[str] | None) -> Path:
    folder = load(config, RunSettings, overrides or []).server.folder
    RunState.open(folder)
    return folder


def _forget_failures(folder: Path) -> int:
    failed = [path for path in (folder / "spool").glob("*/outcome.json") if '"refusal": "' in path.read_text()]
    for path in failed:
        path.unlink()
    return len(failed)


@app.command()
def verify(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN_FOLDER]", help="The run's folder, or a copy of it.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The run's YAML, in place of its folder.")
    ] = None,
    site_ledger: Annotated[
        list[Path] | None, typer.Option(help="A site's own ledger.jsonl, to be compared; may be given again.")
    ] = None,
    root_fingerprint: Annotated[
        str | None, typer.Option(help="Of the consortium's root, as told by another channel.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check offline that every digest and signature chains to the released model; name who contributed to it.

    Needs the folder alone: no key, no site, no network. Says where one changed byte is. docs/ledger.md
    """
    from mammofed_server.verify import verify_run
    from mammofed_server.verify_report import print_report

    if (folder is None) == (config is None):
        raise ConfigurationError("name the run's folder, or its YAML with --config")
    place = folder if folder is not None else load(config, RunSettings, []).server.folder  # type: ignore[arg-type]
    report = verify_run(place, root_fingerprint, site_ledger or ())
    if json:
        typer.echo(report.json())
    else:
        print_report(report, Console())
    code = {"whole": ExitCode.OK, "tampered": ExitCode.TAMPERED, "incomplete": ExitCode.INCOMPLETE}[report.verdict]
    raise typer.Exit(code)


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder that does not exist yet.")],
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    turn: Annotated[int | None, typer.Option(help="Which checkpoint; the last one by default.")] = None,
) -> None:
    """Write a checkpoint as folders that `timm` and `transformers` load without our code."""
    settings = load(config, RunSettings, overrides or [])
    run = RunState.open(settings.server.folder)
    checkpoint = run.checkpoint_folder(run.last_turn() if turn is None else turn)
    text_encoder = locate_text_encoder(settings.text_encoder) if settings.text_encoder is not None else None
    export_checkpoint(checkpoint, text_encoder, output)
    typer.echo(f"exported to {output}")


@app.command()
def report(
    config: Config = DEFAULT_CONFIG,
    overrides: Overrides = None,
    turn: Annotated[
        int | None, typer.Option(help="Which checkpoint's evaluation; the last one by default.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A folder that does not exist yet; in the run's by default."),
    ] = None,
) -> None:
    """Draw an evaluation over all sites: one HTML page with its figures, and each figure as PNG.

    Holds nothing but released numbers. Figures of few patients are named as suppressed, and sites are not ranked where
    there are not enough cancers for it. docs/evaluation.md
    """
    from mammofed_server.report.gathered import evaluated_turn, gather
    from mammofed_server.report.page import write_report

    run = RunState.open(load(config, RunSettings, overrides or []).server.folder)
    record = evaluated_turn(run, turn)
    place = output if output is not None else run.folder / "reports" / f"{record.turn:05d}"
    typer.echo(f"look at it: {write_report(gather(run, record), place, replace=output is None)}")


# ── certificate authority ───────────────────────────────────────────────────────────────────────────────────────


@authority.command("init")
def ca_init(
    folder: Folder,
    consortium: Annotated[str, typer.Option(help="Trust domain, e.g. mammofed-demo.")],
    host: Annotated[list[str], typer.Option(help="DNS name or address by which sites reach the coordinator.")],
    passphrase_file: Annotated[Path | None, typer.Option(help="File with the root key's passphrase.")] = None,
) -> None:
    """Make the consortium's root, the renewal authority and the coordinator's own certificate."""
    made = ca.init(folder, consortium, host, _passphrase(passphrase_file, confirm=True))
    typer.echo(f"authority of {consortium} made in {folder}; tell every site its root's fingerprint:")
    typer.echo(made.root_fingerprint)


@authority.command("sign")
def ca_sign(
    request: Annotated[Path, typer.Argument(help="The site's certificate request.")],
    folder: Folder,
    site: Annotated[str, typer.Option(help="Name of the site; becomes its identity.")],
    fingerprint: Annotated[str, typer.Option(help="The key's fingerprint, as the site told it by another channel.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the certificate for the site is written.")],
    days: Annotated[int, typer.Option(help="Validity.")] = 365,
    passphrase_file: Annotated[Path | None, typer.Option(help="File with the root key's passphrase.")] = None,
) -> None:
    """Sign a site's request, after comparing the fingerprint of its key."""
    try:
        csr = request.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{request}: cannot be read: {error.strerror}") from error
    bundle = ca.sign(folder, csr, site, fingerprint, _passphrase(passphrase_file, confirm=False), days=days)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(bundle)
    typer.echo(f"signed for site {site}: send {output} back; nothing in it is secret")


@authority.command("refresh")
def ca_refresh(
    folder: Folder,
    host: Annotated[list[str] | None, typer.Option(help="New DNS names or addresses; as before by default.")] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="File with the root key's passphrase.")] = None,
) -> None:
    """Sign the renewal authority and the coordinator's certificate again, before they expire."""
    until = ca.refresh(folder, _passphrase(passphrase_file, confirm=False), host or ())
    typer.echo(f"refreshed; run it again before {until:%Y-%m-%d}. A running fl-server takes it up by itself")


@authority.command("revoke")
def ca_revoke(
    folder: Folder,
    site: Annotated[list[str] | None, typer.Option(help="Shut out a site: all its certificates and renewals.")] = None,
    serial: Annotated[list[str] | None, typer.Option(help="Shut out one certificate, as `ca list` shows it.")] = None,
    passphrase_file: Annotated[Path | None, typer.Option(help="File with the root key's passphrase.")] = None,
) -> None:
    """Revoke certificates, for good. A running coordinator refuses their next call, also on open connections.

    The list, revoked.pem, lies in the authority's folder and in its folder server/. Where the coordinator runs on
    another machine, copy it into the folder that its setting server.identity names; it is read at the next call.
    """
    until = ca.revoke(folder, _passphrase(passphrase_file, confirm=False), site or (), serial or ())
    typer.echo(f"revoked: {folder / 'revoked.pem'}; the list holds until {until:%Y-%m-%d}, renewed by `ca refresh`")


@authority.command("list")
def ca_list(folder: Folder) -> None:
    """Show every certificate that was issued."""
    table = Table("site", "serial", "valid until", "revoked", "key fingerprint", "issued by")
    revoked = ca.revoked_serials(folder)
    for item in ca.listing(folder):
        word = "revoked" if int(item.serial, 16) in revoked else ""
        table.add_row(item.site, item.serial, item.not_after[:10], word, item.fingerprint, item.issuer)
    Console().print(table)


def _passphrase(file: Path | None, *, confirm: bool) -> bytes:
    if file is not None:
        return file.read_bytes().strip()
    if PASSPHRASE_VARIABLE in os.environ:
        return os.environ[PASSPHRASE_VARIABLE].encode()
    if not sys.stdin.isatty():
        raise ConfigurationError(f"no passphrase: give --passphrase-file, or set {PASSPHRASE_VARIABLE}")
    first = getpass.getpass("Passphrase of the root key: ")
    if confirm and first != getpass.getpass("The same again: "):
        raise ConfigurationError("the two passphrases differ")
    return first.encode()


def main() -> None:
    """Entry point of `fl-server`."""
    run_command(app)


if __name__ == "__main__":
    main()
