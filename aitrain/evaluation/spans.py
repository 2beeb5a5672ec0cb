"""Tags of tokens: the spans that they mark, how well they were found, and marks that contradict each other.

A scheme tells a span of tokens by a mark before its type (`B-PER`), with `O` outside: BIO and IOB1 (Ramshaw and Marcus
1995, https://arxiv.org/abs/cmp-lg/9505040), where IOB1 writes B only to part two spans of one type; BIOES and BILOU,
which also mark the end and the single token (Ratinov and Roth 2009, https://aclanthology.org/W09-1119/). A mark alone
(`B`) is a span of type `_`. Tags of no scheme, such as parts of speech, are "plain" and are judged token by token.

Spans are counted by seqeval, https://github.com/chakki-works/seqeval, in the way of conlleval.pl for BIO and IOB1,
where an I that continues nothing begins a span, and strictly for BIOES and BILOU, where a wrong mark makes it no span.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Rows = Sequence[Sequence[str]]

LARGEST_CONFUSION = 50
SHOWN = 20
PLAIN = "plain"


@dataclass(frozen=True)
class _Marks:
    """What a scheme writes before the type of a span's tokens."""

    begin: str
    inside: str
    end: str
    single: str
    after_same: str = ""
    """Written for `begin` where a span of the same type ends right before, and for `single` too."""

    def matches(self, tag: str) -> bool:
        marks = "".join(sorted({self.begin, self.inside, self.end, self.single, *self.after_same}))
        return tag == "O" or re.fullmatch(f"[{marks}](-.+)?", tag) is not None


SCHEMES = {
    "BIO": _Marks("B", "I", "I", "B"),
    "IOB1": _Marks("I", "I", "I", "I", after_same="B"),
    "BIOES": _Marks("B", "I", "E", "S"),
    "BILOU": _Marks("B", "I", "L", "U"),
}


def find_scheme(rows: Iterable[Sequence[str]]) -> str:
    """`BIO`, `IOB1`, `BIOES`, `BILOU` or `plain`: the scheme that the tags of `rows` are written in.

    The first of BIO, BIOES and BILOU to which every tag belongs; without any but `O` it is plain. IOB1 has the tags of
    BIO, and is told from it by the order: no B stands anywhere but right after a span of its own type, and some I
    begins a span. Of the names in a class map alone, one in each row, IOB1 can thus only be seen if it has no B at all.
    """
    held = [list(row) for row in rows]
    names = {tag for row in held for tag in row}
    if names <= {"O"}:
        return PLAIN
    found = next((name for name in ("BIO", "BIOES", "BILOU") if all(map(SCHEMES[name].matches, names))), PLAIN)
    if found == "BIO" and any(tag.startswith("I") for tag in names) and not any(faults(row, "IOB1") for row in held):
        return "IOB1"
    return found


def faults(tags: Sequence[str], scheme: str) -> list[tuple[int, str]]:
    """Places in one row whose tag contradicts its neighbours, each with what the scheme writes there instead.

    None for plain tags. Raises ValueError for a tag that is none of the scheme, and for an unknown scheme.
    """
    repaired, _ = repair(tags, scheme)
    return [
        (place, f"{tag!r} {_neighbours(tags, place)}, where {scheme} writes {right!r}")
        for place, (tag, right) in enumerate(zip(tags, repaired, strict=True))
        if tag != right
    ]


def repair(tags: Sequence[str], scheme: str) -> tuple[list[str], int]:
    """One row's tags with their marks made to agree, and how many were changed; types and `O` stay as they are.

    Spans are read as conlleval.pl reads them: a mark that continues nothing of its type begins a span, and a span goes
    on until its end mark, another type, or `O`. Plain tags come back as they are. Raises ValueError for a tag that is
    none of the scheme, and for an unknown scheme.
    """
    if scheme == PLAIN:
        return list(tags), 0
    marks = _marks_of(scheme, tags)
    repaired = ["O"] * len(tags)
    before: _Span | None = None
    for span in _lenient_spans(tags, marks):
        is_beside = before is not None and before.stop == span.start and before.type == span.type
        begin = marks.after_same if is_beside and marks.after_same else ""
        written = [marks.inside] * (span.stop - span.start)
        written[-1] = marks.end
        written[0] = begin or (marks.single if len(written) == 1 else marks.begin)
        for place, mark in enumerate(written, span.start):
            repaired[place] = mark + tags[place][1:]
        before = span
    return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


def spans_of(tags: Sequence[str], scheme: str) -> list[tuple[int, int, str]]:
    """The spans of one row that the scores are about: tokens `start` up to, without, `stop`, and the type.

    None for plain tags. Raises ValueError for a tag that is none of the scheme, and for an unknown scheme.
    """
    if scheme == PLAIN:
        return []
    _marks_of(scheme, tags)
    return sorted((start, stop, kind) for (start, stop), kind in _span_reader(scheme)(list(tags)).items())


def judge_tags(predicted: Rows, truth: Rows, scheme: str = "auto") -> dict[str, float]:
    """Measures of tags, a row of them for each row of tokens, all in [0, 1]; `scheme` as of `find_scheme`, or `auto`.

    Of spans: `precision`, `recall` and `f1` over all spans at once, `f1_macro` the mean over types that occur in truth
    or prediction, and `accuracy` of tokens. The first four are left out when there is no span in either. A ratio with
    nothing to divide by is 0. Of plain tags: `accuracy`, `f1_macro` and `f1_micro` (the accuracy, by another name) of
    tokens, the macro average over tags that occur in truth or prediction.

    Raises ValueError without tokens, for rows of different length, and for a tag that is none of the scheme.
    """
    scheme = _checked_scheme(predicted, truth, scheme)
    flat_truth, flat_predicted = _flat(truth), _flat(predicted)
    accuracy = sum(said == true for said, true in zip(flat_predicted, flat_truth, strict=True)) / len(flat_truth)
    if scheme != PLAIN:
        return _judge_spans(predicted, truth, scheme) | {"accuracy": accuracy}
    from sklearn.metrics import f1_score

    return {"accuracy": accuracy} | {
        f"f1_{average}": float(f1_score(flat_truth, flat_predicted, average=average, zero_division=0))
        for average in ("macro", "micro")
    }


def details_of_tags(predicted: Rows, truth: Rows, scheme: str = "auto") -> dict[str, Any]:
    """What a report shows of tags; arguments and errors as of `judge_tags`.

    `kind` ("tags") · `scheme` · `tags`, those that occur · `per_entity` [{entity, precision, recall, f1, support}] of
    each type of span, or `per_tag` [{tag, …}] of each plain tag · `confusion` [[tokens]], a line for each true tag and
    a column for each predicted one, absent for more than 50 tags · `wrong` [{row, from, to, truth, prediction}], the
    first 20 spans (plain: tokens) found where there is none, missed, or of another type: tokens `from` up to, without,
    `to`, and the two types, None where there is no such span.
    """
    scheme = _checked_scheme(predicted, truth, scheme)
    flat_truth, flat_predicted = _flat(truth), _flat(predicted)
    tags = sorted({*flat_truth, *flat_predicted})
    details: dict[str, Any] = {"kind": "tags", "scheme": scheme, "tags": tags}
    if scheme == PLAIN:
        from sklearn.metrics import precision_recall_fscore_support

        scores = precision_recall_fscore_support(flat_truth, flat_predicted, labels=tags, zero_division=0)
        details["per_tag"] = _table("tag", tags, scores)
    else:
        read = _span_reader(scheme)
        types = sorted({kind for row in (*truth, *predicted) for kind in read(list(row)).values()})
        scores = _span_scores(predicted, truth, scheme, None) if types else ()
        details["per_entity"] = _table("entity", types, scores)
    if len(tags) <= LARGEST_CONFUSION:
        counts = Counter(zip(flat_truth, flat_predicted, strict=True))
        details["confusion"] = [[counts[true, said] for said in tags] for true in tags]
    details["wrong"] = _wrong(predicted, truth, scheme)
    return details


@dataclass(frozen=True)
class _Span:
    type: str
    start: int
    stop: int


def _lenient_spans(tags: Sequence[str], marks: _Marks) -> list[_Span]:
    """Spans as conlleval.pl reads them. A span may end without its end mark, and begin without its first one."""
    found: list[_Span] = []
    ended = True
    for place, tag in enumerate(tags):
        if tag == "O":
            ended = True
            continue
        starts = {marks.begin, marks.single, *marks.after_same} - {marks.inside}
        if ended or tag[0] in starts or found[-1].type != tag[1:]:
            found.append(_Span(tag[1:], place, place + 1))
        else:
            found[-1] = _Span(tag[1:], found[-1].start, place + 1)
        ended = tag[0] in {marks.end, marks.single} - {marks.begin, marks.inside}
    return found


def _marks_of(scheme: str, tags: Iterable[str]) -> _Marks:
    if scheme not in SCHEMES:
        raise ValueError(f"there is no scheme {scheme!r}; there is {', '.join([*SCHEMES, PLAIN])}")
    marks = SCHEMES[scheme]
    strange = next((tag for tag in tags if not marks.matches(tag)), None)
    if strange is not None:
        raise ValueError(f"{strange!r} is no tag of {scheme}")
    return marks


def _neighbours(tags: Sequence[str], place: int) -> str:
    before = f"after {tags[place - 1]!r}" if place else "at the start"
    after = f"before {tags[place + 1]!r}" if place + 1 < len(tags) else "at the end"
    return f"{before} and {after}"


def _judge_spans(predicted: Rows, truth: Rows, scheme: str) -> dict[str, float]:
    read = _span_reader(scheme)
    if not any(read(list(row)) for row in (*truth, *predicted)):
        return {}
    precision, recall, f1, _ = _span_scores(predicted, truth, scheme, "micro")
    _, _, f1_macro, _ = _span_scores(predicted, truth, scheme, "macro")
    return {"precision": float(precision), "recall": float(recall), "f1": float(f1), "f1_macro": float(f1_macro)}


def _span_scores(predicted: Rows, truth: Rows, scheme: str, average: str | None) -> Any:
    """seqeval's precision, recall, F1 and support; without an average an array of each, by the sorted types."""
    from seqeval.metrics import sequence_labeling, v1

    rows = [list(row) for row in truth], [list(row) for row in predicted]
    strict = _strict_scheme(scheme)
    if strict is None:
        return sequence_labeling.precision_recall_fscore_support(*rows, average=average, zero_division=0)
    return v1.precision_recall_fscore_support(*rows, average=average, zero_division=0, scheme=strict)


def _strict_scheme(scheme: str) -> Any:
    from seqeval.scheme import BILOU, IOBES

    return {"BIOES": IOBES, "BILOU": BILOU}.get(scheme)


def _span_reader(scheme: str) -> Any:
    """A function from a row's tags to {(start, stop): type}, the spans that the scores are about; plain: each token."""
    if scheme == PLAIN:
        return lambda tags: {(place, place + 1): tag for place, tag in enumerate(tags)}
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import Tokens

    strict = _strict_scheme(scheme)
    if strict is None:
        return lambda tags: {(start, last + 1): kind for kind, start, last in get_entities(tags)}
    return lambda tags: {(found.start, found.end): found.tag for found in Tokens(tags, strict).entities}


def _wrong(predicted: Rows, truth: Rows, scheme: str) -> list[dict[str, Any]]:
    read = _span_reader(scheme)
    found: list[dict[str, Any]] = []
    for row, (said, true) in enumerate(zip(predicted, truth, strict=True)):
        guessed, gold = read(list(said)), read(list(true))
        for start, stop in sorted({*guessed, *gold}):
            types = gold.get((start, stop)), guessed.get((start, stop))
            if types[0] != types[1]:
                found.append({"row": row, "from": start, "to": stop, "truth": types[0], "prediction": types[1]})
        if len(found) >= SHOWN:
            break
    return found[:SHOWN]


def _table(what: str, names: Sequence[str], scores: Any) -> list[dict[str, Any]]:
    return [
        {
            what: name,
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(names, *scores, strict=True)
    ]


def _checked_scheme(predicted: Rows, truth: Rows, scheme: str) -> str:
    """The scheme, found where it is `auto`, once the rows are known to fit each other and it."""
    if len(predicted) != len(truth) or not any(len(row) for row in truth):
        raise ValueError(f"{len(predicted)} rows of predicted tags for {len(truth)} rows of tags")
    for number, (said, true) in enumerate(zip(predicted, truth, strict=True)):
        if len(said) != len(true):
            raise ValueError(f"row {number} has {len(true)} tags, but {len(said)} predicted ones")
    names = {*_flat(truth), *_flat(predicted)}
    if scheme == "auto":
        scheme = find_scheme([*truth, *predicted])
    if scheme != PLAIN:
        _marks_of(scheme, names)
    return scheme


def _flat(rows: Rows) -> list[str]:
    return [tag for row in rows for tag in row]
