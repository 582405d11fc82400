"""Sentences that stand in every report alike and say nothing of its images: they are dropped before training."""

import re
from collections.abc import Iterable, Iterator

_STAMP = re.compile(
    r"[ \t]*(?:(?:D|T|DD|DT|TD|TT|dictated|transcribed|transcription|transcriptionist|typed|finali[sz]ed|released|"
    r"printed|created|(?:job|document)(?: (?:id|no|number|#))?|workstation(?: id)?|report status|voice id)"
    # Who dictated and who typed: JS/kl.
    r"[ \t]*[:#].*(?:\d[/:-]\d|\d{4})|(?-i:[A-Z]{2,4})[/:][A-Z]{2,4}[ \t]*$)",
    re.IGNORECASE,
)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(\[*•-])|\n(?=[ \t]*(?:[A-Z•*\n-]|\d{1,2}[.)]))")
"""Also the end of a line, where the next begins as a sentence does: many lines of a report end without a full stop."""
_CAD = r"(?:CAD|computer[- ]?(?:aided|assisted)\b|ImageChecker|SecondLook)"
_DONE = r"(?:us|utili[sz]|perform|appli|employ|obtain|review|analy[sz]|process|evaluat|interpret)ed\b"
_WAS = r"(?:was|were|is|has been|have been|had been)"
_CANCERS = r"(?:cancers?|carcinomas?|malignancies)"
_WITH = r"(?:with|using|by|through|utili[sz]ing|aided by)"
_OWN = r"(?:personally |independently )?"
_PALPABLE = r"\b(?:palpable|clinical(?:ly)?)\b[^.]{0,80}\b"

_USE_OF_CAD = (  # not what it marked
    rf"\b{_CAD}[^.]{{0,60}}?\b{_WAS} (?:also )?{_DONE}",
    rf"\b{_WAS} (?:also )?[\w ]{{0,40}}\b{_WITH} (?:the )?(?:\w+ ){{0,4}}?{_CAD}",
    rf"\b(?:with|using) (?:the )?(?:aid|assistance|benefit|use|help) of (?:a )?{_CAD}",
)
_WHO_READ = (
    r"\b(?:this|the) (?:report|document|study|dictation|examination)\b[^.]{0,60}\b(?:electronically|digitally)",
    r"\b(?:this|the) (?:report|document|study|dictation)\b[^.]{0,60}\b"
    r"(?:dictated|transcribed|generated (?:by|using|with))",
    r"\b(?:voice|speech) recognition\b",
    r"\b(?:electronically|digitally) (?:signed|approved|authenticated|verified)\b",
    rf"\b(?:images?|films?|study|findings|report)(?: and \w+)? (?:{_WAS} )?{_OWN}reviewed (?:and \w+ )?by\b",
    r"\b(?:i|we|the (?:attending|staff|undersigned)[\w ]*?),?[^.]{0,40} "
    rf"(?:have|has) {_OWN}(?:reviewed|viewed|interpreted|read)\b",
    r"\b(?:resident|fellow):",
)
_LETTERS = (
    r"\b(?:letter|lay (?:summary|report|letter|terms|language))\b[^.]{0,120}\b"
    r"(?:sent|mailed|given|provided|patient|issued)",
    r"\bpatient (?:will be|was|has been) (?:notified|informed|sent|mailed|given)\b[^.]{0,80}\b"
    r"(?:results?|letter|mail|report)",
    r"\b(?:entered|placed|put) (?:\w+ ){0,3}(?:into|in) (?:a|the|our) [^.]{0,40}(?:reminder|recall|tracking) system",
)
_NOTICES = (  # that a law or a body asks for
    r"\b(?:mqsa|mammography quality standards act)\b",
    r"\b(?:certified|accredited) by\b",
    r"\b(?:facility|center|centre|department|unit)\b[^.]{0,80}\b(?:certified|accredited)\b",
    r"\byour (?:mammogram|breasts?|risk|doctor|physician|health|health ?care|provider|results?)\b",
    r"\b(?:federal|state) (?:law|regulation|mandate)",
    r"\bthis (?:notice|information) (?:about|is|contains)\b",
    r"\bdense (?:breast )?tissue is (?:very |relatively )?(?:common|normal|not abnormal)\b",
)
_LIMITS = (  # what mammography cannot do
    r"\b(?:negative|normal|benign) (?:mammogra\w+|x-?ray|imaging)\b[^.]{0,80}\b(?:should|does|must|cannot|may) not\b",
    r"\b(?:cancers|carcinomas)\b[^.]{0,40}\b(?:are|may be|will be|can be|may|will) (?:not (?:be )?"
    r"(?:detected|seen|visible|visuali[sz]ed|identified)|missed)\b[^.]{0,40}\b(?:mammogra|imaging)",
    rf"\b\d{{1,2}} ?(?:%|percent)[^.]{{0,60}}\b{_CANCERS}\b[^.]{{0,60}}\b(?:not|missed)\b",
    r"\bmammography (?:is not 100|has a false|does not detect|cannot detect|may not detect|will not detect)",
    r"\bfalse[- ]negative (?:rate|mammogra|report|result)",
    _PALPABLE + r"(?:should not be|must not be) (?:deterred|delayed|ignored)",
    _PALPABLE + r"should be (?:based|managed|evaluated|biopsied) (?:on )?(?:clinical|regard)",
    r"\b(?:delay|defer|preclude|deter)\b[^.]{0,20}\bbiopsy\b",
)
_RULES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (stems, re.compile("|".join(patterns), re.IGNORECASE))
    for stems, patterns in (
        (("cad", "computer", "imagechecker", "secondlook"), _USE_OF_CAD),
        (("tronically", "digitally", "dictat", "transcri", "recognition", "reviewed", " generated "), _WHO_READ),
        (
            ("resident:", "fellow:", "have viewed", "have read", "has read", "have personally", "has personally"),
            _WHO_READ,
        ),
        (("letter", "lay ", "notified", "informed", "mailed", "reminder", "recall system", "tracking"), _LETTERS),
        (("mqsa", "quality standards", "certified", "accredited", "your ", "federal", "state "), _NOTICES),
        (("dense breast tissue", "dense tissue", "this notice", "this information"), _NOTICES),
        (("not ", "missed", "false", "%", "percent", "delay", "defer", "deter", "palpable", "clinical"), _LIMITS),
    )
)
"""Parts of words, in lower case, of which a sentence must have one, and what is then searched in it."""

_LEGEND_WORDS = ("incomplete", "probably benign", "highly suggestive", "need additional")
_LEGEND_ITEM = re.compile(
    r"(?:\bBI-?RADS(?:\s+category)?\s*|\bcategory\s*|(?<![\w.])\(?)([0-6])\)?\s*[-=:–]\s*(?:incomplete|need|additional|"
    r"negative|benign|probably|suspicious|suspicion|highly|known|biopsy)[^.;,\n0-9]*[.;,]?",
    re.IGNORECASE,
)
_LEGEND_TITLE = re.compile(
    r"(?:\b(?:ACR )?BI-?RADS\W{0,2} (?:assessment )?(?:categories|codes|legend|key|scale|classification)\s*:?\s*)$",
    re.IGNORECASE,
)
_LEAST_LEGEND = 3
_WIDEST_GAP = 80


def without_stamps(lines: Iterable[str]) -> Iterator[str]:
    """The lines but those that say when and by whom a report was dictated and typed."""
    return (line for line in lines if not _STAMP.match(line))


def without_boilerplate(text: str) -> str:
    """A section on one line, without sentences that stand in every report alike."""
    lower = text.lower()
    if _has_any(_LEGEND_WORDS, lower):
        text = _without_legend(text)
    rules = [rule for rule in _RULES if _has_any(rule[0], lower)]
    return " ".join((" ".join(_kept(text, rules)) if rules else text).split())


def _kept(text: str, rules: list[tuple[tuple[str, ...], re.Pattern[str]]]) -> Iterator[str]:
    for sentence in _SENTENCE_END.split(text):
        # On one line: the patterns are written for single spaces.
        tidy = " ".join(sentence.split())
        lower = tidy.lower()
        if not any(_has_any(stems, lower) and pattern.search(tidy) for stems, pattern in rules):
            yield tidy


def _has_any(words: tuple[str, ...], text: str) -> bool:
    # A loop: a generator in any() takes twice as long, and this is where the time of reading reports goes.
    for word in words:  # noqa: SIM110
        if word in text:
            return True
    return False


def _without_legend(text: str) -> str:
    """The text without a table of the BI-RADS categories: three and more, explained one after the other."""
    items = list(_LEGEND_ITEM.finditer(text))
    start = 0
    while start < len(items):
        end = start + 1
        while (
            end < len(items)
            and int(items[end][1]) == int(items[end - 1][1]) + 1
            and items[end].start() - items[end - 1].end() <= _WIDEST_GAP
        ):
            end += 1
        if end - start >= _LEAST_LEGEND and int(items[start][1]) <= 1:
            before = _LEGEND_TITLE.sub("", text[: items[start].start()])
            return _without_legend(f"{before.rstrip()} {text[items[end - 1].end() :].lstrip()}".strip())
        start = end
    return text
