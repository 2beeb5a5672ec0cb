"""`task=extractive_qa`: the losses of where an answer begins and ends, and the answers that follow from the scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from aitrain.config.run import Run
from aitrain.data.answers import Question
from aitrain.data.targets import FILE, Spans, targets_from
from aitrain.data.windows import AskedRow, Window, asked_rows, cutter
from aitrain.evaluation.answer_details import details_of_answers, judge_given
from aitrain.ml.answer_spans import Choosing, Given, Offsets, answers_of
from aitrain.ml.examples import Example
from aitrain.ml.fitting import Fitting, fit, training_arguments
from aitrain.ml.job import Job, Outcome
from aitrain.ml.loading import load_answerer
from aitrain.ml.standard import StandardFit
from aitrain.rundir.folder import write_json

START, END, FIRST, PAST, TOKENS = range(5)
"""Columns of the targets of a batch: where the answer begins and ends, the context begins and ends, the window ends."""
BATCH = 500
"""Questions that are tokenised together."""


def fit_extractive_qa(job: Job) -> Outcome:
    """Train, evaluate, save. Runs on every rank; raises what `aitrain.ml.fitting.fit` raises."""
    return fit(job, training_arguments(job), ExtractiveQAFit, baseline)


class ExtractiveQAFit(StandardFit):
    """Cross entropy of the first and of the last token of the answer, over the tokens of a window."""

    def __init__(self, fitting: Fitting) -> None:
        self.spans = spans_of(fitting.job)
        self.choosing = choosing_of(fitting.job.run, self.spans)
        super().__init__(fitting, load_answerer)
        self.asked = [] if fitting.valid is None else list(asked_rows(fitting.valid))
        self.offsets = list(offsets_of(fitting.job.run, fitting.tokenizer, self.asked))

    @property
    def width(self) -> int:
        return self.choosing.width

    def targets_of(self, examples: Sequence[Example]) -> Tensor:
        values = np.asarray([example.group.value for example in examples]).astype(np.int64)
        tokens = [[len(example.group.rows[0].ids)] for example in examples]
        return torch.from_numpy(np.concatenate([values, np.asarray(tokens, np.int64)], 1))

    def amount(self, targets: Tensor) -> float:
        return float(len(targets))

    def summed_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        return summed_loss(outputs.start_logits, outputs.end_logits, targets)

    def predicted_of(self, outputs: Any, targets: Tensor) -> Tensor:
        return self.choosing.of_windows(outputs.start_logits, outputs.end_logits, targets[:, FIRST], targets[:, PAST])

    def given(self, predictions: NDArray[np.float64]) -> list[Given]:
        """The answers to the validation questions."""
        return answers_of(self.asked, self.offsets, predictions, self.choosing)

    def judge(self, predictions: NDArray[np.float64]) -> dict[str, float]:
        return judge(self.given(predictions), [row.answers for row in self.asked], self.choosing)

    def details(self, predictions: NDArray[np.float64]) -> dict[str, Any]:
        return details([(row.question, row.context, row.answers) for row in self.asked], self.given(predictions))

    def save_beside(self, folder: Path) -> None:
        write_json(folder / FILE, self.spans.to_dict())


def spans_of(job: Job) -> Spans:
    """What the run's plan says of the answers."""
    assert job.plan.targets is not None
    found = targets_from(job.plan.targets)
    assert isinstance(found, Spans)
    return found


def choosing_of(run: Run, spans: Spans) -> Choosing:
    """How the run chooses an answer."""
    section: Any = run.task
    return Choosing(section.n_best, section.max_answer_length, spans.unanswerable, section.null_threshold)


def summed_loss(starts: Tensor, ends: Tensor, targets: Tensor) -> Tensor:
    """The sum over windows of the mean of two cross entropies. Padding takes no part, so that a window's loss is the
    same in any batch."""
    padding = torch.arange(starts.shape[1], device=starts.device) >= targets[:, TOKENS, None]
    start, end = (scores.float().masked_fill(padding, -torch.inf) for scores in (starts, ends))
    both = cross_entropy(start, targets[:, START], reduction="sum") + cross_entropy(
        end, targets[:, END], reduction="sum"
    )
    return both / 2


def offsets_of(run: Run, tokenizer: Any, rows: Sequence[AskedRow]) -> Iterator[Offsets]:
    """The characters of each window's tokens. They are reckoned again: in the cache they would be larger than the
    tokens themselves, and validation alone needs them."""
    cut = cutter(run)
    waiting = iter(rows)
    while batch := list(islice(waiting, BATCH)):
        questions = [Question(row.context, row.question) for row in batch]
        for row, windows in zip(batch, cut.windows(tokenizer, questions), strict=True):
            assert not isinstance(windows, str)
            assert len(windows) == len(row.examples)
            yield from map(offsets_in, windows)


def offsets_in(window: Window) -> Offsets:
    """The characters of a window's tokens, in little room."""
    return Offsets(window.first, np.asarray(window.offsets, np.int32))


def judge(given: Sequence[Given], answers: Sequence[Sequence[str]], choosing: Choosing) -> dict[str, float]:
    """Measures of SQuAD 1.1, or of 2.0 where a question may have no answer."""
    differences = [each.null_difference for each in given] if choosing.unanswerable else None
    return judge_given([each.best for each in given], answers, differences, choosing.threshold)


def details(asked: Sequence[tuple[str, str, Sequence[str]]], given: Sequence[Given]) -> dict[str, Any]:
    """Wrong answers, and measures by kind of question, of rows of question, context and answers."""
    questions, contexts = [question for question, _, _ in asked], [context for _, context, _ in asked]
    sure = [max(each.score, each.no_answer or 0.0) for each in given]
    return details_of_answers(
        questions, contexts, [answers for *_, answers in asked], [each.text for each in given], sure
    )


# --- baseline ------------------------------------------------------------------------------------------------------

_SENTENCES = re.compile(r"[^.!?]+[.!?]*")
_WORDS = re.compile(r"\w+")


def baseline(fitting: Fitting) -> dict[str, Any]:
    """What answers are worth that nothing was learnt for: the sentence that shares most words with the question; the
    first words of the context, as many as the usual answer has; and none, where that is possible."""
    if fitting.valid is None:
        return {}
    spans, rows = spans_of(fitting.job), list(asked_rows(fitting.valid))
    guesses = {
        "sentence": [likeliest_sentence(row) for row in rows],
        "first words": [" ".join(row.context.split()[: spans.words]) for row in rows],
        **({"no answer": [""] * len(rows)} if spans.unanswerable else {}),
    }
    differences = [-1.0] * len(rows) if spans.unanswerable else None
    measures = {name: judge_given(given, [row.answers for row in rows], differences) for name, given in guesses.items()}
    return {name: {measure: found[measure] for measure in ("exact_match", "f1")} for name, found in measures.items()}


def likeliest_sentence(row: AskedRow) -> str:
    """The first of the sentences of a context that share most words with the question."""
    asked = {word.lower() for word in _WORDS.findall(row.question)}
    sentences = _SENTENCES.findall(row.context) or [row.context]
    return max(sentences, key=lambda text: len(asked & {word.lower() for word in _WORDS.findall(text)})).strip()
