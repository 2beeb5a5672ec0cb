"""`task=token_classification`: losses of tagged words, predictions word by word, and their judgement."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from aitrain.data.tag_encoding import unread_tag
from aitrain.data.target_encoding import values_of
from aitrain.data.targets import FILE, Tags, targets_from
from aitrain.data.tokens import NO_LABEL, Groups
from aitrain.evaluation.spans import details_of_tags, judge_tags
from aitrain.ml.examples import Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import load_tagger
from aitrain.ml.standard import StandardFit
from aitrain.rundir.folder import write_json

UNREAD = -1
"""The prediction of a word that the model does not read."""


@dataclass(frozen=True)
class Sentence:
    """A row of words."""

    words: tuple[str, ...]
    tags: tuple[int, ...]
    """The number of each word's tag."""
    first: tuple[int, ...]
    """The token that each word begins with, -1 where it has none."""


def fit_token_classifier(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), TokenClassifierFit, baselines)


class TokenClassifierFit(StandardFit):
    """Cross entropy over the tags of labelled tokens; a word's prediction is read at its first piece."""

    def __init__(self, fitting: Fitting) -> None:
        self.tags = tags_of(fitting.job)
        super().__init__(fitting, partial(load_tagger, names=self.tags.names))
        self.sentences = [] if fitting.valid is None else list(sentences(fitting.valid))
        self.ends = np.cumsum([len(sentence.words) for sentence in self.sentences])

    @property
    def width(self) -> int:
        return 1

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        """The label of each token, (examples, tokens of the longest), NO_LABEL where there is none."""
        rows = [example.group.rows[0].labels for example in examples]
        found = np.full((len(rows), max(len(row) for row in rows if row is not None)), NO_LABEL, np.int64)
        for index, row in enumerate(rows):
            assert row is not None
            found[index, : len(row)] = row
        return torch.from_numpy(found)

    def amount(self, targets: Tensor) -> float:
        return float((targets != NO_LABEL).sum())

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        logits = outputs.logits.float()
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NO_LABEL, reduction="sum")

    # A row has as many predictions as words; those of all rows stand one below the other.

    def room(self, rows: Any) -> Tensor:
        return torch.zeros(int(values_of(rows)[:, 0].sum(dtype=np.float64)), self.width, dtype=torch.float64)

    def take(self, found: Tensor, numbers: Sequence[int], outputs: Any, targets: Tensor) -> None:
        best = outputs.logits.argmax(-1).cpu().numpy()
        for number, row in zip(numbers, best, strict=True):
            sentence, end = self.sentences[number], int(self.ends[number])
            found[end - len(sentence.words) : end, 0] = torch.from_numpy(of_words(row, sentence.first))

    def judge(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        return judge(self._by_row(predictions), self.sentences, self.tags)

    def details(self, predictions: NDArray[np.float64]) -> dict[str, Any]:
        return details(self._by_row(predictions), self.sentences, self.tags)

    def _by_row(self, predictions: NDArray[np.float64]) -> list[NDArray[np.int64]]:
        return np.split(predictions[:, 0].astype(np.int64), self.ends[:-1])

    def save_beside(self, folder: Path) -> None:
        write_json(folder / FILE, self.tags.to_dict())


def tags_of(job: Job) -> Tags:
    """The tags of the run's plan."""
    assert job.plan.targets is not None
    found = targets_from(job.plan.targets)
    assert isinstance(found, Tags)
    return found


def sentences(rows: Groups) -> Iterator[Sentence]:
    """The words of examples, in their order."""
    indices: Iterable[int] = range(len(rows)) if rows.indices is None else rows.indices.tolist()
    for index in indices:
        values = json.loads(rows.table.record(index))
        yield Sentence(*(tuple(values[name]) for name in ("words", "tags", "first")))


def of_words(best: NDArray[Any], first: Sequence[int]) -> NDArray[np.int64]:
    """The prediction of each word from those of the tokens, (tokens,); UNREAD for a word without any."""
    places = np.asarray(first, np.int64)
    return np.where(places < 0, UNREAD, best[np.maximum(places, 0)])


def named(numbers: Iterable[int], tags: Tags) -> list[str]:
    """Tags by name; what is not read counts as `unread_tag` says."""
    outside = unread_tag(tags)
    return [outside if number == UNREAD else tags.names[number] for number in numbers]


def judge(predictions: Sequence[Any], truth: Sequence[Sentence], tags: Tags) -> dict[str, float]:
    """What an evaluation reports of predicted numbers, a list of them for each sentence."""
    guessed = [named(row, tags) for row in predictions]
    return judge_tags(guessed, [named(sentence.tags, tags) for sentence in truth], tags.scheme)


def details(predictions: Sequence[Any], truth: Sequence[Sentence], tags: Tags) -> dict[str, Any]:
    """The same for the report: whole sentences in place of single spans."""
    guessed = [named(row, tags) for row in predictions]
    right = [named(sentence.tags, tags) for sentence in truth]
    found = details_of_tags(guessed, right, tags.scheme)
    wrong = dict.fromkeys(entry["row"] for entry in found["wrong"])
    found["wrong"] = [
        {"row": row, "tokens": list(truth[row].words), "truth": right[row], "prediction": guessed[row]} for row in wrong
    ]
    found["unread_words"] = sum(int(number == UNREAD) for row in predictions for number in row)
    return found


def baselines(fitting: Fitting) -> dict[str, dict[str, float]]:
    """What needs no model. `usual`: of each word its most frequent tag in training, of an unknown one the most frequent
    tag of all; `majority`: the latter for every word. Of two tags as frequent the earlier one in the map."""
    if fitting.valid is None:
        return {}
    tags, valid = tags_of(fitting.job), list(sentences(fitting.valid))
    by_word: dict[str, Counter[int]] = {}
    counts: Counter[int] = Counter()
    for sentence in sentences(fitting.rows):
        counts.update(sentence.tags)
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            by_word.setdefault(word, Counter())[tag] += 1
    most = _most(counts)
    of_word = {word: _most(counts) for word, counts in by_word.items()}
    return {
        "usual": judge([[of_word.get(word, most) for word in sentence.words] for sentence in valid], valid, tags),
        "majority": judge([[most] * len(sentence.words) for sentence in valid], valid, tags),
    }


def _most(counts: Counter[int]) -> int:
    return min(counts, key=lambda tag: (-counts[tag], tag))
