"""Words with a tag each to token ids with labels, and what the training rows say of their tags. No torch."""

from __future__ import annotations

import copy
import json
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from aitrain.data.columns import ColumnChoice, listed
from aitrain.data.encoding import Outcome, TooLong, Truncation, Unusable
from aitrain.data.rows import Place, Row
from aitrain.data.tagging import OUTSIDE, TagReader, Words
from aitrain.data.target_encoding import classes_of_model, values_of
from aitrain.data.targets import MOST_CLASSES, NoTarget, Tags, Targets
from aitrain.data.tokens import NO_LABEL, Encoded, EncodedGroup, Groups, Table
from aitrain.errors import ConfigError, DataError, Problem, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from aitrain.config.run import Run
    from aitrain.data.mixture import FoundSource

KEY = "data.columns.tags"
PLAIN, AUTO = "plain", "auto"
CONTINUED = ("BIO", "IOB1")
"""Schemes whose I may stand on the further pieces of a word."""
SHOWN = 10


class Contradiction(NoTarget):
    """A tag does not fit the ones beside it."""


def _unusable(error: NoTarget) -> Unusable:
    if isinstance(error, Contradiction):
        return Unusable(str(error), "repair it, or set task.repair_tags=true or data.on_bad_rows=skip")
    return Unusable(str(error))


@dataclass(frozen=True)
class Pieces:
    """The token ids of a row's words."""

    ids: list[int]
    words: list[int | None]
    """For each token the number of its word; None where it is of none, or of one whose first piece was cut off."""
    truncated: bool = False

    def first(self, count: int) -> list[int]:
        """For each of `count` words the place of its first piece; -1 where it has none."""
        found = [-1] * count
        for place in reversed(range(len(self.words))):
            if (word := self.words[place]) is not None:
                found[word] = place
        return found


class TagEncoder:
    """Words with their tags. Examples are one row of token ids with a label for each token.

    Beside each example stand the numbers of its words, of those that have no token, and of its repaired tags; its
    record holds `words`, `tags` as numbers, and `first`, the place of each word's first piece or -1.
    """

    group = 1
    weighted = False

    def __init__(self, run: Run, reported: Callable[[Tags], Sequence[str]]) -> None:
        section: Any = run.task
        self.reported = reported
        """What evaluations report of such tags."""
        self.max_length = run.data.max_length
        self.truncation: Truncation = run.data.truncation
        self.label_pieces: Literal["first", "all"] = section.label_pieces
        self.scheme: str = section.scheme
        self.repairs: bool = section.repair_tags
        self.wanted: tuple[str, ...] | None = None if section.tags is None else tuple(section.tags)
        self.targets: Tags | None = None
        """None until the training rows were read."""
        self.numbered: tuple[str, ...] = ()

    def settings(self) -> dict[str, Any]:
        return {
            "encoder": "tags-1",
            "max_length": self.max_length,
            "truncation": self.truncation,
            "label_pieces": self.label_pieces,
            "repairs": self.repairs,
            "tags": [self.targets.names, self.targets.scheme] if self.targets else None,
            "numbered": self.numbered,
        }

    def describe(self, tokenizer: Any, choice: ColumnChoice) -> str:
        what = "words of a text with spans" if "text" in choice.columns else "words"
        return f"{what}, {'the first piece' if self.label_pieces == 'first' else 'every piece'} of each with its tag"

    def view(self, table: Table, indices: NDArray[np.int64] | None = None) -> Groups:
        return Groups(table, indices)

    # --- targets ---

    def learnt(
        self, run: Run, sources: Sequence[FoundSource], rows: Callable[[FoundSource], Iterator[Row]]
    ) -> TagEncoder:
        """The same encoder, which knows the tags of the training rows. Raises DataError for unfit ones."""
        (source,) = sources
        assert source.choice is not None
        found = copy.copy(self)
        found.numbered = source.train.class_names(source.choice.columns["tags"])
        seen = Sequences.read(found.reader(source.choice), rows(source))
        found.targets = found._learn(seen, classes_of_model(run), source.choice)
        if (wanted := run.train.metric_for_best_model) not in (known := self.reported(found.targets)):
            what = f"'{wanted}' is not reported of {found.targets.scheme} tags"
            raise DataError(Problem("train.metric_for_best_model", what, f"there is {', '.join(known)}"))
        if run.data.on_bad_rows == "error":
            found._refuse_faults(seen, source.choice.columns["tags"], source.chosen.key_of("path"))
        return found

    def _learn(self, seen: Sequences, of_model: tuple[str, ...], choice: ColumnChoice) -> Tags:
        column = choice.columns["tags"]
        if not seen.counts:
            raise DataError(Problem(KEY, f"column '{column}' has a tag for each word in no row", "name another column"))
        scheme = self._found_scheme(seen, is_inline="text" in choice.columns)
        counts = seen.counted(scheme if self.repairs else PLAIN)
        names = self._names(counts, of_model)
        _refuse_few(column, names, counts, is_given=self.wanted is not None)
        return Tags(tuple(names), tuple(counts[name] for name in names), scheme, sum(seen.counts.values()),
                    self.numbered)  # fmt: skip

    def _names(self, counts: Counter[str], of_model: tuple[str, ...]) -> list[str]:
        if self.wanted is not None:
            return list(self.wanted)
        names = list(self.numbered) if counts.keys() <= set(self.numbered) else _in_order(counts)
        return list(of_model) if set(of_model) == set(names) else names

    def _found_scheme(self, seen: Sequences, *, is_inline: bool) -> str:
        from aitrain.evaluation.spans import SCHEMES, find_scheme

        names = {tag for tags in seen.counts for tag in tags} | set(self.wanted or ())
        scheme = self.scheme
        if is_inline:
            if scheme not in (AUTO, "BIO"):
                what = f"'{scheme}' has no effect on spans of a text, which are marked as BIO"
                raise DataError(Problem("task.scheme", what, "leave it out", fix="task.scheme=auto"))
            scheme = "BIO"
        elif scheme == AUTO:
            unseen = names.difference(*seen.counts)
            scheme = find_scheme([*seen.counts, *([tag] for tag in sorted(unseen))])
        if scheme != PLAIN:
            if strange := sorted(tag for tag in names if not SCHEMES[scheme].matches(tag)):
                what = f"'{strange[0]}' is no tag of {scheme}"
                raise DataError(Problem("task.scheme", what, "use task.scheme=auto or plain", fix="task.scheme=auto"))
            if find_spec("seqeval") is None:
                what = f"spans in {scheme} are judged by seqeval, which is not installed"
                raise DataError(Problem("task.scheme", what, "pip install 'aitrain[evaluation]'"))
        return scheme

    def _refuse_faults(self, seen: Sequences, column: str, key: str) -> None:
        problems = []
        for tags, place in seen.places.items():
            try:
                self._checked(tags, column)
            except NoTarget as error:
                bad = _unusable(error)
                problems.append(Problem(key, f"row cannot be used: {bad.reason}", bad.advice, str(place)))
            if len(problems) == SHOWN:
                break
        if problems:
            raise DataError(problems)

    def notes_on(self, train: Groups, valid: Groups | None) -> Iterator[str]:
        """How many words have no token and how many tags were repaired; and tags that look like spans and are none."""
        assert self.targets is not None
        for verb, rows in (("train", train), ("validate", valid)):
            if rows is None:
                continue
            words, unread, repaired = (int(total) for total in values_of(rows).sum(axis=0, dtype="float64"))
            if unread:
                what = f"{unread:,} of the {words:,} words to {verb} on have no token"
                judged = f"; they are judged as '{unread_tag(self.targets)}'" if rows is valid else " and teach nothing"
                yield f"{what} (cut off by data.max_length={self.max_length}, or none of the tokenizer's){judged}"
            if repaired:
                yield f"task.repair_tags changed {repaired:,} of the {words:,} tags to {verb} on"
        marked = [name for name in self.targets.names if name[:2] in ("B-", "I-")]
        if self.targets.scheme == PLAIN and marked and self.scheme == AUTO:
            other = next(name for name in self.targets.names if name not in (*marked, OUTSIDE))
            yield f"tags are judged word by word: '{marked[0]}' looks like a span's, but '{other}' fits no scheme"

    def with_targets(self, targets: Targets) -> TagEncoder:
        """The same encoder, which knows the tags by an earlier look."""
        assert isinstance(targets, Tags)
        found = copy.copy(self)
        found.targets, found.numbered = targets, targets.numbered
        return found

    def kind(self, choice: ColumnChoice, row: Mapping[str, Any]) -> Hashable:
        return None

    def strata(self, table: Table) -> NDArray[np.float64] | None:
        return None

    # --- rows ---

    def reader(self, choice: ColumnChoice) -> TagReader:
        return TagReader(choice, self.numbered)

    def fault(self, choice: ColumnChoice, row: dict[str, Any]) -> str:
        try:
            self.read(choice, row)
        except NoTarget as error:
            return str(error)
        return ""

    def read(self, choice: ColumnChoice, row: Mapping[str, Any]) -> tuple[Words, tuple[str, ...], int]:
        """A row's words, the tag of each, and how many tags were repaired. Raises NoTarget."""
        reader = self.reader(choice)
        words = reader.words(row)
        return words, *self._checked(reader.tags(row, words), choice.columns["tags"])

    def _checked(self, tags: tuple[str, ...], column: str) -> tuple[tuple[str, ...], int]:
        """Tags of the map that do not contradict each other, and how many were repaired. Raises NoTarget."""
        from aitrain.evaluation.spans import faults, repair

        if self.targets is None:
            return tags, 0
        if self.repairs:
            try:
                repaired, changed = repair(tags, self.targets.scheme)
            except ValueError as error:
                raise NoTarget(f"column '{column}': {error}") from None
            self._refuse_unknown(repaired, column)
            return tuple(repaired), changed
        self._refuse_unknown(tags, column)
        if self.targets.scheme != PLAIN and (wrong := faults(tags, self.targets.scheme)):
            place, what = wrong[0]
            raise Contradiction(f"column '{column}': tag {place + 1} is {what}")
        return tags, 0

    def _refuse_unknown(self, tags: Sequence[str], column: str) -> None:
        assert self.targets is not None
        for number, tag in enumerate(tags, 1):
            if tag not in self.targets.names:
                what = f"tag {number}, '{tag}', is none of the {len(self.targets.names)} tags"
                raise NoTarget(f"column '{column}': {what}; {did_you_mean(tag, self.targets.names)}")

    def encode(self, tokenizer: Any, choice: ColumnChoice, rows: Sequence[dict[str, Any]]) -> Iterator[Outcome]:
        found: list[Any] = []
        for row in rows:
            try:
                found.append(self.read(choice, row))
            except NoTarget as error:
                found.append(_unusable(error))
        pieces = self.pieces(tokenizer, [read[0].words for read in found if not isinstance(read, Unusable)])
        for read in found:
            yield read if isinstance(read, Unusable) else self._outcome(read, next(pieces))

    def _outcome(self, read: tuple[Words, tuple[str, ...], int], pieces: Pieces | TooLong) -> Outcome:
        if isinstance(pieces, TooLong):
            return pieces
        words, tags, repaired = read
        first = pieces.first(len(tags))
        unread = first.count(-1)
        if unread == len(tags):
            return Unusable("no word of it is left as a token", "raise data.max_length, or leave the row out")
        numbers = [0 if self.targets is None else self.targets.names.index(tag) for tag in tags]
        labels = labels_of(pieces, numbers, self._further(numbers))
        record = json.dumps({"words": words.words, "tags": numbers, "first": first})
        trained = [int(label != NO_LABEL) for label in labels]
        row = Encoded(pieces.ids, trained, pieces.truncated, record=record, labels=labels)
        return EncodedGroup((row,), (float(len(tags)), float(unread), float(repaired)))

    def _further(self, numbers: Sequence[int]) -> dict[int, int]:
        """What the further pieces of a word with a tag of this number are labelled with."""
        if self.label_pieces == "first":
            return dict.fromkeys(numbers, NO_LABEL)
        if self.targets is None or self.targets.scheme not in CONTINUED:
            return {number: number for number in numbers}
        names = self.targets.names
        inside = {number: f"I{names[number][1:]}" for number in numbers if names[number].startswith("B")}
        return {n: names.index(inside[n]) if inside.get(n) in names else n for n in numbers}

    def pieces(self, tokenizer: Any, rows: Sequence[Sequence[str]]) -> Iterator[Pieces | TooLong]:
        """Token ids of rows of words, cut to `data.max_length` as `data.truncation` says.

        Raises ConfigError for a tokenizer that does not tell which word a token is of.
        """
        if not rows:
            return
        if not tokenizer.is_fast:
            what = "its tokenizer does not tell which word a token is of, as those of the tokenizers library do"
            raise ConfigError(Problem("model.path", what, "name a model whose folder holds a tokenizer.json"))
        apart = [[f" {word}" for word in words] for words in rows] if blanks_before(tokenizer) else list(rows)
        whole = _tokenised(tokenizer, apart)
        for words, found in zip(apart, whole, strict=True):
            if len(found.ids) <= self.max_length:
                yield found
            elif self.truncation in ("error", "drop"):
                yield TooLong(len(found.ids))
            else:
                (cut,) = _tokenised(tokenizer, [words], max_length=self.max_length, side=self.truncation)
                yield _without_tail(cut, found) if self.truncation == "left" else cut


@dataclass(frozen=True)
class Sequences:
    """The different tags of rows, so far as they can be read."""

    counts: Counter[tuple[str, ...]]
    """Rows of each."""
    places: dict[tuple[str, ...], Place]
    """The first row of each."""

    @classmethod
    def read(cls, reader: TagReader, rows: Iterable[Row]) -> Sequences:
        """Of the training rows; what is wrong with the others is told where they are encoded."""
        found = cls(Counter(), {})
        for row in rows:
            try:
                tags = tuple(map(sys.intern, reader.tags(row.values, reader.words(row.values))))
            except NoTarget:
                continue
            found.counts[tags] += 1
            found.places.setdefault(tags, row.place)
        return found

    def counted(self, scheme: str) -> Counter[str]:
        """Words of each tag, once they are repaired in `scheme`; plain ones are as they are."""
        from aitrain.evaluation.spans import repair

        counts: Counter[str] = Counter()
        for tags, times in self.counts.items():
            for tag in repair(tags, scheme)[0]:
                counts[tag] += times
        return counts


def labels_of(pieces: Pieces, numbers: Sequence[int], further: Mapping[int, int]) -> list[int]:
    """The label of each token: its word's number on the first piece, on the others what `further` says of it."""
    labels = []
    before = None
    for word in pieces.words:
        number = NO_LABEL if word is None else numbers[word]
        labels.append(further[number] if word is not None and word == before else number)
        before = word
    return labels


def unread_tag(targets: Tags) -> str:
    """What a word counts as that the model does not read: outside of spans, else the most frequent tag of training."""
    return OUTSIDE if OUTSIDE in targets.names else targets.names[targets.counts.index(max(targets.counts))]


def blanks_before(tokenizer: Any) -> bool:
    """Whether a word needs the blank before it that it has inside a text: so byte-level BPE learns its tokens, and
    `add_prefix_space` is what transformers calls it where a tokenizer adds it itself."""
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    if pre_tokenizer is None:
        return False
    state = json.loads(pre_tokenizer.__getstate__())
    parts = state.get("pretokenizers", [state])
    return any(part["type"] == "ByteLevel" and not part["add_prefix_space"] for part in parts)


def _tokenised(
    tokenizer: Any, rows: Sequence[Sequence[str]], *, max_length: int | None = None, side: str = "right"
) -> list[Pieces]:
    tokenizer.truncation_side = side
    found = tokenizer(
        [list(words) for words in rows],
        is_split_into_words=True,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    is_cut = max_length is not None
    return [Pieces(ids, found.word_ids(number), is_cut) for number, ids in enumerate(found["input_ids"])]


def _without_tail(cut: Pieces, whole: Pieces) -> Pieces:
    """A row cut on the left may begin with the end of a word, which tells too little of it to count as read."""
    first = next((word for word in cut.words if word is not None), None)
    if first is None or cut.words.count(first) == whole.words.count(first):
        return cut
    return Pieces(cut.ids, [None if word == first else word for word in cut.words], cut.truncated)


def _in_order(names: Iterable[str]) -> list[str]:
    """Tags in a fixed order: outside first, then by type, the beginning before the rest."""
    return sorted(names, key=lambda name: (name != OUTSIDE, name[2:] if name[1:2] == "-" else name, name))


def _refuse_few(column: str, names: Sequence[str], counts: Counter[str], *, is_given: bool) -> None:
    words = sum(counts.values())
    occurring = [name for name in names if counts[name]]
    if not occurring:
        what = f"none of them occurs; column '{column}' holds {listed(_in_order(counts))}"
        raise DataError(Problem("task.tags", what, "write them as the data does, or leave it out"))
    if len(counts) < 2:
        what = f"column '{column}' holds one tag only, '{occurring[0]}', of {words:,} words"
        raise DataError(Problem(KEY, what, "there is nothing to tell apart; name another column"))
    if not is_given and len(names) > MOST_CLASSES:
        what = f"column '{column}' holds {len(names):,} different values, which are hardly tags"
        raise DataError(Problem(KEY, what, "name another column; to mean it, list them in task.tags"))
