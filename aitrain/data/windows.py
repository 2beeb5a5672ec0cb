"""A question and a text to windows of token ids, in one of which the answer stands. No torch.

A text too long for one input is read in several that overlap, each behind the whole question; the loss of one without
the answer is that of saying so, at its first token. So do the authors of BERT (Devlin et al. 2018, section 4.2,
https://arxiv.org/abs/1810.04805) and transformers' example for SQuAD.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from aitrain.data.answers import Answer, NoAnswers, Question, read_answers, read_question
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import Outcome, Unusable
from aitrain.data.rows import Place, Row
from aitrain.data.targets import Spans, Targets
from aitrain.data.tokens import Encoded, EncodedGroup, Groups, Table, TokenTable
from aitrain.errors import DataError, Problem

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run
    from aitrain.data.mixture import FoundSource

SHOWN = 10
"""Repeated ids that a refusal names."""


@dataclass(frozen=True)
class Window:
    """A question with a part of its context."""

    ids: list[int]
    types: list[int] | None
    first: int
    """Place of the first token of the context."""
    offsets: list[tuple[int, int]]
    """Of each token of the context, from `first` on, its first character and the one after its last."""

    @property
    def past(self) -> int:
        """The place after the last token of the context."""
        return self.first + len(self.offsets)

    def place_of(self, answer: Answer) -> tuple[int, int] | None:
        """First and last token that hold a character of the answer; None where a part of it is outside."""
        start = answer.start + len(answer.text) - len(answer.text.lstrip())
        end = answer.start + len(answer.text.rstrip())
        if not self.offsets or self.offsets[0][0] > start or self.offsets[-1][1] < end:
            return None
        inside = [place for place, (low, high) in enumerate(self.offsets, self.first) if low < end and high > start]
        return (inside[0], inside[-1]) if inside else None


@dataclass(frozen=True)
class Cutter:
    """Cuts contexts into windows of at most `max_length` tokens, of which neighbours share `stride` of the context."""

    max_length: int
    stride: int
    longest_question: int

    def windows(self, tokenizer: Any, questions: Sequence[Question]) -> Iterator[list[Window] | str]:
        """For each question its windows, in the order of the text, or why there are none.

        Raises DataError for a tokenizer that does not tell which characters its tokens stand for.
        """
        if not tokenizer.is_fast:
            what = "its tokenizer does not tell which characters a token stands for"
            raise DataError(Problem("model.path", what, "name a model with a tokenizer.json"))
        faults = self._faults(tokenizer, questions)
        usable = [asked for asked, fault in zip(questions, faults, strict=True) if not fault]
        found = iter(self._cut(tokenizer, usable) if usable else ())
        for fault in faults:
            if fault:
                yield fault
                continue
            windows = next(found)
            yield windows if windows[0].offsets else "the tokenizer makes no token of its context"

    def _faults(self, tokenizer: Any, questions: Sequence[Question]) -> list[str]:
        """What is wrong with the length of each question, or ''."""
        texts = [asked.question for asked in questions]
        ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        added = tokenizer.num_special_tokens_to_add(pair=True)
        return [self._fault(len(each), self.max_length - added - len(each)) for each in ids]

    def _fault(self, tokens: int, room: int) -> str:
        if tokens > self.longest_question:
            return f"its question has {tokens} tokens, more than task.max_question_length={self.longest_question}"
        if room <= self.stride:
            left = f"leaves {max(room, 0)} of data.max_length={self.max_length} to its context"
            return f"its question of {tokens} tokens {left}, no more than task.doc_stride={self.stride}"
        return ""

    def _cut(self, tokenizer: Any, questions: Sequence[Question]) -> list[list[Window]]:
        tokenizer.truncation_side = "right"
        found = tokenizer(
            [asked.question for asked in questions],
            [asked.context for asked in questions],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        types = found.get("token_type_ids") if "token_type_ids" in tokenizer.model_input_names else None
        windows: list[list[Window]] = [[] for _ in questions]
        for number, row in enumerate(found["overflow_to_sample_mapping"]):
            whose = found.sequence_ids(number)
            places = [place for place, text in enumerate(whose) if text == 1]
            first, past = (places[0], places[-1] + 1) if places else (0, 0)
            offsets = [tuple(pair) for pair in found["offset_mapping"][number][first:past]]
            ids = found["input_ids"][number]
            windows[row].append(Window(ids, None if types is None else types[number], first, offsets))
        return windows


def cutter(run: Run) -> Cutter:
    """As the run says."""
    section: Any = run.task
    return Cutter(run.data.max_length, section.doc_stride, section.max_question_length)


class WindowEncoder:
    """Questions with their answers. Examples are windows; the first one of a row has its texts as its record.

    The value of a window is where the answer begins and ends, 0 and 0 where it is not there, and where the context
    begins and ends (the token after it).
    """

    group = 1
    weighted = False
    loss = "of where the answer begins and ends, at the first token where a window does not hold it"

    def __init__(self, run: Run) -> None:
        section: Any = run.task
        self.cutter = cutter(run)
        self.unanswerable: bool | None = None if section.unanswerable == "auto" else section.unanswerable
        """Whether questions without an answer are taken; None until the training rows were read."""
        self.skips = run.data.on_bad_rows == "skip"
        self.targets: Spans | None = None
        self.repeated: frozenset[str] = frozenset()
        """Ids that several rows have."""

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "windows-1",
            "max_length": self.cutter.max_length,
            "doc_stride": self.cutter.stride,
            "max_question_length": self.cutter.longest_question,
            "unanswerable": self.unanswerable,
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        return f"question and context, in windows of {self.cutter.max_length} tokens"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Groups:
        return Groups(table, indices)

    def firsts(self, table: TokenTable) -> NDArray[np.int64]:
        """The first window of each row."""
        import numpy as np

        assert table.record_ends is not None
        return np.flatnonzero(np.diff(table.record_ends))

    # --- the rows as a whole ---

    def learnt(
        self, run: Run, sources: Sequence[FoundSource], rows: Callable[[FoundSource], Iterator[Row]]
    ) -> WindowEncoder:
        """The same encoder, which knows whether rows may lack an answer. Raises DataError for ids that several rows
        have, unless bad rows are skipped, and for rows of which none has an answer."""
        (source,) = sources
        choice = source.choice
        assert choice is not None
        ids = _Ids(choice.columns.get("id"))
        lengths: list[int] = []
        unanswered = 0
        for row in rows(source):
            ids.add(row)
            try:
                answers = read_answers(choice, row.values, read_question(choice, row.values).context)
            except NoAnswers:  # told where the row is encoded
                continue
            unanswered += not answers
            lengths += [len(answers[0].text.split())] if answers else []
        if not lengths:
            column = choice.columns["answers"]
            raise DataError(Problem("data.columns.answers", f"column '{column}' holds an answer in no row"))
        held = _Ids(choice.columns.get("id"))
        for item in source.valid.rows("skip") if source.valid is not None else ():
            if isinstance(item, Row):
                held.add(item)
        if (problems := [*ids.problems(), *held.problems()]) and not self.skips:
            raise DataError(problems[:SHOWN])
        found = copy.copy(self)
        found.repeated = frozenset((*ids.repeated, *held.repeated))
        found.unanswerable = bool(unanswered) if self.unanswerable is None else self.unanswerable
        found.targets = Spans(found.unanswerable, len(lengths) + unanswered, unanswered, round(median(lengths)))
        return found

    def with_targets(self, targets: Targets) -> WindowEncoder:
        """The same encoder, which knows of the rows by an earlier look."""
        assert isinstance(targets, Spans)
        found = copy.copy(self)
        found.targets = targets
        found.unanswerable = targets.unanswerable
        return found

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        """Whether a row has an answer."""
        try:
            return bool(read_answers(choice, row, read_question(choice, row).context))
        except NoAnswers:
            return None

    def strata(self, table: Table) -> None:
        """Rows held out are drawn whatever their answers."""

    def notes_on(self, train: Groups, valid: Groups | None) -> Iterator[str]:
        """How many windows the questions make."""
        for name, examples in (("train", train), ("validate", valid)):
            if examples is None:
                continue
            questions = len(questions_of(examples))
            if questions < len(examples):
                yield f"{questions:,} questions to {name} on make {len(examples):,} windows"

    # --- rows ---

    def fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        """What keeps a row from being used, whatever the tokenizer; ''."""
        try:
            self.answers(choice, row)
        except NoAnswers as error:
            return str(error)
        return self._id_fault(choice, row)

    def answers(self, choice: ColumnChoice, row: Mapping[str, Any]) -> tuple[Answer, ...]:
        """The answers of a row. Raises NoAnswers, so too for none where there should be one."""
        found = read_answers(choice, row, read_question(choice, row).context)
        if not found and self.unanswerable is False:
            why = "task.unanswerable=false rules out"
            if self.targets is not None and not self.targets.unanswered:
                why = "no training row does without; task.unanswerable=true takes"
            raise NoAnswers(f"column '{choice.columns['answers']}' holds no answer, which {why}")
        return found

    def _id_fault(self, choice: ColumnChoice, row: Mapping[str, Any]) -> str:
        column = choice.columns.get("id")
        if column is None or str(row.get(column)) not in self.repeated:
            return ""
        return f"column '{column}': another row has the id '{row[column]}' too"

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        faults = [self.fault(choice, row) for row in rows]
        usable = [row for row, fault in zip(rows, faults, strict=True) if not fault]
        cut = self.cutter.windows(tokenizer, [read_question(choice, row) for row in usable])
        for row, fault in zip(rows, faults, strict=True):
            windows = fault or next(cut)
            yield Unusable(windows) if isinstance(windows, str) else self._examples(choice, row, windows)

    def _examples(self, choice: ColumnChoice, row: Mapping[str, Any], windows: Sequence[Window]) -> Outcome:
        answers = self.answers(choice, row)
        places = next((found for answer in answers if any(found := [w.place_of(answer) for w in windows])), None)
        if answers and places is None:
            told = answers[0].text[:40]
            return Unusable(f"no window holds the whole of its answer, '{told}'", "raise task.doc_stride")
        record = json.dumps(_texts(choice, row, answers), ensure_ascii=False)
        return [
            EncodedGroup((_encoded(window, place, record if not number else ""),), _value(window, place))
            for number, (window, place) in enumerate(zip(windows, places or [None] * len(windows), strict=True))
        ]


def _texts(choice: ColumnChoice, row: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    asked = read_question(choice, row)
    return {"question": asked.question, "context": asked.context, "answers": [answer.text for answer in answers]}


def _encoded(window: Window, place: tuple[int, int] | None, record: str) -> Encoded:
    marked = [0] * len(window.ids)
    if place is not None:
        marked[place[0] : place[1] + 1] = [1] * (place[1] + 1 - place[0])
    return Encoded(window.ids, marked, record=record, types=window.types)


def _value(window: Window, place: tuple[int, int] | None) -> tuple[float, ...]:
    start, end = place or (0, 0)
    return (float(start), float(end), float(window.first), float(window.past))


class _Ids:
    """Ids of rows, and which of them stand twice."""

    def __init__(self, column: str | None) -> None:
        self.column = column
        self.places: dict[str, Place] = {}
        self.repeated: dict[str, Place] = {}

    def add(self, row: Row) -> None:
        """Look at a row; one without an id counts for nothing."""
        value = None if self.column is None else row.values.get(self.column)
        if value is not None and (found := str(value)) in self.places:
            self.repeated.setdefault(found, row.place)
        elif value is not None:
            self.places[found] = row.place

    def problems(self) -> Iterator[Problem]:
        """One for each id that stands twice."""
        for name, place in self.repeated.items():
            what = f"column '{self.column}': the id '{name}' stands at {self.places[name]} too"
            yield Problem("data.columns.id", what, "give each row its own, or set data.on_bad_rows=skip", str(place))


@dataclass(frozen=True)
class AskedRow:
    """A row of examples: its texts, and the numbers of its windows among them."""

    question: str
    context: str
    answers: tuple[str, ...]
    examples: range


def questions_of(examples: Groups) -> NDArray[np.int64]:
    """Where in the examples each row begins. Windows of one row follow each other, and none is there without the
    others."""
    import numpy as np

    table = examples.table
    assert isinstance(table, TokenTable)
    assert table.record_ends is not None
    begins = np.diff(table.record_ends) > 0
    return np.flatnonzero(begins if examples.indices is None else begins[examples.indices])


def asked_rows(examples: Groups) -> Iterator[AskedRow]:
    """The rows that the examples were made of, in order."""
    begins = questions_of(examples).tolist()
    for start, stop in zip(begins, [*begins[1:], len(examples)], strict=True):
        number = start if examples.indices is None else int(examples.indices[start])
        record = json.loads(examples.table.record(number))
        yield AskedRow(record["question"], record["context"], tuple(record["answers"]), range(start, stop))
