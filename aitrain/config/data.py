"""`data`: where the rows come from, which columns mean what, and how long a row may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from aitrain.config.section import Section, key
from aitrain.config.train import no_evaluation
from aitrain.errors import Problem, did_you_mean

if TYPE_CHECKING:
    from aitrain.config.run import Run


class Columns(Section):
    """`data.columns`: names of the user's columns. null finds them and prints why."""

    prompt: str | None
    """Column with what the model is asked."""
    input: str | None = key(visibility="advanced")
    """Column with a further text that belongs to the prompt (Alpaca's `input`); put below it after an empty line."""
    completion: str | None
    """Column with the answer to learn."""
    messages: str | None
    """Column with a list of turns, {role, content} or {from, value}."""
    system: str | None = key(visibility="advanced")
    """Column with a system message for the row."""
    text: str | None
    """Column with plain text."""
    chosen: str | None
    """Column with the better answer of a pair: text, messages, or a whole conversation that begins with the prompt."""
    rejected: str | None
    """Column with the worse answer of a pair, in the form of the better one."""
    label: str | None
    """Column that says whether the completion is wanted: true or 1, false or 0."""
    margin: str | None = key(visibility="advanced")
    """Column with the number by which the better answer of a pair should win."""
    text_pair: str | None
    """Column with a second text that is read together with the first: a hypothesis, another question."""
    tokens: str | None
    """Column with a list of words."""
    tags: str | None
    """Column with a list that has a tag for each word, or with the spans of `data.columns.text`."""
    context: str | None
    """Column with the text that an answer stands in."""
    question: str | None
    """Column with what is asked of that text."""
    answers: str | None
    """Column with the answers and where each begins: {text: [...], answer_start: [...]}, or a list of {text,
    answer_start}; none for a question without an answer."""
    id: str | None = key(visibility="advanced")
    """Column with a name for each row, no two alike."""
    target: str | list[str] | None
    """Column with what is to be predicted of a row. Several columns: several numbers, or a class each that is there (1)
    or not (0)."""
    categorical: str | list[str] | None
    """Columns whose values are categories, also where they are numbers."""
    numerical: str | list[str] | None
    """Columns whose values are numbers."""
    ignored: str | list[str] | None
    """Columns that are not looked at."""


class TokenWeights(Section):
    """`data.token_weights`: how much a token counts in the loss, by who speaks. null: 1 where `data.train_on` trains
    it, else 0. A `weight` of a message in the data multiplies it."""

    system: float | None = key(ge=0, visibility="advanced")
    """Weight of the tokens of system messages."""
    user: float | None = key(ge=0, visibility="advanced")
    """Weight of the tokens of user messages."""
    assistant: float | None = key(ge=0, visibility="advanced")
    """Weight of the tokens of the answers that `data.train_on` trains."""
    tool: float | None = key(ge=0, visibility="advanced")
    """Weight of the tokens of tools' results."""


class MixtureSource(Section):
    """One source of `data.mixture`. What it does not say is as the `data` key of the same name says."""

    path: str
    """A file, a folder, a glob, a `save_to_disk` folder, a Hub id (`owner/name`), or `sample:NAME`."""
    name: str | None = None
    """What reports call the source. null: its path."""
    weight: float | None = key(default=None, gt=0)
    """Share of the training examples that come from it, relative to the other sources; 1 where only others have one.
    null everywhere: every row of every source once."""
    files: str | list[str] | None = None
    """Files to take from a folder or a Hub dataset."""
    config: str | None = None
    """Configuration (subset) of a Hub dataset."""
    train_split: str | None = None
    """Split to train on, with an optional slice."""
    valid_split: str | None = None
    """Split to validate on, with an optional slice."""
    max_samples: int | None = key(default=None, gt=0)
    """Use at most this many training rows of the source."""
    conversation_extension: int | None = key(default=None, ge=1, le=10)
    """Single-turn rows of the source that are merged into one conversation."""
    columns: dict[str, str | list[str] | None] | None = None
    """Names of the source's columns, by what they mean."""

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


@dataclass(frozen=True)
class DataSource:
    """Everything that was chosen for one source of the training rows."""

    key: str
    """Where its keys stand: `data`, or `data.mixture[1]`."""
    name: str
    path: str
    weight: float | None
    files: str | list[str] | None
    config: str | None
    train_split: str
    valid_split: str | None
    max_samples: int | None
    conversation_extension: int
    columns: Mapping[str, str | list[str] | None]
    inherited: frozenset[str]
    """What it takes from `data`, of a mixture's source: `train_split`, `columns.prompt`."""

    def key_of(self, name: str) -> str:
        """The key that a value stands under: `data.columns.prompt` where the source says nothing of its own."""
        return f"data.{name}" if name in self.inherited else f"{self.key}.{name}"


INHERITED = ("train_split", "valid_split", "max_samples", "conversation_extension")
"""Keys of `data` that hold for each source which does not say otherwise; `columns` does so by role."""
ONE_ANSWER = ("raw", "alpaca")
"""Chat formats that hold one question and its answer."""
OF_ONE_PATH = ("path", "files", "config")
"""Keys of `data` that say where the rows of one source are."""


class Data(Section):
    """Where the rows come from and what is done to them before training."""

    path: str
    """A file, a folder, a glob, a `save_to_disk` folder, a Hub id (`owner/name`), or `sample:NAME`."""
    files: str | list[str] | None
    """Files to take from a folder or a Hub dataset, as names or globs relative to it."""
    config: str | None
    """Configuration (subset) of a Hub dataset."""
    mixture: list[MixtureSource] | None
    """Several sources in place of `data.path`: a list of {path, weight, name, files, config, train_split, valid_split,
    max_samples, conversation_extension, columns}. What a source leaves out is as `data` says."""
    mixture_stopping: Literal["first_exhausted", "all_exhausted"] = key(visibility="advanced")
    """Where the weights of `data.mixture` end an epoch: `all_exhausted` when every row was seen, rows of the other
    sources again meanwhile; `first_exhausted` when a source has no row left, with rows of the others unseen."""
    train_split: str
    """Split to train on, with an optional slice: `train`, `train[:10%]`, `train[100:200]`."""
    valid_split: str | None
    """Split to validate on, with an optional slice. null: see `data.valid_fraction`."""
    valid_fraction: float = key(ge=0, lt=1)
    """Share of the training rows held out for validation when `data.valid_split` is null; drawn with `run.seed`."""
    max_samples: int | None = key(gt=0)
    """Use at most this many training rows, of each source of `data.mixture`, and in tasks that give a text a class or a
    number a fifth as many of `data.valid_split`. null: all."""
    max_samples_strategy: Literal["first", "even", "random", "balanced"] = key(visibility="advanced")
    """Which rows `data.max_samples` keeps: the first ones, evenly spaced ones, random ones drawn with `run.seed`, or
    `balanced`, as many of each class as there are, the first ones of each."""
    columns: Columns
    """Names of the user's columns, by what they mean."""
    conversation_extension: int = key(ge=1, le=10, visibility="advanced")
    """Single-turn conversations that follow each other and are merged into one, as far as `data.max_length` allows. 1:
    none."""
    max_length: int = key(gt=1)
    """Longest row in tokens, special tokens included."""
    max_prompt_length: int | None = key(gt=0, visibility="advanced")
    """Longest prompt in tokens; of a longer one the end is kept. null: no limit but `data.max_length`."""
    truncation: Literal["error", "left", "right", "drop"]
    """What happens to a longer row: refuse the run, cut its start, cut its end, or leave the row out (counted)."""
    block_size: int = key(gt=1)
    """Tokens in one block when texts are laid end to end."""
    add_eos: bool
    """End each text with the end-of-sequence token before texts are laid end to end."""
    chat_format: str
    """How conversations are written: `auto` (the tokenizer's own chat template), `chatml`, `alpaca`, `vicuna`,
    `zephyr`, `llama`, `mistral`, `plain` (`User: …`, `Assistant: …`), `raw` (prompt and completion as they are), or a
    file with a Jinja template. The trained model's tokenizer keeps it."""
    train_on: Literal["assistant", "all", "last"]
    """Tokens that carry loss: every answer, the whole row, or only the last answer."""
    token_weights: TokenWeights
    """How much a token counts, by who speaks."""
    on_bad_rows: Literal["error", "skip"]
    """A row that cannot be read or has no usable content: refuse the run, or skip and count it."""
    max_bad_rows: float = key(gt=0, le=1, visibility="advanced")
    """Largest share of bad rows that `data.on_bad_rows=skip` accepts."""
    streaming: bool = key(visibility="advanced")
    """Read and tokenise rows while training instead of before it. Needs `train.max_steps`."""
    shuffle_buffer: int = key(gt=0, visibility="advanced")
    """Rows a streaming run holds to shuffle among."""

    def sources(self) -> tuple[DataSource, ...]:
        """Where the rows come from: one source, or those of `data.mixture`, with what they take from here."""
        if self.mixture is None:
            alone = MixtureSource(path=self.path, files=self.files, config=self.config)
            return (self._source("data", alone, self.path),)
        names = [said.path if said.name is None else said.name for said in self.mixture]
        return tuple(
            self._source(
                f"data.mixture[{number}]", said, f"{name} (mixture[{number}])" if names.count(name) > 1 else name
            )
            for number, (said, name) in enumerate(zip(self.mixture, names, strict=True))
        )

    def _source(self, prefix: str, said: MixtureSource, name: str) -> DataSource:
        own = said.columns or {}
        ours = {name: value for name, value in self.columns.model_dump().items() if name not in own}
        taken = {name: getattr(self if getattr(said, name) is None else said, name) for name in INHERITED}
        inherited = {name for name in INHERITED if getattr(said, name) is None and taken[name] is not None}
        inherited |= {f"columns.{name}" for name, value in ours.items() if value is not None}
        inherited = inherited if self.mixture is not None else set()
        return DataSource(
            prefix, name, said.path, said.weight, said.files, said.config, columns={**ours, **own},
            inherited=frozenset(inherited), **taken,
        )  # fmt: skip

    @property
    def described(self) -> str:
        """The rows in a few words: the path, or the sources of a mixture."""
        return ", ".join(source.name for source in self.sources())

    @property
    def names_validation_rows(self) -> bool:
        """Whether any source has a split to validate on."""
        return any(source.valid_split is not None for source in self.sources())

    def problems(self, run: Run) -> Iterator[Problem]:
        given, sources = run.given, self.sources()
        for source in sources:
            if source.path.strip() != source.path or not source.path:
                yield Problem(f"{source.key}.path", f"{source.path!r} is empty or has space around it")
        yield from self._mixture_problems(run)
        all_named = bool(sources) and all(source.valid_split is not None for source in sources)
        if all_named and "data.valid_fraction" in given and self.valid_fraction > 0:
            what = f"data.valid_split={self.valid_split}" if self.mixture is None else "a valid_split of every source"
            yield Problem("data.valid_fraction", f"has no effect beside {what}", "set one of the two")
        merges = any(source.conversation_extension > 1 for source in sources)
        if merges and self.chat_format in ONE_ANSWER:
            what = f"has no effect with data.chat_format={self.chat_format}, which has no place for a second turn"
            longest = next(source for source in sources if source.conversation_extension > 1)
            advice = "choose another data.chat_format, such as chatml, or leave it out"
            yield Problem(longest.key_of("conversation_extension"), what, advice)
        if self.train_on == "last" and merges:
            what = "'last' trains one answer of a conversation, and data.conversation_extension merges several into it"
            yield Problem("data.train_on", what, "use data.train_on=assistant, or data.conversation_extension=1")
        none = no_evaluation(run)
        if self.valid_split is not None and none and none.wastes(run, "data.valid_split"):
            yield Problem("data.valid_split", f"has no effect: {none.why}", none.cure)
        if all(source.max_samples is None for source in sources) and "data.max_samples_strategy" in given:
            yield Problem(
                "data.max_samples_strategy", "has no effect without data.max_samples", "set data.max_samples too"
            )
        if self.on_bad_rows == "error" and "data.max_bad_rows" in given:
            yield Problem("data.max_bad_rows", "has no effect with data.on_bad_rows=error", "set data.on_bad_rows=skip")
        if not self.streaming and "data.shuffle_buffer" in given:
            yield Problem("data.shuffle_buffer", "has no effect without streaming", "set data.streaming=true")
        if self.streaming and run.train.max_steps is None:
            yield Problem("train.max_steps", "a streaming run has no known end", "set train.max_steps")
        if self.streaming and "data.valid_fraction" in given and self.valid_fraction > 0:
            yield Problem("data.valid_fraction", "a stream holds out no rows", "set data.valid_split")
        if self.streaming and run.train.overfit_batch:
            yield Problem("train.overfit_batch", "has no effect on a stream", "set data.streaming=false")
        limited = any(source.max_samples is not None for source in sources)
        if self.streaming and limited and self.max_samples_strategy != "first":
            yield Problem(
                "data.max_samples_strategy",
                f"'{self.max_samples_strategy}' needs the number of rows, which a stream does not have",
                "use data.max_samples_strategy=first",
            )
        yield from self._rendering_problems(run)

    def _rendering_problems(self, run: Run) -> Iterator[Problem]:
        """A format that there is not, or that rows of plain text have no use for, and weights that leave nothing."""
        from aitrain.data.formats import format_problems, shape_problem

        reads = run.trainer.reads
        yield from format_problems(self.chat_format)
        if self.columns.text is not None and "data.chat_format" in reads:
            problem = shape_problem(self.chat_format, "text", has_template=True)
            yield from [problem] if problem else []
        weights = self.token_weights.model_dump()
        if self.train_on != "all" and weights.pop("assistant") == 0 and not any(weights.values()):
            what = "0, and no other role has a weight: no token would be trained"
            yield Problem("data.token_weights.assistant", what, "set it above 0, or weigh another role")

    def _mixture_problems(self, run: Run) -> Iterator[Problem]:
        """Keys that mean nothing beside `data.mixture`, or without it, and what is wrong inside it."""
        weighted = any(source.weight is not None for source in self.sources())
        if "data.mixture_stopping" in run.given and not weighted:
            lacking = "data.mixture" if self.mixture is None else "a weight in data.mixture"
            yield Problem(
                "data.mixture_stopping", f"has no effect without {lacking}", f"set {lacking}, or leave it out"
            )
        if self.mixture is None:
            return
        if not self.mixture:
            yield Problem("data.mixture", "names no source", "write [{path: …}, {path: …}], or null")
        for name in OF_ONE_PATH:
            if f"data.{name}" in run.given and getattr(self, name) is not None:
                yield Problem(f"data.{name}", "has no effect beside data.mixture", "name it in a source of the mixture")
        for name in INHERITED:
            if f"data.{name}" in run.given and all(getattr(source, name) is not None for source in self.mixture):
                yield Problem(f"data.{name}", f"has no effect: every source of data.mixture has its own {name}", "")
        for number, source in enumerate(self.mixture):
            before = next((n for n, other in enumerate(self.mixture[:number]) if other.name == source.name), None)
            if source.name is not None and not source.name.strip():
                yield Problem(f"data.mixture[{number}].name", "is empty", "give it a name, or leave it out")
            elif source.name is not None and before is not None:
                what = f"'{source.name}' is the name of data.mixture[{before}] already"
                yield Problem(f"data.mixture[{number}].name", what, "give it another one, or leave it out")
            for role in source.columns or ():
                if role not in Columns.model_fields:
                    dotted = f"data.mixture[{number}].columns.{role}"
                    known = [f"data.mixture[{number}].columns.{name}" for name in Columns.model_fields]
                    yield Problem(dotted, "unknown key", did_you_mean(dotted, known))
            if source.valid_split is not None and (none := no_evaluation(run)) and none.wastes(run, "data.mixture"):
                yield Problem(f"data.mixture[{number}].valid_split", f"has no effect: {none.why}", none.cure)
