"""Hostile files through the real ``prepare_file`` in a real worker: all are answered, no answer quotes a header."""

import ast
import builtins
import functools
import re
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

import mammofed_shared.dicom
from dicom_encodings import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    HTJ2K_LOSSLESS,
    IMPLICIT_LE,
    J2K_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
    Element,
    dicom_file,
    elements_of,
    file_of,
)
from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.data_set import PARSING_ERRORS
from mammofed_shared.dicom.pool import Loss, Lost, map_isolated
from mammofed_shared.dicom.preprocess import Prepared, Recipe, Refusal, prepare_file
from mammofed_shared.dicom.reasons import BY_WORD, Kind

NAME, NUMBER = "Canary^Secretia", "774130295861"
LIMIT_S = 20.0
SYNTAXES = (EXPLICIT_LE, RLE, JPEG_LOSSLESS_SV1, JPEG_LS, J2K_LOSSLESS, HTJ2K_LOSSLESS)
PERSONAL = {
    "PatientName": NAME,
    "PatientID": NUMBER,
    "StudyDate": "19610413",
    "AccessionNumber": "SECRETIA",
    "StudyDescription": NAME,
    "WindowCenter": "2000",
    "WindowWidth": "3000",
}

KEYWORDS = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"),
    *("PhotometricInterpretation", "NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTSequence"),
    *("VOILUTFunction", "SpecificCharacterSet", "PatientName", "PatientID", "OtherPatientIDsSequence", "StudyDate"),
    *("ImageType", "Modality", "Laterality", "ImageLaterality", "ViewPosition", "ViewCodeSequence"),
    *("PatientOrientation", "ImagerPixelSpacing", "PixelSpacing", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"),
    *("PerFrameFunctionalGroupsSequence", "ReferringPhysicianName", "IconImageSequence", "Manufacturer"),
)
TAGS = [tag_for_keyword(keyword) or 0 for keyword in KEYWORDS]
VRS = [b"AT", b"CS", b"DA", b"DS", b"FD", b"IS", b"LO", b"OB", b"OW", b"PN", b"SQ", b"UI", b"UL", b"UN", b"US", b"ZZ"]

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


class File(bytes):
    """Bytes that hypothesis can show: the smallest that fails is its last, and so the file that ``Intake`` leaves."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes: `file` in pytest's folder mutations0>"


Change = Callable[[list[Element]], list[Element]]


class Intake:
    """One worker that stays while many files are handed to it, one after the other."""

    def __init__(self, folder: Path) -> None:
        recipe = Recipe(PreprocessingSettings(height=64, width=48), ImportProfile(), b"k" * 32, folder / "out")
        self._path, self._filler = folder / "file", folder / "empty"
        self._filler.touch()
        self._waiting: deque[Path] = deque()
        self._answers = map_isolated(
            functools.partial(prepare_file, recipe), self._items(), workers=1, timeout_s=LIMIT_S
        )

    def answer(self, file: bytes) -> Prepared | Refusal | Lost:
        self._path.write_bytes(file)
        self._waiting.append(self._path)
        return next(result for path, result in self._answers if path == self._path)

    def _items(self) -> Iterator[Path]:
        # The pool draws one item ahead: an empty file, so that it need not wait for the next one.
        while True:
            yield self._waiting.popleft() if self._waiting else self._filler


@pytest.fixture(scope="module")
def intake(tmp_path_factory: pytest.TempPathFactory) -> Intake:
    return Intake(tmp_path_factory.mktemp("mutations"))


@functools.cache
def vocabulary() -> frozenset[str]:
    """Words of our own source's texts, and names of exceptions: all that an answer may be made of."""
    words: set[str] = set()
    for path in Path(mammofed_shared.dicom.__file__).parent.glob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        words |= {word for text in texts if isinstance(text, str) for word in re.findall("[A-Za-z]+", text)}
    errors = {name for name, value in vars(builtins).items() if isinstance(value, type)}
    return frozenset(words | errors | {error.__name__ for error in PARSING_ERRORS} | {"InvalidOperation"})


@functools.cache
def whole(syntax: str) -> bytes:
    return dicom_file(syntax=syntax, **PERSONAL)


def item(*elements: Element) -> bytes:
    body = b"".join(element.written() for element in elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body


def element(tag: int, vr: bytes, value: bytes) -> Element:
    return Element(tag >> 16, tag & 0xFFFF, vr, value)


tags = st.one_of(st.sampled_from(TAGS), st.integers(0x00080000, 0x7FE0FFFF))
texts = st.sampled_from(
    [
        NAME,
        NUMBER,
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "65535",
        "1\\2\\3",
        "\\",
        "MG",
        "L",
        "R",
        "CC",
        "\\A\\",
        "x" * 70000,
    ]
).map(lambda text: text.encode().ljust((len(text) + 1) // 2 * 2))
numbers = st.sampled_from([0, 1, 7, 8, 12, 16, 31, 32, 40, 255, 4095, 65535, 2**31, 2**32 - 1]).map(
    lambda number: struct.pack("<L", number)[: 2 if number < 65536 else 4]
)
values = st.one_of(texts, numbers, st.binary(max_size=24))
plain = st.builds(element, tags, st.sampled_from(VRS), values)
nested = st.lists(plain, max_size=3).map(lambda found: item(*found))
sequences = st.builds(element, tags, st.just(b"SQ"), st.lists(nested, max_size=3).map(b"".join))
lengths = st.sampled_from([0, 1, 7, 255, 65535, 2**31, 2**32 - 1])


@st.composite
def changes(draw: st.DrawFn) -> Change:
    kind, tag = draw(st.sampled_from(["set", "set", "nest", "delete", "retype", "lie"])), draw(st.sampled_from(TAGS))
    if kind in ("set", "nest"):
        new = draw(plain if kind == "set" else sequences)
        vr = dictionary_VR(new.group << 16 | new.number).encode() if draw(st.booleans()) and is_public(new) else new.vr
        return lambda found: placed(found, replace(new, vr=vr[:2]))
    if kind == "delete":
        return lambda found: [old for old in found if old.group << 16 | old.number != tag]
    vr, length = draw(st.sampled_from(VRS)), draw(lengths)
    change = {"vr": vr} if kind == "retype" else {"length": length}
    return lambda found: [replace(old, **change) if old.group << 16 | old.number == tag else old for old in found]


def is_public(new: Element) -> bool:
    return new.group << 16 | new.number in TAGS


def placed(found: list[Element], new: Element) -> list[Element]:
    """In the order of tags, instead of an equal one."""
    key = (new.group, new.number)
    before = [old for old in found if (old.group, old.number) < key]
    return [*before, new, *(old for old in found if (old.group, old.number) > key)]


@st.composite
def bent(draw: st.DrawFn, file: bytes) -> bytes:
    """Bytes flipped, most of them in the header; the end cut off; rubbish behind it."""
    bent = bytearray(file)
    for _ in range(draw(st.integers(0, 6))):
        least, most = draw(st.sampled_from([(0, 900), (300, 900), (700, 1300), (900, max(900, len(file)))]))
        bent[min(draw(st.integers(least, most)), len(bent) - 1)] ^= draw(st.integers(1, 255))
    if draw(st.integers(0, 4)) == 0:
        del bent[draw(st.integers(0, len(bent))) :]
    if draw(st.integers(0, 5)) == 0:
        bent += draw(st.binary(min_size=1, max_size=40))
    return bytes(bent)


@st.composite
def hostile_files(draw: st.DrawFn) -> File:
    file = whole(draw(st.sampled_from(SYNTAXES)))
    start, elements = elements_of(file)
    for change in draw(st.lists(changes(), min_size=1, max_size=4)):
        elements = change(elements)
    file = file_of(start, elements)
    return File(draw(bent(file)) if draw(st.integers(0, 2)) == 0 else file)


@st.composite
def bent_files(draw: st.DrawFn) -> File:
    return File(draw(bent(whole(draw(st.sampled_from((*SYNTAXES, IMPLICIT_LE, EXPLICIT_BE, DEFLATED_LE)))))))


def check(answer: Prepared | Refusal | Lost) -> str:
    """The word of the answer; fails where it is none of the closed list, or says anything of the header."""
    if isinstance(answer, Prepared):
        assert NAME not in repr(answer)
        assert NUMBER not in repr(answer)
        return "accepted"
    if isinstance(answer, Lost):
        assert answer.loss is Loss.DIED, answer  # of a decoder; anything else is an error of ours
        return "decoder_died"
    assert BY_WORD[answer.reason].kind is not Kind.FLAG
    assert NUMBER not in answer.detail
    assert set(re.findall("[A-Za-z]+", answer.detail)) <= vocabulary(), answer
    return answer.reason


def answers(intake: Intake, files: st.SearchStrategy[File], num_files: int) -> Counter[str]:
    """Words of the answers, and how often each was given."""
    seen: Counter[str] = Counter()

    @settings(derandomize=True, database=None, deadline=None, max_examples=num_files, suppress_health_check=SLOW)
    @given(file=files)
    def hand_over(file: File) -> None:
        seen[check(intake.answer(file))] += 1

    hand_over()
    return seen


def test_every_header_that_was_tampered_with_is_answered_with_a_word_of_the_list(intake: Intake) -> None:
    seen = answers(intake, hostile_files(), 600)
    assert len(seen) >= 12, seen


def test_every_file_that_was_damaged_is_answered_with_a_word_of_the_list(intake: Intake) -> None:
    seen = answers(intake, bent_files(), 400)
    assert len(seen) >= 8, seen
