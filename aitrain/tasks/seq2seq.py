"""`task=seq2seq`: a text for a text (a summary, a translation, a description), by an encoder-decoder model.

The encoder reads the source; the decoder writes the target, and is trained with cross entropy on its tokens (Sutskever
et al. 2014, https://arxiv.org/abs/1409.3215; T5: Raffel et al. 2019, https://arxiv.org/abs/1910.10683).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from aitrain.config.architectures import positions
from aitrain.config.options import Load, Task, Trainer
from aitrain.config.section import OptionSection, key
from aitrain.config.train import no_evaluation
from aitrain.errors import DataError, Problem
from aitrain.tasks.rows import READS
from aitrain.trainers import standard

if TYPE_CHECKING:
    from aitrain.config.run import Run
    from aitrain.data.columns import ColumnChoice
    from aitrain.data.seq2seq_encoding import Seq2SeqEncoder

SOURCES = ("text", "source", "src", "input", "input_text", "document", "article", "dialogue", "passage", "content",
           "body", "sentence", "mr", "meaning_representation", "prompt", "question")  # fmt: skip
TARGETS = ("target", "summary", "highlights", "abstract", "translation", "output", "output_text", "tgt", "ref",
           "reference", "human_reference", "target_text", "completion", "response", "answer", "headline")  # fmt: skip
PLAIN: dict[str, Literal["min", "max"]] = {"loss": "min", "perplexity": "min", "token_accuracy": "max"}
"""Of the target's tokens, each predicted after the true ones before it."""
GENERATED: dict[str, Literal["min", "max"]] = {
    "rouge1": "max",
    "rouge2": "max",
    "rougeL": "max",
    "rougeLsum": "max",
    "bleu": "max",
    "chrf": "max",
    "exact_match": "max",
}
"""Of texts that the model wrote by itself."""
LEARNING_RATES = {"full": 1e-4, "adapter": 1e-3, "scratch": 2e-3}
PACKAGES = {"rouge_score": "evaluation", "sacrebleu": "evaluation"}


class Seq2Seq(OptionSection):
    """A text for a text."""

    reads: ClassVar[tuple[str, ...]] = (*READS, "data.columns.text", "generate.count")

    name: Literal["seq2seq"]
    """The task; choose it with `task=seq2seq`."""
    source_prefix: str | None = key(min_length=1)
    """What is put before every source, such as `summarize: ` for T5. Cutting a source leaves it whole."""
    max_target_length: int = key(gt=1)
    """Longest target in tokens, the end-of-sequence token included; `data.truncation` says what happens to others."""
    label_smoothing: float = key(ge=0, lt=1, visibility="advanced")
    """Share of a token's probability that training spreads over the vocabulary (Szegedy et al. 2015,
    https://arxiv.org/abs/1512.00567). Evaluations report the plain loss."""
    generate_on_eval: bool
    """Write texts for validation rows at each evaluation, and compare them with the targets."""
    generate_rows: int | None = key(gt=0)
    """How many validation rows texts are written for, evenly spaced. null: all of them."""
    num_beams: int = key(gt=0)
    """Beams of the search for the likeliest text; 1 takes the likeliest token at each place. Saved with the model."""
    generation_max_length: int | None = key(gt=1)
    """Longest written text in tokens. null: `task.max_target_length`. Saved with the model."""
    forced_bos_token: str | None = key(visibility="advanced")
    """Token that every written text begins with. null: that of `task.target_language`, or what the model says. Saved
    with the model."""
    source_language: str | None = key(visibility="advanced")
    """Language of the sources, as the tokenizer of a multilingual model (NLLB, mBART, M2M100) calls it."""
    target_language: str | None = key(visibility="advanced")
    """Language of the targets, in which texts are then written."""

    def problems(self, run: Run) -> Iterator[Problem]:
        wanted = run.train.metric_for_best_model
        none = no_evaluation(run)
        if none:
            for name in ("generate_on_eval", "generate_rows"):
                if none.wastes(run, f"task.{name}") and getattr(self, name):
                    yield Problem(f"task.{name}", f"has no effect: {none.why}", none.cure)
        elif not self.generate_on_eval:
            why = "no text is written with task.generate_on_eval=false"
            if "task.generate_rows" in run.given and self.generate_rows is not None:
                yield Problem("task.generate_rows", f"has no effect: {why}", "leave it out")
            if wanted in GENERATED:
                yield Problem(
                    "train.metric_for_best_model", f"{wanted} is not measured: {why}", "leave one of them out"
                )

    @property
    def longest(self) -> int:
        """Tokens of the longest text that is written."""
        return self.max_target_length if self.generation_max_length is None else self.generation_max_length


def find_columns(
    names: Sequence[str],
    first_rows: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str | list[str] | None],
    key: str = "data.columns",
    *,
    needs_target: bool = True,
) -> ColumnChoice:
    """Source and target. Raises DataError."""
    from aitrain.data.fields import Field, find_fields, wrong_text

    fields = (Field("text", SOURCES, "text", wrong_text), Field("target", TARGETS, "text", wrong_text))
    wanted = fields if needs_target else fields[:1]
    choice = find_fields("text_target", wanted, names, first_rows, chosen, key)
    if len(choice.targets) > 1:
        raise DataError(Problem(f"{key}.target", "names several columns, and a target is one text", "name one of them"))
    return choice


def model_problems(run: Run, config: Mapping[str, Any]) -> Iterator[Problem]:
    """A model of another kind, and targets longer than its decoder has positions."""
    section: Any = run.task
    if not config.get("is_encoder_decoder", not DECODERS.isdisjoint(config)):
        family = config.get("model_type", "of unknown kind")
        what = f"{run.model.path} ({family}) is no encoder-decoder model"
        yield Problem("model.path", what, "name one, such as T5 or BART")
        return
    most = config.get("max_decoder_position_embeddings") or positions(config)
    for name in ("max_target_length", "generation_max_length"):
        length = getattr(section, name)
        if most is not None and length is not None and length > most:
            what = f"{length} tokens, but the decoder of {run.model.path} has {most} positions"
            yield Problem(f"task.{name}", what, f"use {most} or less", fix=f"task.{name}={most}")


DECODERS = {"decoder", "decoder_layers", "num_decoder_layers"}
"""Keys of a config that only models with a decoder beside an encoder have."""


def packages(run: Run) -> Mapping[str, str]:
    """What measures written texts, and the extra of each."""
    section: Any = run.task
    return PACKAGES if section.generate_on_eval and no_evaluation(run) is None else {}


def encoder(run: Run) -> Seq2SeqEncoder:
    """Two texts to token ids."""
    from aitrain.data.seq2seq_encoding import Seq2SeqEncoder

    return Seq2SeqEncoder(run)


def train(job: Any) -> Any:
    """Train on every rank."""
    from aitrain.ml.seq2seq import fit_seq2seq

    return fit_seq2seq(job)


def predictor(run: Run, folder: Path, first_rows: Sequence[Mapping[str, Any]], *, judges: bool) -> Any:
    """The model in `folder`, ready for rows like these, whose targets are needed where it `judges`."""
    from aitrain.ml.seq2seq_predicting import TextWriter

    names = list(dict.fromkeys(name for row in first_rows for name in row))
    choice = find_columns(names, first_rows, run.data.columns.model_dump(), needs_target=judges)
    return TextWriter(run, folder, encoder(run), choice)


TASK = Task(
    Seq2Seq,
    standard=Trainer(
        standard.Standard,
        tasks=("seq2seq",),
        shapes=("text_target",),
        metrics={**PLAIN, **GENERATED},
        encoder=encoder,
        train=train,
        learning_rates=LEARNING_RATES,
        pipeline="text2text-generation",
        load=Load(logits="whole"),
        find_columns=find_columns,
        headline=("rougeL",),
        predictor=predictor,
        model_problems=model_problems,
        packages=packages,
    ),
)
