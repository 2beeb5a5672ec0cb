"""Using a trained model that answers questions: rows to answers, and what those are worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aitrain.config.run import Run
from aitrain.data.answers import NoAnswers, Question, read_question
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import Unusable, load_tokenizer
from aitrain.data.targets import Spans, targets_from
from aitrain.data.tokens import TokenRow
from aitrain.data.windows import Window, WindowEncoder
from aitrain.ml.answer_spans import Given
from aitrain.ml.collating import padding_id
from aitrain.ml.extractive_qa import choosing_of, details, judge, offsets_in
from aitrain.ml.loading import load_answerer, load_trained
from aitrain.ml.standard import padded
from aitrain.ml.text_predicting import device_of, saved_targets

Truth = tuple[str, str, tuple[str, ...]]
"""Question, context and answers of a row."""


class AnswerPredictor:
    """A model with two scores a token."""

    def __init__(self, run: Run, folder: Path, encoder: WindowEncoder, choice: ColumnChoice) -> None:
        spans = targets_from(saved_targets(folder))
        assert isinstance(spans, Spans)
        self.run = run
        self.choice = choice
        self.encoder = encoder.with_targets(spans)
        self.choosing = choosing_of(run, spans)
        self.tokenizer = load_tokenizer(str(folder), None, trust_remote_code=False, allow_downloads=False)
        self.pad_id = padding_id(self.tokenizer)
        self.device = device_of(run)
        self.model = load_trained(run, folder, self.tokenizer, load_answerer).to(self.device).eval()

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Given | Unusable]:
        """The answer to each row's question, or why there is none."""
        asked = [self._asked(row) for row in rows]
        questions = [each for each in asked if isinstance(each, Question)]
        cut = list(self.encoder.cutter.windows(self.tokenizer, questions))
        scores = iter(self._scores([window for windows in cut if not isinstance(windows, str) for window in windows]))
        made = iter(
            Unusable(windows) if isinstance(windows, str) else self._answer(question, windows, scores)
            for question, windows in zip(questions, cut, strict=True)
        )
        return [next(made) if isinstance(each, Question) else each for each in asked]

    def _asked(self, row: Mapping[str, Any]) -> Question | Unusable:
        try:
            return read_question(self.choice, row)
        except NoAnswers as error:
            return Unusable(str(error))

    def _answer(self, question: Question, windows: Sequence[Window], scores: Iterator[NDArray[np.float64]]) -> Given:
        offsets = [offsets_in(window) for window in windows]
        return self.choosing.answer(question.context, [next(scores) for _ in windows], offsets)

    def _scores(self, windows: Sequence[Window]) -> NDArray[np.float64]:
        """What the model says of each window; those of one length are read together."""
        found = np.zeros((len(windows), self.choosing.width))
        size = self.run.train.eval_batch_size or self.run.train.batch_size
        order = sorted(range(len(windows)), key=lambda index: -len(windows[index].ids))
        for begin in range(0, len(order), size):
            indices = order[begin : begin + size]
            chosen = [windows[index] for index in indices]
            batch = padded([_token_row(window) for window in chosen], self.pad_id)
            first, past = (torch.tensor([getattr(w, end) for w in chosen], device=self.device) for end in ENDS)
            with torch.inference_mode():
                outputs = self.model(**{name: value.to(self.device) for name, value in batch.items()})
                best = self.choosing.of_windows(outputs.start_logits, outputs.end_logits, first, past)
            found[indices] = best.cpu().numpy()
        return found

    def shown(self, prediction: Given) -> dict[str, Any]:
        """The answer, its first character in the context (null for no answer) and its probability."""
        text = prediction.text
        found = {"prediction": text, "start": prediction.start if text else None, "score": round(prediction.score, 6)}
        if prediction.no_answer is None:
            return found
        none = {"no_answer_probability": round(prediction.no_answer, 6)}
        return {**found, **none, "null_score_difference": round(prediction.null_difference, 6)}

    def truth(self, row: Mapping[str, Any]) -> Truth | Unusable:
        """The row's question, context and answers."""
        try:
            asked, answers = read_question(self.choice, row), self.encoder.answers(self.choice, row)
        except NoAnswers as error:
            return Unusable(str(error))
        return asked.question, asked.context, tuple(answer.text for answer in answers)

    def judge(self, predictions: Sequence[Given], truths: Sequence[Truth]) -> tuple[dict[str, float], dict[str, Any]]:
        """Measures of SQuAD, and details."""
        return judge(predictions, [answers for *_, answers in truths], self.choosing), details(truths, predictions)


ENDS = ("first", "past")
"""Where the context of a window begins and ends."""


def _token_row(window: Window) -> TokenRow:
    types = None if window.types is None else np.asarray(window.types, np.uint8)
    return TokenRow(np.asarray(window.ids, np.int32), np.zeros(len(window.ids), np.uint8), None, types)
