"""Using a trained tagger: words to tags and the spans they mark, and what those are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import TooLong, Unusable, load_tokenizer
from aitrain.data.tag_encoding import Pieces, TagEncoder
from aitrain.data.tagging import Words
from aitrain.data.targets import NoTarget, Tags, targets_from
from aitrain.data.tokens import TokenRow
from aitrain.evaluation.spans import PLAIN, spans_of
from aitrain.ml.collating import padding_id
from aitrain.ml.loading import load_tagger, load_trained
from aitrain.ml.standard import padded
from aitrain.ml.text_predicting import device_of, saved_targets
from aitrain.ml.token_classification import UNREAD, Sentence, details, judge, named, of_words


@dataclass(frozen=True)
class Tagged:
    """The words of a row with the number of the tag that is predicted of each, UNREAD where there is none."""

    words: Words
    text: str | None
    """The text that the words are of; None where the row is a list of words."""
    numbers: NDArray[np.int64]


class TagPredictor:
    """A model that gives each word a tag."""

    def __init__(self, run: Run, folder: Path, encoder: TagEncoder, choice: ColumnChoice) -> None:
        self.run = run
        self.choice = choice
        found = targets_from(saved_targets(folder))
        assert isinstance(found, Tags)
        self.tags = found
        self.encoder = encoder.with_targets(found)
        self.reader = self.encoder.reader(choice)
        self.tokenizer = load_tokenizer(str(folder), None, trust_remote_code=False, allow_downloads=False)
        self.pad_id = padding_id(self.tokenizer)
        self.device = device_of(run)
        load = partial(load_tagger, names=found.names)
        self.model = load_trained(run, folder, self.tokenizer, load).to(self.device).eval()

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The tags of each row as Tagged, or Unusable. Rows of one length are read together."""
        found: list[Any] = [self._words(row) for row in rows]
        usable = [index for index, words in enumerate(found) if isinstance(words, Words)]
        pieces = dict(
            zip(usable, self.encoder.pieces(self.tokenizer, [found[index].words for index in usable]), strict=True)
        )
        for index, outcome in pieces.items():
            if isinstance(outcome, TooLong):
                found[index] = Unusable(f"it has {outcome.tokens} tokens, more than data.max_length")
        ready = {index: row for index, row in pieces.items() if isinstance(row, Pieces)}
        text = self.choice.columns.get("text")
        for index, best in self._best(ready):
            words = found[index]
            numbers = of_words(best, ready[index].first(len(words.words)))
            found[index] = Tagged(words, rows[index][text] if text else None, numbers)
        return found

    def _words(self, row: Mapping[str, Any]) -> Words | Unusable:
        try:
            return self.reader.words(row)
        except NoTarget as error:
            return Unusable(str(error))

    def _best(self, rows: Mapping[int, Pieces]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The most likely tag of each token of each row."""
        size = self.run.train.eval_batch_size or self.run.train.batch_size
        order = sorted(rows, key=lambda index: -len(rows[index].ids))
        for start in range(0, len(order), size):
            indices = order[start : start + size]
            batch = padded([_token_row(rows[index]) for index in indices], self.pad_id)
            with torch.inference_mode():
                logits = self.model(**{name: value.to(self.device) for name, value in batch.items()}).logits
            yield from zip(indices, logits.argmax(-1).cpu().numpy(), strict=True)

    def shown(self, prediction: Tagged) -> dict[str, Any]:
        """The tag of each word, null where the model did not read it; the words, of a text; and the spans, where tags
        mark some."""
        numbers = prediction.numbers.tolist()
        found: dict[str, Any] = {} if prediction.text is None else {"words": list(prediction.words.words)}
        found["prediction"] = [None if number == UNREAD else self.tags.names[number] for number in numbers]
        if self.tags.scheme != PLAIN:
            spans = spans_of(named(numbers, self.tags), self.tags.scheme)
            found["entities"] = [_entity(prediction, *span) for span in spans]
        return found

    def truth(self, row: Mapping[str, Any]) -> Sentence | Unusable:
        """The words of a row with its own tags, or Unusable."""
        try:
            words, tags, _ = self.encoder.read(self.choice, row)
        except NoTarget as error:
            return Unusable(str(error))
        return Sentence(words.words, tuple(self.tags.names.index(tag) for tag in tags), ())

    def judge(
        self, predictions: Sequence[Tagged], truths: Sequence[Sentence]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures and details of tags."""
        found = [prediction.numbers.tolist() for prediction in predictions]
        return judge(found, truths, self.tags), details(found, truths, self.tags)


def _entity(prediction: Tagged, start: int, stop: int, label: str) -> dict[str, Any]:
    """A span of words, `end_word` not among them; of a text also its characters."""
    words = prediction.words
    found: dict[str, Any] = {"start_word": start, "end_word": stop, "label": label}
    if prediction.text is None or words.places is None:
        return {**found, "text": " ".join(words.words[start:stop])}
    begin, end = words.places[start][0], words.places[stop - 1][1]
    return {**found, "text": prediction.text[begin:end], "start": begin, "end": end}


def _token_row(row: Pieces) -> TokenRow:
    return TokenRow(np.asarray(row.ids, np.int32), np.zeros(len(row.ids), np.uint8))
