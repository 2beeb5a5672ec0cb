"""`task=extractive_qa`: the stretch of a text that answers a question about it, or that there is none.

For each token two scores, whether the answer begins and whether it ends there (Devlin et al. 2018, section 4.2,
https://arxiv.org/abs/1810.04805); a context that is too long is read in windows that overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Task, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import DataError, Problem
from aitrain.tasks.rows import READS
from aitrain.trainers import standard

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.windows import WindowEncoder

CONTEXTS = ("context", "passage", "paragraph", "document", "article", "text")
QUESTIONS = ("question", "query")
ANSWERS = ("answers", "answer")
IDS = ("id", "qid", "question_id", "guid")
"""What the columns are called."""
METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "exact_match": "max",
    "f1": "max",
    "HasAns_exact": "max",
    "HasAns_f1": "max",
    "NoAns_exact": "max",
    "NoAns_f1": "max",
    "best_exact": "max",
    "best_f1": "max",
}
"""What evaluations report, from 0 to 100 but for the loss: the first three, and where a question may have no answer
those of SQuAD 2.0."""
LEARNING_RATES = {"full": 5e-5, "adapter": 5e-4, "scratch": 1e-3}
ADDED = ("prediction", "start", "score", "no_answer_probability", "null_score_difference")
"""Columns that a prediction adds to its row."""
SPECIAL = 4
"""Special tokens of a question with its context, at most."""


class ExtractiveQA(OptionSection):
    """The stretch of a text that answers a question."""

    reads: ClassVar[tuple[str, ...]] = (
        *(name for name in READS if name != "data.columns.target"),
        *(f"data.columns.{role}" for role in ("context", "question", "answers", "id")),
    )

    name: Literal["extractive_qa"]
    """The task; choose it with `task=extractive_qa`."""
    doc_stride: int = key(ge=0)
    """Tokens that neighbouring windows of one long context share."""
    max_question_length: int = key(gt=0)
    """Longest question in tokens. A longer one is a bad row: questions are never cut."""
    max_answer_length: int = key(gt=0)
    """Longest answer in tokens that the model may give."""
    n_best: int = key(gt=0, visibility="advanced")
    """The likeliest starts and ends of a window that are tried as a span."""
    unanswerable: bool | Literal["auto"]
    """Whether a question may have no answer (SQuAD 2.0). auto: where a training row has none."""
    null_threshold: float
    """No answer is given where its score is larger than that of the best span by more than this."""

    def problems(self, run: Run) -> Iterator[Problem]:
        most = run.data.max_length - SPECIAL - self.doc_stride
        if most < 1:
            what = f"{self.doc_stride} tokens that windows share, of data.max_length={run.data.max_length} in all"
            half = max(0, run.data.max_length // 4)
            yield Problem("task.doc_stride", what, f"use {half} or so", fix=f"task.doc_stride={half}")
        elif self.max_question_length >= most:
            left = f"leaves no room beside task.doc_stride={self.doc_stride} and {SPECIAL} special tokens"
            what = f"a question of {self.max_question_length} tokens {left} in data.max_length={run.data.max_length}"
            yield Problem("task.max_question_length", what, "raise data.max_length, or lower one of the two")
        if "data.truncation" in run.given:
            what = "has no effect with task=extractive_qa: a long context is read in windows, and no question is cut"
            yield Problem("data.truncation", what, "leave it out", fix="~data.truncation")
        if self.unanswerable is False and "task.null_threshold" in run.given:
            what = "has no effect with task.unanswerable=false"
            yield Problem("task.null_threshold", what, "leave one of them out")


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """Context, question, answers and id. Raises DataError."""
    from aitrain.data.answers import wrong_answers
    from aitrain.data.fields import Field, find_fields, wrong_text

    fields = (
        Field("question", QUESTIONS, "a question", wrong_text),
        Field("answers", ANSWERS, "answers {text, answer_start}", wrong_answers),
        Field("context", CONTEXTS, "text", wrong_text),
        Field("id", IDS, "an id", lambda value: "", required=False),
    )
    wanted = [field for field in fields if needs_target or field.role in ("context", "question")]
    return find_fields("text_target", wanted, names, first_rows, chosen, key)


def encoder(run: Run) -> WindowEncoder:
    """A question and its context to windows of token ids."""
    from aitrain.data.windows import WindowEncoder

    return WindowEncoder(run)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.extractive_qa import fit_extractive_qa

    return fit_extractive_qa(job)


def predictor(run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool) -> Any:
    """The model in `folder`, ready for rows like these, whose answers are needed where it `judges`; or DataError."""
    from aitrain.ml.answer_predicting import AnswerPredictor

    names = list(dict.fromkeys(name for row in first_rows for name in row))
    if not judges and (taken := [name for name in ADDED if name in names]):
        raise DataError(Problem("FILE", f"the rows have a column '{taken[0]}' already", "rename it in the file"))
    choice = find_columns(names, first_rows, run.data.columns.model_dump(), needs_target=judges)
    return AnswerPredictor(run, folder, encoder(run), choice)


TASK = Task(
    ExtractiveQA,
    standard=Trainer(
        standard.Standard,
        tasks=("extractive_qa",),
        shapes=("text_target",),
        metrics=METRICS,
        encoder=encoder,
        train=train,
        learning_rates=LEARNING_RATES,
        pipeline="question-answering",
        load=Load(logits="none"),
        scores=True,
        find_columns=find_columns,
        headline=("f1",),
        predictor=predictor,
    ),
)
