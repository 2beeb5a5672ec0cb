"""`task=token_classification`: a tag for each word of a row, such as its part of speech or the name it belongs to.

A classifier of tokens on top of a language model of either kind, trained with cross entropy over the pieces of words
(Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 5.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.options import Load, Task, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.errors import DataError, Problem
from aitrain.tasks.rows import READS, TEXTS
from aitrain.trainers import standard

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.tag_encoding import TagEncoder
    from aitrain.data.targets import Tags

WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "pos_tags", "chunk_tags", "labels", "ner", "pos", "upos", "bio_tags", "iob_tags", "tag_ids")
SPANS = ("tags", "entities", "spans", "annotations", "labels", "label")
METRICS: dict[str, Literal["min", "max"]] = {
    "loss": "min",
    "precision": "max",
    "recall": "max",
    "f1": "max",
    "f1_macro": "max",
    "f1_micro": "max",
    "accuracy": "max",
}
"""What evaluations report: `precision`, `recall` and `f1` of spans, `f1_micro` of plain tags."""
_OF_SPANS = ("loss", "precision", "recall", "f1", "f1_macro", "accuracy")
_OF_WORDS = ("loss", "accuracy", "f1_macro", "f1_micro")
LEARNING_RATES = {"full": 5e-5, "adapter": 5e-4, "scratch": 2e-3}


class TokenClassification(OptionSection):
    """A tag for each word."""

    reads: ClassVar[tuple[str, ...]] = (
        *(name for name in READS if name != "data.columns.target"),
        "data.columns.tokens",
        "data.columns.tags",
        "data.columns.text",
    )

    name: Literal["token_classification"]
    """The task; choose it with `task=token_classification`."""
    tags: list[str] | None = key(visibility="advanced")
    """All tags, in the order of the model's outputs. null: those of the training rows; or as the data's class feature
    or the model's own head has them."""
    scheme: Literal["auto", "BIO", "IOB1", "BIOES", "BILOU", "plain"]
    """How tags mark spans of words: `B-PER`, `I-PER`, `O` and the like, or not at all (plain). auto: as the tags of the
    training rows look. Spans are judged as wholes, plain tags word by word."""
    label_pieces: Literal["first", "all"]
    """Which pieces of a word carry its tag, and the loss: the first one, or every one, where the further ones of a
    word tagged B-X are tagged I-X. A word's prediction is that of its first piece."""
    repair_tags: bool
    """Make marks agree that contradict their neighbours (an I-PER after O becomes B-PER), and count them. false: such a
    row is a bad one."""

    def problems(self, run: Run) -> Iterator[Problem]:
        if self.tags is not None:
            twice = [name for name in dict.fromkeys(self.tags) if self.tags.count(name) > 1]
            if twice:
                yield Problem("task.tags", f"names '{twice[0]}' twice", "name each tag once")
            if any(not name.strip() or name != name.strip() for name in self.tags):
                yield Problem("task.tags", "holds an empty name, or space around one", "write the names alone")
            if len(set(self.tags)) < 2:
                yield Problem("task.tags", "names less than two tags", "name all that there are")
        if self.repair_tags and self.scheme == "plain":
            what = "has no effect with task.scheme=plain, whose tags mark no spans"
            yield Problem("task.repair_tags", what, "leave it out", fix="task.repair_tags=false")
        columns = run.data.columns
        if columns.tokens is not None and columns.text is not None:
            what = "is beside data.columns.tokens, and a row is one of the two"
            yield Problem("data.columns.text", what, "name the column of words, or that of a text with spans")


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """Words and their tags, or a text and its spans. Raises DataError."""
    from aitrain.data.fields import Field, find_fields, wrong_text
    from aitrain.data.tagging import wrong_list

    if _is_inline(names, chosen, needs_target=needs_target):
        fields = [Field("text", TEXTS, "text", wrong_text), Field("tags", SPANS, "a list of spans", wrong_list)]
    else:
        fields = [
            Field("tokens", WORDS, "a list of words", wrong_list),
            Field("tags", TAGS, "a list of tags", wrong_list),
        ]
    fields = fields if needs_target else fields[:1]
    try:
        return find_fields("word_tags", fields, names, first_rows, chosen, key)
    except DataError as error:
        if list(names) != ["text"]:
            raise
        what = "rows of plain lines have no tags"
        advice = "give a file of a token and its tag a line a name that ends in .conll"
        raise DataError(Problem(f"{key}.tokens", what, advice)) from error


def _is_inline(names: Sequence[str], chosen: Mapping[str, Any], *, needs_target: bool) -> bool:
    """Whether rows are a text with spans: as was chosen, else by the names of the columns."""
    if chosen.get("tokens") or chosen.get("text"):
        return not chosen.get("tokens")
    told = {name.strip().lower() for name in names}
    if not told & set(TEXTS):
        return False
    if not needs_target:
        return not told & set(WORDS)
    has_tags = bool(chosen.get("tags")) or bool(told & set(TAGS))
    return not (told & set(WORDS) and has_tags) and (bool(chosen.get("tags")) or bool(told & set(SPANS)))


def encoder(run: Run) -> TagEncoder:
    """Words to token ids and labels."""
    from aitrain.data.tag_encoding import TagEncoder

    return TagEncoder(run, reported)


def reported(tags: Tags) -> tuple[str, ...]:
    """What evaluations of these tags report."""
    return _OF_WORDS if tags.scheme == "plain" else _OF_SPANS


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.token_classification import fit_token_classifier

    return fit_token_classifier(job)


def predictor(run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool) -> Any:
    """The model in `folder`, ready for rows like these, whose tags are needed where it `judges`."""
    from aitrain.ml.token_predicting import TagPredictor

    names = list(dict.fromkeys(name for row in first_rows for name in row))
    choice = find_columns(names, first_rows, run.data.columns.model_dump(), needs_target=judges)
    return TagPredictor(run, folder, encoder(run), choice)


TASK = Task(
    TokenClassification,
    standard=Trainer(
        standard.Standard,
        tasks=("token_classification",),
        shapes=("word_tags",),
        metrics=METRICS,
        encoder=encoder,
        train=train,
        learning_rates=LEARNING_RATES,
        pipeline="token-classification",
        load=Load(logits="none"),
        find_columns=find_columns,
        headline=("f1", "accuracy"),
        predictor=predictor,
    ),
)
