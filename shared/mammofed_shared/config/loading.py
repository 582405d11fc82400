"""Reads YAML into a settings model, and says where a wrong key is and which one was probably meant."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from mammofed_shared.config.base import Settings
from mammofed_shared.errors import ConfigurationError

S = TypeVar("S", bound=Settings)
Location = tuple[str | int, ...]


def load(path: Path, model: type[S], overrides: Sequence[str] = ()) -> S:
    """Read ``path`` as ``model``, with ``key.sub=value`` overrides laid over it.

    Raises:
        ConfigurationError: all that is wrong at once, each with its key, its line and the nearest right name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}. Give the file with --config.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path}: expected keys and values, found {type(values).__name__}")
    lines = _lines(path, node)
    for override in overrides:
        _apply_override(values, override, lines)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_describe(problem, model, lines)}" for problem in error.errors())
        raise ConfigurationError(f"{path} is not right:\n{problems}") from error


def _lines(path: Path, node: yaml.Node | None, prefix: Location = ()) -> dict[Location, int]:
    """Map each key's location to its line, counted from 1.

    Raises:
        ConfigurationError: a key stands twice; YAML would silently take the second.
    """
    found: dict[Location, int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = (*prefix, str(key.value))
            line = key.start_mark.line + 1
            if where in found:
                name = ".".join(map(str, where))
                raise ConfigurationError(
                    f"{path}: line {line}, {name}: stands there twice (first in line {found[where]})"
                )
            found[where] = line
            found |= _lines(path, value, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            found[(*prefix, index)] = item.start_mark.line + 1
            found |= _lines(path, item, (*prefix, index))
    return found


def _apply_override(values: dict[str, Any], override: str, lines: dict[Location, int]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigurationError(f"override {override!r}: expected key.sub=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"override {override!r}: the value is not YAML: {error}") from error
    where: Location = ()
    inner: Any = values
    *parents, last = key.split(".")
    for part in parents:
        where = (*where, part)
        if isinstance(inner, list):
            inner = _list_item(inner, part, override)
        else:
            if inner.get(part) is None:
                inner[part] = {}
            inner = inner[part]
        if not isinstance(inner, dict | list):
            raise ConfigurationError(f"override {override!r}: {'.'.join(map(str, where))} holds no keys")
    if isinstance(inner, list):
        _list_item(inner, last, override)
        inner[int(last)] = value
    else:
        inner[last] = value
    lines[tuple(int(part) if part.isdigit() else part for part in key.split("."))] = 0


def _list_item(items: list[Any], part: str, override: str) -> Any:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigurationError(f"override {override!r}: {part!r} is not an index below {len(items)}")
    return items[int(part)]


def _describe(problem: Mapping[str, Any], model: type[BaseModel], lines: dict[Location, int]) -> str:
    where, holder = _followed(problem["loc"], model)
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(problem, where, lines)
    name = ".".join(map(str, where)) or "(whole file)"
    place = _place(where, lines)
    if problem["type"] == "extra_forbidden":
        known = list(holder.model_fields) if holder else []
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{place}{name}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{place}{name}: missing; it has no default"
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    found = f" (found {given!r})" if isinstance(given, str | int | float | bool) or given is None else ""
    return f"{place}{name}: {message}{found}"


def _describe_tag(problem: Mapping[str, Any], where: Location, lines: dict[Location, int]) -> str:
    """What is wrong with the key that tells the members of a union apart."""
    context = problem["ctx"]
    key = (*where, str(context["discriminator"]).strip("'"))
    start = f"{_place(key, lines)}{'.'.join(map(str, key))}"
    if problem["type"] == "union_tag_not_found":
        return f"{start}: missing; it has no default"
    known = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
    near = difflib.get_close_matches(context["tag"], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
    return f"{start}: {context['tag']!r} is unknown; {hint}"


def _place(where: Location, lines: dict[Location, int]) -> str:
    line = next((lines[where[:n]] for n in range(len(where), 0, -1) if where[:n] in lines), None)
    return "" if line is None else "override, " if line == 0 else f"line {line}, "


def _followed(location: Location, model: type[BaseModel]) -> tuple[Location, type[BaseModel] | None]:
    """A location as the file has it, and the model whose key its last part is.

    Nested models and sequences of models are followed. Where a key tells the members of a union apart, pydantic puts
    its value into the location, which is no key of the file.
    """
    where: Location = ()
    holder: type[BaseModel] | None = None
    current: type[BaseModel] | None = model
    members: Mapping[str | int, type[BaseModel]] = {}
    for part in location:
        if part in members:
            current, members = members[part], {}
            continue
        where = (*where, part)
        if isinstance(part, str):
            holder = current
            field = current.model_fields.get(part) if current else None
            members = _members(field) if field else {}
            current = _model_in(field.annotation) if field else None
    return where, holder


def _members(field: FieldInfo) -> dict[str | int, type[BaseModel]]:
    """The models of a union, by the value of the key that tells them apart; none where it is no such union."""
    if not isinstance(field.discriminator, str):
        return {}
    members = get_args(field.annotation)
    return {get_args(member.model_fields[field.discriminator].annotation)[0]: member for member in members}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
