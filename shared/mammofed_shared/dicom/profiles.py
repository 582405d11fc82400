"""Archives with habits of their own: an import profile rewrites a header into what the standard would have said."""

import re
from dataclasses import replace
from importlib import resources
from pathlib import Path

from mammofed_shared.config.import_profile import TARGETS, ImportProfile
from mammofed_shared.config.loading import load
from mammofed_shared.dicom.header import Header
from mammofed_shared.dicom.reasons import BY_WORD, Reason
from mammofed_shared.errors import ConfigurationError, UnreadableImage

_SHIPPED = Path(str(resources.files("mammofed_shared.dicom"))) / "import_profiles"
_FIELD_OF = {"laterality": "image_laterality", "view": "view_position"}
"""Header fields that carry what a pattern took out, where they have another name."""


def load_profile(name: str) -> ImportProfile:
    """A shipped profile by its name, or the one in a YAML file.

    Raises:
        ConfigurationError: there is none, or it is wrong; the message names the key.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return load(Path(name), ImportProfile, [])
    shipped = sorted(path.stem for path in _SHIPPED.glob("*.yaml"))
    if name not in shipped:
        raise ConfigurationError(f"profile {name!r}: expected one of {', '.join(shipped)}, or the path of a YAML file")
    return load(_SHIPPED / f"{name}.yaml", ImportProfile, [])


def normalised(header: Header, profile: ImportProfile) -> tuple[Header, frozenset[str]]:
    """The header as the standard would have it, and what of it the profile has said (``laterality``, ``view``, …).

    Raises:
        UnreadableImage: the profile refuses the file, or its patterns contradict each other.
    """
    for rule in profile.refuse:
        if re.search(rule.matches, _text(header, rule.attribute)):
            raise UnreadableImage(BY_WORD[rule.reason], "the import profile refuses it")
    found: dict[str, str] = {}
    for number, pattern in enumerate(profile.patterns, 1):
        match = re.fullmatch(pattern.matches, _text(header, pattern.attribute))
        if match is None and pattern.otherwise == "refuse":
            raise UnreadableImage(Reason.NOT_OF_PROFILE, f"pattern {number} of the import profile does not match")
        for target, part in (match.groupdict() if match else {}).items():
            word = profile.words.get(part, part) if part else ""
            if word and found.setdefault(target, word) != word:
                raise UnreadableImage(Reason.CONTRADICTING_TAGS, f"the import profile finds two values of {target}")
    changes: dict[str, object] = {name: () if name == "patient_orientation" else "" for name in profile.ignore}
    changes |= {_FIELD_OF.get(target, target): found[target] for target in TARGETS if target in found}
    if "laterality" in found:
        changes |= {"laterality": "", "frame_lateralities": ()}
    if "view" in found:
        changes |= {"view_codes": ()}
    header = replace(header, **changes)  # type: ignore[arg-type]
    return replace(header, study=_text(header, profile.study)), frozenset(found)


def _text(header: Header, attribute: str) -> str:
    value = getattr(header, attribute)
    return value if isinstance(value, str) else "\\".join(value)
