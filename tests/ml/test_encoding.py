"""Token ids and loss masks against transformers' own marks, over truncation, odd rows and odd tokenizers."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import words
from test_rendering import REWRITING, TOOLS, WITH_TOOLS, a_tokenizer, conversation, without_marks
from tokenizers import processors

from aitrain.compose import Request
from aitrain.config.data import TokenWeights
from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import BlockEncoder, ConversationEncoder, Encoded, Outcome, TooLong, Unusable
from aitrain.data.formats import template_of, use_format
from aitrain.data.prepare import open_rows, prepare
from aitrain.errors import DataError, Refused
from aitrain.ml.collating import pad, padding_id
from aitrain.plan import plan
from aitrain.start import Checked, check, prepare_rows

MESSAGES = ColumnChoice("messages", {"messages": "messages"}, "")
PAIRS = ColumnChoice("prompt_completion", {"prompt": "prompt", "completion": "completion"}, "")
WIDE = ColumnChoice("prompt_completion", {**PAIRS.columns, "input": "input", "system": "system"}, "")
TEXT = ColumnChoice("text", {"text": "text"}, "")


@pytest.fixture(scope="module")
def a_run() -> Run:
    return check(Request(tuple(words(None)))).run


def encoder(run: Run, **data: Any) -> ConversationEncoder:
    return ConversationEncoder(replace(run, data=run.data.model_copy(update=data)))


def encode(run: Run, row: dict[str, Any], choice: ColumnChoice, tokenizer: Any = None, **data: Any) -> Outcome:
    (outcome,) = encoder(run, **data).encode(tokenizer or a_tokenizer(), choice, [row])
    return outcome


def encoded(run: Run, row: dict[str, Any], choice: ColumnChoice, tokenizer: Any = None, **data: Any) -> Encoded:
    outcome = encode(run, row, choice, tokenizer, **data)
    assert isinstance(outcome, Encoded), outcome
    return outcome


def reason(run: Run, row: dict[str, Any], choice: ColumnChoice, tokenizer: Any = None, **data: Any) -> str:
    outcome = encode(run, row, choice, tokenizer, **data)
    assert isinstance(outcome, Unusable), outcome
    return outcome.reason


def trained_text(tokenizer: Any, row: Encoded) -> str:
    return tokenizer.decode([i for i, kept in zip(row.ids, row.trained, strict=True) if kept])


# --- masks against transformers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("tools", [None, TOOLS])
@pytest.mark.parametrize("marks", [True, False])
def test_masks_are_those_of_transformers(a_run: Run, turns: int, system: bool, tools: Any, marks: bool) -> None:
    tokenizer, messages = a_tokenizer(WITH_TOOLS), conversation(turns, system)
    wanted = tokenizer.apply_chat_template(
        messages, tools=tools, return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    if not marks:
        tokenizer.chat_template = without_marks(WITH_TOOLS)
    row = encoded(a_run, {"messages": messages, "tools": tools}, MESSAGES, tokenizer)
    assert row.ids == wanted["input_ids"]
    assert row.trained == wanted["assistant_masks"]
    assert sum(row.trained) > 0


def test_answers_of_signs_and_of_several_tokens_a_character(a_run: Run) -> None:
    tokenizer, answer = a_tokenizer(), "ß 漢字 🙂🙂\n\n   x"
    row = encoded(a_run, {"prompt": "🙂?", "completion": answer}, PAIRS, tokenizer)
    assert trained_text(tokenizer, row) == answer + "<|im_end|>"


def test_blanks_in_an_answer_are_trained_where_a_tokenizer_trims_its_offsets(a_run: Run) -> None:
    tokenizer, answer = a_tokenizer(), "if x:\n        return    y"
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    row = encoded(a_run, {"prompt": "Code?", "completion": answer}, PAIRS, tokenizer)
    assert trained_text(tokenizer, row) == answer + "<|im_end|>"


# --- ends and beginnings --------------------------------------------------------------------------------------------


def test_the_end_of_every_answer_is_trained_and_the_break_after_it_is_not(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    row = encoded(a_run, {"messages": conversation(3, True)}, MESSAGES, tokenizer)
    ends = [i for i, token in enumerate(row.ids) if token == tokenizer.eos_token_id and row.trained[i]]
    assert len(ends) == 3
    assert [row.trained[end + 1] for end in ends] == [0, 0, 0]


def test_padding_is_never_labelled_and_the_end_token_is_also_when_it_pads(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    rows = [encoded(a_run, {"messages": conversation(n, False)}, MESSAGES, tokenizer) for n in (1, 3)]
    batch = pad([_token_row(row) for row in rows], tokenizer.pad_token_id)
    longest = batch["input_ids"].shape[1]
    predicted = dict(zip(batch["kept"].tolist(), batch["targets"].tolist(), strict=True))
    for index, row in enumerate(rows):
        length = len(row.ids)
        labels = [predicted.pop(index * longest + place - 1, None) for place in range(1, longest)]
        wanted = [i if kept else None for i, kept in zip(row.ids, row.trained, strict=True)]
        assert labels == wanted[1:] + [None] * (longest - length)
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (longest - length)
        assert labels.count(tokenizer.eos_token_id) == (1, 3)[index]
    assert predicted == {}


def _token_row(row: Encoded) -> Any:
    import numpy as np

    from aitrain.data.tokens import TokenRow

    return TokenRow(np.asarray(row.ids, np.int32), np.asarray(row.trained, np.uint8))


def with_bos(template: str | None) -> Any:
    """A tokenizer that puts `<|im_start|>` before every text, as Llama's puts its BOS."""
    tokenizer = a_tokenizer(template)
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    return tokenizer


ONE_LINE = "{% for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' else ': ') }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "choice"),
    [
        ("{{ bos_token }}" + ONE_LINE, PAIRS),
        ("{{ bos_token + bos_token }}" + ONE_LINE, PAIRS),
        (None, PAIRS),
        (None, TEXT),
    ],
)
def test_one_bos_never_two(a_run: Run, template: str | None, choice: ColumnChoice) -> None:
    tokenizer = with_bos(template)
    for text in ("Hello there", "<|im_start|>Hello there"):
        if text.startswith("<") and choice is PAIRS:
            continue
        row = {"prompt": text, "completion": "Hi", "text": text}
        chat_format = "plain" if template is None and choice is PAIRS else "auto"
        use_format(tokenizer, chat_format)
        train_on = "all" if choice is TEXT else "assistant"
        found = encoded(a_run, row, choice, tokenizer, train_on=train_on, chat_format=chat_format)
        assert found.ids.count(tokenizer.bos_token_id) == 1
        assert found.ids[0] == tokenizer.bos_token_id
        assert len(found.ids) == len(found.trained)


def test_plain_lines(a_run: Run) -> None:
    tokenizer = use_format(a_tokenizer(None), "plain")
    row = encoded(a_run, {"messages": conversation(2, False)}, MESSAGES, tokenizer, chat_format="plain")
    assert trained_text(tokenizer, row) == "".join(f" {n}, of course.\nSo it is<|im_end|>" for n in (1, 2))


def test_plain_text_is_trained_whole_and_ends_with_the_end_token(a_run: Run) -> None:
    row = encoded(a_run, {"text": "Some words."}, TEXT)
    assert row.ids[-1] == a_tokenizer().eos_token_id
    assert row.trained == [1] * len(row.ids)


# --- train_on, truncation -------------------------------------------------------------------------------------------


def test_train_on(a_run: Run) -> None:
    tokenizer, row = a_tokenizer(), {"messages": conversation(3, True)}
    every = encoded(a_run, row, MESSAGES, tokenizer, train_on="assistant")
    last = encoded(a_run, row, MESSAGES, tokenizer, train_on="last")
    whole = encoded(a_run, row, MESSAGES, tokenizer, train_on="all")
    assert every.ids == last.ids == whole.ids
    assert trained_text(tokenizer, last) == "3, of course.\nSo it is<|im_end|>"
    assert trained_text(tokenizer, every).count("<|im_end|>") == 3
    assert whole.trained == [1] * len(whole.ids)


def test_truncation(a_run: Run) -> None:
    row = {"messages": conversation(3, False)}
    full = encoded(a_run, row, MESSAGES)
    size = len(full.ids)
    for truncation in ("error", "drop"):
        assert encode(a_run, row, MESSAGES, truncation=truncation, max_length=size - 1) == TooLong(size)
        assert encode(a_run, row, MESSAGES, truncation=truncation, max_length=size) == full
    right = encoded(a_run, row, MESSAGES, truncation="right", max_length=size - 5)
    left = encoded(a_run, row, MESSAGES, truncation="left", max_length=size - 5)
    assert (right.ids, right.trained, right.truncated) == (full.ids[:-5], full.trained[:-5], True)
    assert (left.ids, left.trained, left.truncated) == (full.ids[5:], full.trained[5:], True)


def test_an_answer_cut_to_nothing_is_refused(a_run: Run) -> None:
    row = {"messages": conversation(1, False)}
    first = encoded(a_run, row, MESSAGES).trained.index(1)
    assert "no token of the answer is left" in reason(a_run, row, MESSAGES, truncation="right", max_length=first)
    assert encoded(a_run, row, MESSAGES, truncation="right", max_length=first + 1).trained[-1] == 1
    # One token is left, but it stands first, where nothing predicts it.
    last = encoded(a_run, {"text": "Some words."}, TEXT)
    assert "no token" in reason(a_run, {"text": "Some words."}, TEXT, truncation="left", max_length=1)
    assert len(last.ids) > 2


# --- rows that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "completion": ""}, "'completion' is empty"),
        ({"prompt": "a", "completion": " \n"}, "'completion' is empty"),
        ({"prompt": "a", "completion": None}, "'completion' holds nothing"),
        ({"prompt": "a"}, "'completion' holds nothing"),
        ({"prompt": "a", "completion": 7}, "'completion' holds a int"),
        ({"prompt": "", "completion": "b"}, "'prompt' is empty"),
        ({"prompt": ["a"], "completion": "b"}, "'prompt': message 1 is text ('a'), not an object"),
        ({"prompt": "a", "completion": "b", "input": 0}, "'input' holds a int"),
        ({"prompt": "a", "completion": "b", "system": False}, "'system' holds a bool"),
    ],
)
def test_bad_pairs(a_run: Run, row: dict[str, Any], words: str) -> None:
    assert words in reason(a_run, row, WIDE)


def test_extra_columns_may_be_missing_or_blank(a_run: Run) -> None:
    bare = encoded(a_run, {"prompt": "a", "completion": "b"}, PAIRS)
    for value in (None, "", "  "):
        assert encoded(a_run, {"prompt": "a", "completion": "b", "input": value, "system": value}, WIDE) == bare
    both = encoded(a_run, {"prompt": "a", "completion": "b", "input": "i", "system": "s"}, WIDE)
    text = a_tokenizer().decode(both.ids)
    assert text.startswith("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na\n\ni<|im_end|>")


@pytest.mark.parametrize(("speaker", "content", "asks", "says"), [
    ("role", "content", "user", "assistant"), ("from", "value", "human", "gpt"),
])  # fmt: skip
def test_bad_conversations_in_both_dialects(a_run: Run, speaker: str, content: str, asks: str, says: str) -> None:
    def wrong(*turns: tuple[Any, Any]) -> str:
        return reason(a_run, {"messages": [{speaker: who, content: what} for who, what in turns]}, MESSAGES)

    good = {"messages": [{speaker: asks, content: "a"}, {speaker: says, content: "b"}]}
    wanted = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert encoded(a_run, good, MESSAGES) == encoded(a_run, wanted, MESSAGES)
    assert encoded(a_run, {"messages": json.dumps(good["messages"])}, MESSAGES) == encoded(a_run, wanted, MESSAGES)
    assert "an answer is empty" in wrong((asks, "a"), (says, ""))
    assert "an answer is empty" in wrong((asks, "a"), (says, " "), (asks, "c"), (says, "d"))
    assert "has no" in wrong((asks, "a"), (says, None))
    assert "a number" in wrong((asks, "a"), (says, 7))
    assert "unknown role" in wrong((asks, "a"), ("narrator", "b"))
    assert "no assistant turn" in wrong((asks, "a"))
    assert "begins with an answer" in wrong((says, "a"), (asks, "b"))


@pytest.mark.parametrize("value", [None, [], "text", {"role": "user"}, [1], "[{}]"])
def test_what_is_no_conversation(a_run: Run, value: Any) -> None:
    assert reason(a_run, {"messages": value}, MESSAGES)


# --- prompts and completions of messages ----------------------------------------------------------------------------


def test_a_prompt_and_a_completion_of_messages_are_the_same_conversation(a_run: Run) -> None:
    """TRL's form; either may be text, or a single message without a list."""
    ask, say = {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}
    wanted = encoded(a_run, {"messages": [ask, say]}, MESSAGES)
    for prompt in ([ask], ask, "a?", [{"from": "human", "value": "a?"}]):
        for completion in ([say], say, "b"):
            assert encoded(a_run, {"prompt": prompt, "completion": completion}, PAIRS) == wanted
    assert encoded(a_run, {"prompt": [ask], "completion": "b"}, PAIRS, chat_format="raw") == encoded(
        a_run, {"prompt": "a?", "completion": "b"}, PAIRS, chat_format="raw"
    )


def test_only_the_answers_of_the_completion_are_trained(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    talk = conversation(3, True)
    row = {"prompt": talk[:4], "completion": talk[4:]}  # the first answer is in the prompt, two in the completion
    found, whole = encoded(a_run, row, PAIRS, tokenizer), encoded(a_run, {"messages": talk}, MESSAGES, tokenizer)
    assert found.ids == whole.ids
    answers = [f"{n}, of course.\nSo it is<|im_end|>" for n in (1, 2, 3)]
    assert trained_text(tokenizer, whole) == "".join(answers)
    assert trained_text(tokenizer, found) == "".join(answers[1:])
    assert trained_text(tokenizer, encoded(a_run, row, PAIRS, tokenizer, train_on="last")) == answers[2]
    everything = encoded(a_run, row, PAIRS, tokenizer, train_on="all")
    assert everything.trained == [1] * len(whole.ids)
    weights = TokenWeights(system=None, user=0.5, assistant=2, tool=None)
    weighed = encoded(a_run, row, PAIRS, tokenizer, token_weights=weights)
    assert weighed.weights is not None
    assert {2.0: "".join(answers[1:]), 0.5: "".join(turn["content"] + "<|im_end|>" for turn in talk[1::2])} == {
        weight: tokenizer.decode([i for i, w in zip(weighed.ids, weighed.weights, strict=True) if w == weight])
        for weight in (2.0, 0.5)
    }


def test_a_template_may_rewrite_the_answers_of_a_prompt(a_run: Run) -> None:
    """As those of models that think do: only an answer that is trained must stay as it is."""
    tokenizer, talk = a_tokenizer(REWRITING), conversation(2, False)
    assert "rewrites turn 2" in reason(a_run, {"messages": talk}, MESSAGES, tokenizer)
    row = {"prompt": talk[:3], "completion": talk[3:]}
    assert trained_text(tokenizer, encoded(a_run, row, PAIRS, tokenizer)).startswith("2, of course.\nSo it is")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": [], "completion": "b"}, "'prompt': an empty list of messages"),
        ({"prompt": [{"role": "user"}], "completion": "b"}, "'prompt': message 1 has no 'content'"),
        ({"prompt": conversation(1, False), "completion": "b"}, "'prompt' ends with an answer"),
        ({"prompt": "a", "completion": conversation(1, False)}, "'completion' begins with a user turn"),
        ({"prompt": "a", "completion": [{"role": "assistant", "content": ""}]}, "an answer is empty (message 2)"),
        ({"prompt": conversation(1, False)[:1], "completion": "b", "input": "c"}, "'input' cannot stand below"),
        (
            {"prompt": conversation(1, True)[:2], "completion": "b", "system": "c"},
            "has a system message besides column 'system'",
        ),
    ],
)
def test_messages_that_are_no_prompt_or_no_completion(a_run: Run, row: dict[str, Any], says: str) -> None:
    assert says in reason(a_run, row, WIDE)


def test_tools_go_with_messages(a_run: Run) -> None:
    tokenizer, talk = a_tokenizer(WITH_TOOLS), conversation(1, False)
    wanted = encoded(a_run, {"messages": talk, "tools": TOOLS}, MESSAGES, tokenizer)
    assert encoded(a_run, {"prompt": talk[:1], "completion": talk[1:], "tools": TOOLS}, PAIRS, tokenizer) == wanted
    texts = {"prompt": talk[0]["content"], "completion": talk[1]["content"]}
    assert encoded(a_run, {**texts, "tools": "a word"}, PAIRS, tokenizer) == encoded(a_run, texts, PAIRS, tokenizer)


def test_an_empty_answer_that_is_not_trained_is_no_matter(a_run: Run) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    tokenizer = a_tokenizer()
    assert trained_text(tokenizer, encoded(a_run, {"messages": messages}, MESSAGES, train_on="last")) == "d<|im_end|>"


@pytest.mark.parametrize(("value", "words"), [(None, "NoneType"), ("", "empty"), (" \n", "empty"), (3, "int")])
def test_bad_texts_for_blocks(a_run: Run, value: Any, words: str) -> None:
    good, bad, last = BlockEncoder(a_run).encode(a_tokenizer(), TEXT, [{"text": "a"}, {"text": value}, {"text": "b"}])
    assert isinstance(bad, Unusable)
    assert words in bad.reason
    ids = a_tokenizer()(["a", "b"])["input_ids"]
    assert [good, last] == [Encoded([*each, 1], [1] * (len(each) + 1)) for each in ids]


def test_a_tokenizer_without_end_token_cannot_end_texts(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(DataError, match=r"data\.add_eos: the tokenizer has no end-of-sequence token"):
        list(BlockEncoder(a_run).encode(tokenizer, TEXT, [{"text": "a"}]))
    bare = BlockEncoder(replace(a_run, data=a_run.data.model_copy(update={"add_eos": False})))
    assert list(bare.encode(tokenizer, TEXT, [{"text": "a"}])) == [Encoded(tokenizer("a")["input_ids"], [1])]
    assert padding_id(tokenizer) == tokenizer.pad_token_id
    tokenizer.pad_token = None
    assert padding_id(tokenizer) == 0


# --- counts and the cache -------------------------------------------------------------------------------------------


def checked(path: Path, **changes: Any) -> Checked:
    return check(Request(tuple(words(None, data__path=path, data__max_samples=None, **changes))))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [{"prompt": f"Say {n} times a", "completion": "a " * n + "!"} for n in range(1, 13)]


def facts(path: Path, **changes: Any) -> dict[str, Any]:
    return dict(prepare_rows(checked(path, **changes)).facts["train"])


def test_counts(tmp_path: Path, a_run: Run) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    lengths = [len(encoded(a_run, row, PAIRS).ids) for row in ROWS]
    limit = sorted(lengths)[7]
    longer = sum(length > limit for length in lengths)
    assert longer
    cut = facts(path, data__max_length=limit, data__truncation="right")
    assert (cut["read"], cut["kept"], cut["truncated"], cut["dropped"]) == (12, 12, longer, 0)
    assert cut["tokens"] == sum(min(length, limit) for length in lengths)
    dropped = facts(path, data__max_length=limit, data__truncation="drop")
    assert (dropped["kept"], dropped["truncated"], dropped["dropped"]) == (12 - longer, 0, longer)
    with pytest.raises(DataError) as refused:
        facts(path, data__max_length=limit, data__truncation="error")
    (problem,) = refused.value.problems
    assert problem.what == f"{longer} of 12 rows are longer than {limit} tokens, the longest has {max(lengths)}"
    assert problem.where == f"rows.jsonl:{lengths.index(max(lengths)) + 1}"
    assert problem.fix == f"data.max_length={max(lengths)}"


def test_bad_rows_are_counted_or_refused_with_their_lines(tmp_path: Path) -> None:
    rows = [*ROWS[:4], {"prompt": "a", "completion": ""}, *ROWS[4:], {"prompt": "a", "completion": None}]
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(Refused) as refused:
        facts(path)
    assert [problem.where for problem in refused.value.problems] == ["rows.jsonl:5", "rows.jsonl:14"]
    found = facts(path, data__on_bad_rows="skip", data__max_bad_rows=0.2)
    assert (found["read"], found["kept"], found["bad"]) == (14, 12, 2)
    with pytest.raises(DataError, match=r"2 of 14 rows \(14.3%\) are bad"):
        facts(path, data__on_bad_rows="skip", data__max_bad_rows=0.1)


def test_the_cache_is_used_again_unless_a_token_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "other": uuid.uuid4().hex} for row in ROWS]  # in no cache yet
    path = write(tmp_path / "rows.jsonl", rows)
    calls = 0
    original = ConversationEncoder.encode

    def counting(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *args)

    monkeypatch.setattr(ConversationEncoder, "encode", counting)

    def made_anew(**changes: Any) -> bool:
        before = calls
        prepare_rows(checked(path, **changes))
        return calls > before

    assert made_anew()
    assert not made_anew()
    assert not made_anew(train__learning_rate=1e-5, train__batch_size=2, model__path="sample:tiny-mistral")
    assert made_anew(data__max_length=512)
    assert made_anew(data__train_on="last")
    assert made_anew(data__truncation="drop")
    assert made_anew(data__columns__completion="other")
    assert made_anew(data__columns__system="other")
    assert not made_anew()
    write(path, [*rows, rows[0]])
    assert made_anew()


def test_another_template_makes_the_cache_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    first = checked(path)
    found, tokenizer = first.found.data, a_tokenizer()
    assert found is not None
    folders = []
    for template in (tokenizer.chat_template, without_marks(WITH_TOOLS), template_of("zephyr", tokenizer)):
        tokenizer.chat_template = template
        made = prepare(first.run, found.sources, ConversationEncoder(first.run), tokenizer)
        folders.append(made.tokens["train"])
    assert len(set(folders)) == 3


def test_opened_rows_are_the_encoded_ones(tmp_path: Path, a_run: Run) -> None:
    made = checked(write(tmp_path / "rows.jsonl", ROWS), data__valid_fraction=0.25)
    prepared = prepare_rows(made)
    train, valid = open_rows(
        made.run, plan(made.run, prepared.rows, made.machine, tmp_path, prepared.tokens), ConversationEncoder(made.run)
    )
    assert valid is not None
    assert (len(train), len(valid)) == (9, 3)
    stored = sorted(row.ids.tolist() for rows in (train, valid) for row in map(rows.__getitem__, range(len(rows))))
    assert stored == sorted(encoded(a_run, row, PAIRS).ids for row in ROWS)
