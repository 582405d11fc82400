"""The repository around the code: what documents, configuration files and pins promise is there."""

import importlib
import itertools
import re
import shlex
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mammofed_shared.commands import DefaultCommandGroup, ExitCode
from mammofed_shared.errors import RefusalCode

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*") if path.suffix in {".yaml", ".yml"})
COMMANDS = {
    "fl-server": "mammofed_server.cli",
    "site-client": "mammofed_site.cli",
    "fl-simulate": "mammofed_simulation.cli",
}
TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md"),
    *("configs", "constraints.txt", "deploy", "docs", "pyproject.toml", "server", "shared", "site_client", "tests"),
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def asked_for() -> list[Requirement]:
    """Everything that pyproject.toml names: dependencies, extras and the build backend."""
    declared = project()
    extras = declared["project"]["optional-dependencies"].values()
    lines = [
        *declared["project"]["dependencies"],
        *(line for extra in extras for line in extra),
        *declared["build-system"]["requires"],
    ]
    return [Requirement(line) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = re.compile(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.+!]*)")
    found: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith("#"):
            match = exact.fullmatch(line)
            assert match, f"constraints.txt: expected name==version, found {line!r}"
            assert canonicalize_name(match[1]) not in found, f"constraints.txt pins {match[1]} twice"
            found[canonicalize_name(match[1])] = match[2]
    return found


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def split_code(document: Path) -> tuple[list[str], list[str]]:
    """Lines of fenced blocks, and pieces of inline code."""
    text = document.read_text(encoding="utf-8")
    fence = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    fenced = [line.split("  #")[0].strip() for block in fence.findall(text) for line in block.splitlines()]
    return fenced, [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", fence.sub("", text))]


def ours(lines: list[str]) -> list[str]:
    return [line for line in lines if line.split(" ")[0] in COMMANDS and "…" not in line]


def complaint(line: str, complete: bool = True) -> str | None:
    """What is wrong with a command line of ours, judged by the commands' own parsers; nothing is run.

    A line that is only a mention (``complete=False``) may leave out what the command needs.
    """
    program, *words = shlex.split(line, comments=True)
    command: click.Command = typer.main.get_command(importlib.import_module(COMMANDS[program]).app)
    while isinstance(command, click.Group):
        if words and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        elif isinstance(command, DefaultCommandGroup):
            command = command.commands[command.default_command]
        else:
            return None if not words and not complete else f"{line}: {command.name} has no such verb"
    try:
        given = command.make_context(program, words).params
    except click.MissingParameter as error:
        return str(error) if complete else None
    except click.UsageError as error:
        return f"{line}: {error.format_message()}"
    strange = [word for word in given.get("overrides") or [] if "=" not in word]
    return f"{line}: neither verbs nor key=value: {strange}" if strange else None


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_names_only_make_targets_that_exist(document: Path) -> None:
    fenced, inline = split_code(document)
    named = {match[1] for line in fenced + inline if (match := re.match(r"make ([a-z][a-z-]*)", line))}

    assert named - make_targets() == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_names_only_commands_and_options_that_exist(document: Path) -> None:
    fenced, inline = split_code(document)
    complaints = [complaint(line) for line in ours(fenced)]
    complaints += [complaint(line, complete=False) for line in ours(inline)]

    assert [found for found in complaints if found] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_a_document_names_only_files_of_ours_that_exist(document: Path) -> None:
    fenced, inline = split_code(document)
    path = re.compile(r"\b(?:configs|docs|tests|shared|server|site_client|deploy)/[\w./-]+\.\w+")
    named = {found for line in fenced + inline for found in path.findall(line)}

    assert {found for found in named if not (ROOT / found).exists()} == set()


def test_the_readme_shows_the_two_targets_and_the_three_commands() -> None:
    fenced, _ = split_code(ROOT / "README.md")

    assert {"make demo", "make test"} <= set(fenced)
    assert {line.split(" ")[0] for line in ours(fenced)} == set(COMMANDS) == set(project()["project"]["scripts"])


@pytest.mark.parametrize("line", ["fl-server statuss", "site-client --sites mayo", "fl-server ca", "site-client"])
def test_a_wrong_command_line_is_seen(line: str) -> None:
    assert complaint(line)


def test_there_are_configuration_files() -> None:
    assert CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_a_configuration_file_opens_with_its_purpose_and_its_command(config: Path) -> None:
    lines = config.read_text(encoding="utf-8").splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    commands = [found for line in head for found in re.findall(rf"\b(?:{'|'.join(COMMANDS)})\b[^`&]*", line)]
    targets = {found for line in head for found in re.findall(r"\bmake ([a-z-]+)", line)}

    assert head, "a comment at the head must say what the file is for"
    assert len(head[0].split()) > 4, "its first line must say it in words"
    assert commands or targets, f"it must name the command that runs it: {', '.join(COMMANDS)} or make"
    assert targets <= make_targets()
    assert [found for line in commands if (found := complaint(line))] == []


def test_everything_that_pyproject_asks_for_is_pinned() -> None:
    missing = {item.name for item in asked_for() if canonicalize_name(item.name) not in pins()}
    contradicting = {
        str(item) for item in asked_for() if not item.specifier.contains(pins()[canonicalize_name(item.name)])
    }

    assert missing == set()
    assert contradicting == set()


def test_what_the_dependencies_bring_in_is_pinned() -> None:
    """Walks the installed distributions; one that is not installed here is seen where it is."""
    waiting = [(item, "") for item in asked_for()]
    seen: set[tuple[str, str]] = set()
    unpinned = set()
    while waiting:
        item, extra = waiting.pop()
        key = canonicalize_name(item.name)
        if (key, extra) in seen or (item.marker and not item.marker.evaluate({"extra": extra})):
            continue
        seen.add((key, extra))
        if key not in pins():
            unpinned.add(key)
        try:
            needs = metadata.requires(item.name) or []
        except metadata.PackageNotFoundError:
            continue
        waiting += [(Requirement(need), wanted) for need in needs for wanted in ("", *item.extras)]

    assert len(seen) > len(asked_for())
    assert unpinned == set()


def test_each_dependency_has_its_reason() -> None:
    table = (ROOT / "docs/decisions/0008-dependencies.md").read_text(encoding="utf-8")
    named = {
        canonicalize_name(word)
        for row in re.findall(r"^\| (.+) \|$", table, re.MULTILINE)
        for word in re.findall(r"[\w.-]+", " ".join(row.split(" | ")[:-1]))
    }
    declared = project()["project"]
    extras = declared["optional-dependencies"]
    asked = {canonicalize_name(Requirement(line).name) for lines in extras.values() for line in lines}
    asked |= {canonicalize_name(Requirement(line).name) for line in declared["dependencies"]}

    assert asked - named == set()
    assert named - asked - set(extras) == {"package", "extra"}


def test_each_refusal_code_has_its_remedy() -> None:
    text = (ROOT / "docs/operate/errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([A-Z0-9_]+)` \|.*\| .+ \| .+ \|$", text, re.MULTILINE)

    assert {(int(number), code) for number, code in rows} == {(code.value, code.name) for code in RefusalCode}


def test_each_exit_code_is_explained() -> None:
    text = (ROOT / "docs/operate/errors.md").read_text(encoding="utf-8")
    table = text[: text.index("## Refusal codes")]

    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == list(ExitCode)


def test_the_top_level_holds_nothing_unexpected() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    found = {Path(line).parts[0] for line in listed}

    assert found - TOP_LEVEL == set()
    assert {item for item in TOP_LEVEL if not (ROOT / item).exists()} == set()


def test_the_build_machine_runs_make_test_and_make_test_checks() -> None:
    script = ROOT / ".ci" / "run"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert script.stat().st_mode & 0o111
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"
    assert re.search(r"^test: check\b", makefile, re.MULTILINE)
