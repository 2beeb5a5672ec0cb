"""Token ids of preferences: against TRL's own trainers, and by hand where prompts and answers are cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from runs import words
from test_rendering import REWRITING, TOOLS, WITH_TOOLS, a_tokenizer
from tokenizers import normalizers, processors

from aitrain.compose import Request
from aitrain.config.run import Run
from aitrain.data.columns import ColumnChoice, find_columns
from aitrain.data.encoding import Encoded, EncodedGroup, Outcome, TooLong, Unusable
from aitrain.data.preference import preference_pair
from aitrain.data.preference_encoding import PairEncoder, UnpairedEncoder
from aitrain.data.tokens import TokenTable, write_table
from aitrain.errors import DataError
from aitrain.start import check

HH_RLHF = Path(__file__).parents[3] / "shared/data/preference/hh_rlhf"
ROWS: list[dict[str, Any]] = [
    {"prompt": "What color is the sky?", "chosen": "It is blue.", "rejected": "It is\n\ngreen."},
    {"prompt": "Say 🙂 or 漢字\n", "chosen": "  🙂", "rejected": "漢字 \n"},
    {"prompt": "a", "chosen": "b", "rejected": "b b b b b b b b b b b b"},
    {"prompt": "Which end? ", "chosen": "<|im_end|>", "rejected": "none\n"},
    {"prompt": "x" * 200, "chosen": "def f(x):\n        return  x\n", "rejected": "\tno"},
]
MESSAGES: list[dict[str, Any]] = [
    {
        "prompt": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "And now?"},
        ],
        "chosen": [{"role": "assistant", "content": "Now we talk."}],
        "rejected": [{"role": "assistant", "content": "Go away."}],
    },
]


@pytest.fixture(scope="module")
def a_run() -> Run:
    return check(Request(tuple(words(None)))).run


def with_data(run: Run, **data: Any) -> Run:
    return replace(run, data=run.data.model_copy(update=data))


def choose(row: dict[str, Any]) -> ColumnChoice:
    return find_columns(list(row), [row], {}, ("pairs", "unpaired"))


def outcome(run: Run, row: dict[str, Any], tokenizer: Any = None, **data: Any) -> Outcome:
    encoder = PairEncoder(with_data(run, **data))
    (found,) = encoder.encode(tokenizer or a_tokenizer(), choose(row), [row])
    return found


def encoded(run: Run, row: dict[str, Any], tokenizer: Any = None, **data: Any) -> tuple[Encoded, Encoded]:
    found = outcome(run, row, tokenizer, **data)
    assert isinstance(found, EncodedGroup), found
    chosen, rejected = found.rows
    return chosen, rejected


def reason(run: Run, row: dict[str, Any], tokenizer: Any = None, **data: Any) -> str:
    found = outcome(run, row, tokenizer, **data)
    assert isinstance(found, Unusable), found
    return found.reason


def trained_text(tokenizer: Any, row: Encoded) -> str:
    return tokenizer.decode([i for i, kept in zip(row.ids, row.trained, strict=True) if kept])


# --- against TRL ----------------------------------------------------------------------------------------------------


def of_trl(trainer: Any, rows: list[dict[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """What a trainer of TRL makes of rows before it trains; it needs no model for that."""
    from datasets import Dataset

    settings = SimpleNamespace(dataset_num_proc=None, max_length=None, truncation_mode="keep_start", loss_type="kto")
    owner = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False)
    dataset = Dataset.from_list(rows)
    return list(trainer._prepare_dataset(owner, dataset, tokenizer, settings, "train"))


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """Texts as TRL needs them to use the chat template."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant"}
    return {
        name: [{"role": roles[name], "content": value}] if name in roles and isinstance(value, str) else value
        for name, value in row.items()
    }


@pytest.mark.parametrize("row", [*ROWS, *MESSAGES], ids=lambda row: str(row["chosen"])[:12])
def test_a_conversation_has_the_ids_of_trl_and_is_trained_up_to_its_end_token(a_run: Run, row: dict[str, Any]) -> None:
    """The one difference: TRL also trains the line break that the template puts behind the end token, which a model
    that has stopped never writes."""
    from trl import DPOTrainer

    tokenizer = a_tokenizer()
    (wanted,) = of_trl(DPOTrainer, [as_messages(row)], tokenizer)
    for found, answer in zip(encoded(a_run, row, tokenizer), ("chosen_ids", "rejected_ids"), strict=True):
        assert found.ids == wanted["prompt_ids"] + wanted[answer]
        assert tokenizer.decode(wanted[answer][-1:]) == "\n"
        assert found.trained == [0] * len(wanted["prompt_ids"]) + [1] * (len(wanted[answer]) - 1) + [0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["chosen"][:12])
def test_texts_as_they_are_have_the_ids_and_masks_of_trl(a_run: Run, row: dict[str, Any]) -> None:
    from trl import DPOTrainer

    tokenizer = a_tokenizer()
    (wanted,) = of_trl(DPOTrainer, [row], tokenizer)
    for found, answer in zip(
        encoded(a_run, row, tokenizer, chat_format="raw"), ("chosen_ids", "rejected_ids"), strict=True
    ):
        # TRL writes no second end token after an answer that is one.
        more = [tokenizer.eos_token_id] if row[answer.removesuffix("_ids")].endswith(tokenizer.eos_token) else []
        assert found.ids == wanted["prompt_ids"] + wanted[answer] + more
        assert found.trained == [0] * len(wanted["prompt_ids"]) + [1] * len(wanted[answer] + more)


def test_a_token_that_merges_prompt_and_answer_belongs_to_the_answer_as_with_trl(a_run: Run) -> None:
    from trl import DPOTrainer

    tokenizer = a_tokenizer()
    row = {"prompt": "def ret", "chosen": "urn", "rejected": "ry"}
    (wanted,) = of_trl(DPOTrainer, [row], tokenizer)
    alone = tokenizer("def ret")["input_ids"]
    assert len(wanted["prompt_ids"]) < len(alone), "the words of this test no longer merge: choose others"
    chosen, rejected = encoded(a_run, row, tokenizer, chat_format="raw")
    assert (chosen.ids, rejected.ids) == tuple(
        wanted["prompt_ids"] + wanted[name] for name in ("chosen_ids", "rejected_ids")
    )
    assert chosen.trained == [0] * len(wanted["prompt_ids"]) + [1] * len(wanted["chosen_ids"])
    assert rejected.trained == [0] * len(wanted["prompt_ids"]) + [1] * len(wanted["rejected_ids"])


def test_judged_answers_and_pairs_taken_apart_are_those_of_trls_kto(a_run: Run) -> None:
    from trl.trainer.kto_trainer import KTOTrainer

    tokenizer = a_tokenizer()
    wanted = of_trl(KTOTrainer, [as_messages(row) for row in ROWS], tokenizer)
    encoder = UnpairedEncoder(a_run)
    groups = [group for found in encoder.encode(tokenizer, choose(ROWS[0]), ROWS) for group in found]  # type: ignore[union-attr]
    assert len(groups) == 2 * len(ROWS)
    by_ids = {tuple(item["prompt_ids"] + item["completion_ids"]): item["label"] for item in wanted}
    assert len(by_ids) == len(groups)
    assert [by_ids[tuple(group.rows[0].ids)] for group in groups] == [group.value == 1.0 for group in groups]
    judged = [{"prompt": row["prompt"], "completion": row["rejected"], "label": False} for row in ROWS]
    singles = list(encoder.encode(tokenizer, choose(judged[0]), judged))
    assert singles == groups[1::2]


def test_reward_models_of_trl_read_the_same_rows(a_run: Run) -> None:
    from trl import RewardTrainer

    tokenizer = a_tokenizer()
    wanted = of_trl(RewardTrainer, [as_messages(row) for row in ROWS], tokenizer)
    for row, item in zip(ROWS, wanted, strict=True):
        chosen, rejected = encoded(a_run, row, tokenizer)
        assert (chosen.ids, rejected.ids) == (item["chosen_ids"], item["rejected_ids"])


# --- prompts and answers --------------------------------------------------------------------------------------------


def test_both_rows_of_hh_rlhf_begin_with_the_prompt_and_train_the_answer(a_run: Run) -> None:
    if not HH_RLHF.is_dir():
        pytest.skip("the data folder of the development machine is not here")
    rows = [json.loads(line) for line in (HH_RLHF / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    tokenizer, choice = a_tokenizer(), choose(rows[0])
    found = list(PairEncoder(with_data(a_run, max_length=100_000)).encode(tokenizer, choice, rows))
    for row, group in zip(rows, found, strict=True):
        assert isinstance(group, EncodedGroup), group
        pair = preference_pair(choice, row)
        prompt = tokenizer.apply_chat_template(pair.prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        for encoded_row, answer in zip(group.rows, (pair.chosen, pair.rejected), strict=True):
            assert encoded_row.ids[: len(prompt)] == prompt
            assert encoded_row.trained[: len(prompt)] == [0] * len(prompt)
            assert trained_text(tokenizer, encoded_row) == answer[0]["content"] + "<|im_end|>"


def test_of_an_answer_of_several_turns_those_of_the_assistant_are_trained(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    said = [{"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello"))]
    said += [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    other = [said[0], {"role": "assistant", "content": "What?"}]
    chosen, rejected = encoded(a_run, {"chosen": said, "rejected": other}, tokenizer)
    assert trained_text(tokenizer, chosen) == "Hello<|im_end|>So.<|im_end|>"
    assert trained_text(tokenizer, rejected) == "What?<|im_end|>"
    before = [{"role": "user", "content": "Ho"}, {"role": "assistant", "content": "Hum"}]
    row = {"chosen": before + said, "rejected": before + other}
    assert [trained_text(tokenizer, found) for found in encoded(a_run, row, tokenizer)] == [
        "Hello<|im_end|>So.<|im_end|>",
        "What?<|im_end|>",
    ]


def test_a_template_may_rewrite_earlier_answers_but_not_the_prompt(a_run: Run) -> None:
    tokenizer = a_tokenizer(REWRITING.replace("+ '\\n' }}{%- endif %}", "+ eos_token + '\\n' }}{%- endif %}"))
    chosen, _ = encoded(a_run, MESSAGES[0], tokenizer)
    # This template's space before the answer merges with its first word.
    assert trained_text(tokenizer, chosen) == " Now we talk.<|im_end|>"
    assert "assistant: He\n" in tokenizer.decode(chosen.ids)
    tokenizer = a_tokenizer(
        WITH_TOOLS.replace("'<|im_start|>assistant\\n' }}{%- endif", "'<|im_start|>model\\n' }}{%- endif")
    )
    assert "the chat template" in reason(a_run, ROWS[0], tokenizer)


def test_tools_are_rendered_into_the_prompt(a_run: Run) -> None:
    tokenizer = a_tokenizer(WITH_TOOLS)
    chosen, rejected = encoded(a_run, {**ROWS[0], "tools": TOOLS}, tokenizer)
    for row in (chosen, rejected):
        assert '"name": "add"' in tokenizer.decode(row.ids[: row.trained.index(1)])
    assert encoded(a_run, {**ROWS[0], "tools": json.dumps(TOOLS)}, tokenizer) == (chosen, rejected)


ONE_LINE = """\
{%- for m in messages %}{{ m['content'] + (eos_token if m['role'] == 'assistant' else ':\n') }}{% endfor %}"""


def test_one_bos_never_two(a_run: Run) -> None:
    tokenizer = a_tokenizer("{{ bos_token + bos_token }}" + ONE_LINE)
    tokenizer.bos_token = "<|im_start|>"
    for row in encoded(a_run, ROWS[0], tokenizer):
        assert row.ids.count(tokenizer.bos_token_id) == 1
        assert trained_text(tokenizer, row).endswith("<|im_end|>")
        assert tokenizer.decode(row.ids[: row.trained.index(1)]) == "<|im_start|>What color is the sky?:\n"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>",
        special_tokens=[("<|im_start|>", tokenizer.bos_token_id), ("<|im_end|>", tokenizer.eos_token_id)],
    )
    for row in encoded(a_run, ROWS[0], tokenizer, chat_format="raw"):
        assert row.ids[0] == tokenizer.bos_token_id
        assert row.ids[-2:] == [tokenizer.eos_token_id] * 2
        assert row.trained[-2:] == [1, 0], "the end that the tokenizer adds stands for no text"
        assert tokenizer.decode(row.ids[: row.trained.index(1)]) == "<|im_start|>What color is the sky?"


def test_the_tokenizer_is_called_once_for_a_batch_of_rows(a_run: Run) -> None:
    tokenizer = a_tokenizer()
    called: list[int] = []

    class Counting(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, texts: list[str], **more: Any) -> Any:
            called.append(len(texts))
            return super().__call__(texts, **more)

    tokenizer.__class__ = Counting
    rows = [*ROWS, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    found = list(PairEncoder(a_run).encode(tokenizer, choose(ROWS[0]), rows))
    assert called == [3 * len(ROWS)]
    assert isinstance(found[-1], Unusable)
    assert list(PairEncoder(a_run).encode(tokenizer, choose(ROWS[0]), rows[-1:])) == found[-1:]


# --- lengths --------------------------------------------------------------------------------------------------------

LONG = {"prompt": "one two three four five " * 8, "chosen": "six seven", "rejected": "no " * 30}


@pytest.fixture(scope="module")
def whole(a_run: Run) -> tuple[Encoded, Encoded, int]:
    """Both rows of LONG, and where their answers begin."""
    chosen, rejected = encoded(a_run, LONG, max_length=10_000)
    start = chosen.trained.index(1)
    assert start == rejected.trained.index(1)
    assert chosen.ids[:start] == rejected.ids[:start]
    assert len(chosen.ids) < len(rejected.ids)
    return chosen, rejected, start


def test_right_cuts_the_end_of_each_answer_that_is_too_long(a_run: Run, whole: tuple[Encoded, Encoded, int]) -> None:
    chosen, rejected, start = whole
    limit = len(chosen.ids)
    assert encoded(a_run, LONG, max_length=limit, truncation="right") == (
        chosen,
        Encoded(rejected.ids[:limit], rejected.trained[:limit], truncated=True),
    )
    short = encoded(a_run, LONG, max_length=start + 1, truncation="right")
    assert [sum(row.trained) for row in short] == [1, 1]
    says = reason(a_run, LONG, max_length=start, truncation="right")
    assert says == (
        f"a prompt of {start} tokens leaves no room for an answer within data.max_length={start}; "
        "data.max_prompt_length keeps the end of a prompt"
    )


def test_left_cuts_the_same_part_of_the_prompt_from_both(a_run: Run, whole: tuple[Encoded, Encoded, int]) -> None:
    chosen, rejected, start = whole
    for kept in (1, 7, start - 1):
        limit = kept + len(rejected.ids) - start
        lost = start - kept
        assert encoded(a_run, LONG, max_length=limit, truncation="left") == (
            Encoded(chosen.ids[lost:], chosen.trained[lost:], truncated=True),
            Encoded(rejected.ids[lost:], rejected.trained[lost:], truncated=True),
        )
    answer = len(rejected.ids) - start
    says = reason(a_run, LONG, max_length=answer, truncation="left")
    assert says == f"an answer of {answer} tokens leaves no room for the prompt within data.max_length={answer}"


@pytest.mark.parametrize("truncation", ["error", "drop"])
def test_a_pair_is_too_long_as_a_whole(a_run: Run, whole: tuple[Encoded, Encoded, int], truncation: str) -> None:
    limit = len(whole[1].ids)
    assert encoded(a_run, LONG, max_length=limit, truncation=truncation) == whole[:2]
    assert outcome(a_run, LONG, max_length=limit - 1, truncation=truncation) == TooLong(limit)


@pytest.mark.parametrize("truncation", ["error", "drop", "left", "right"])
def test_of_a_long_prompt_the_end_is_kept(a_run: Run, whole: tuple[Encoded, Encoded, int], truncation: str) -> None:
    chosen, rejected, start = whole
    found = encoded(a_run, LONG, max_length=10_000, max_prompt_length=9, truncation=truncation)
    for row, full in zip(found, (chosen, rejected), strict=True):
        assert row == Encoded(full.ids[start - 9 :], full.trained[start - 9 :], truncated=True)
        assert row.trained.index(1) == 9
    assert encoded(a_run, LONG, max_length=10_000, max_prompt_length=start) == (chosen, rejected)


def test_what_is_too_long_is_counted_after_the_prompt_was_cut(a_run: Run, whole: tuple[Encoded, Encoded, int]) -> None:
    _, rejected, start = whole
    limit = 9 + len(rejected.ids) - start
    encoded(a_run, LONG, max_length=limit, max_prompt_length=9, truncation="error")
    found = outcome(a_run, LONG, max_length=limit - 1, max_prompt_length=9, truncation="error")
    assert found == TooLong(limit)


@pytest.mark.parametrize(("values", "said"), [
    ([[1, 1], [1]], "every answer is wanted and none is unwanted"),
    ([[0]], "every answer is unwanted and none is wanted"),
    ([[1, 0], [1]], ""),
    ([[1], [0]], ""),
])  # fmt: skip
def test_answers_that_are_all_of_one_kind_are_told(a_run: Run, values: list[list[float]], said: str) -> None:
    arrays = [np.array(part, np.float32) for part in values]
    found = list(UnpairedEncoder(a_run).notes(a_tokenizer(), [], arrays))
    assert [note[: len(said)] for note in found] == ([said] if said else [])


def test_answers_that_are_cut_to_the_same_are_refused(a_run: Run) -> None:
    row = {"prompt": "a", "chosen": "one two three four", "rejected": "one two three five"}
    start = encoded(a_run, row)[0].trained.index(1)
    found = outcome(a_run, row, max_length=start + 1, truncation="right")
    assert isinstance(found, Unusable)
    assert found.reason == f"chosen and rejected become the same tokens within data.max_length={start + 1}"
    assert found.advice == "raise data.max_length, or set data.truncation=left or drop"


def test_answers_that_are_the_same_tokens_in_whole_are_to_be_repaired(a_run: Run) -> None:
    """A tokenizer may read two spellings alike; a longer row would not help."""
    tokenizer = a_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    row = {"prompt": "a a a a", "chosen": "One", "rejected": "one"}
    length = len(outcome_ids(a_run, {**row, "rejected": "two"}, tokenizer))
    for limits in ({}, {"max_length": length - 1, "truncation": "left"}):
        found = outcome(a_run, row, tokenizer, **limits)
        assert isinstance(found, Unusable)
        assert (found.reason, found.advice[:9]) == ("chosen and rejected become the same tokens", "repair it")


def outcome_ids(run: Run, row: dict[str, Any], tokenizer: Any) -> list[int]:
    return encoded(run, row, tokenizer)[0].ids


@pytest.mark.parametrize("truncation", ["error", "drop", "left", "right"])
def test_whatever_the_lengths_both_rows_begin_alike_and_have_an_answer(a_run: Run, truncation: str) -> None:
    rows, tokenizer = [*ROWS, LONG, *MESSAGES], a_tokenizer()
    for limit in range(2, 90, 3):
        for prompt in (None, 1, 5, 60):
            run = with_data(a_run, max_length=limit, max_prompt_length=prompt, truncation=truncation)
            for found in PairEncoder(run).encode(tokenizer, choose(ROWS[0]), rows):
                if not isinstance(found, EncodedGroup):
                    assert isinstance(found, TooLong if truncation in ("error", "drop") else Unusable)
                    continue
                starts = [item.trained.index(1) for item in found.rows]
                assert starts[0] == starts[1] > 0
                assert found.rows[0].ids[: starts[0]] == found.rows[1].ids[: starts[1]]
                assert max(len(item.ids) for item in found.rows) <= limit
                assert prompt is None or starts[0] <= prompt


# --- values, settings and tables ------------------------------------------------------------------------------------


def test_the_value_of_a_pair_is_its_margin(a_run: Run) -> None:
    row = {**ROWS[0], "margin": 1.5}
    (found,) = PairEncoder(a_run).encode(a_tokenizer(), choose(row), [row])
    assert isinstance(found, EncodedGroup)
    assert found.value == 1.5
    (without,) = PairEncoder(a_run, margins=False).encode(a_tokenizer(), choose(row), [{**row, "margin": None}])
    assert without == replace(found, value=None)
    assert "give every row a margin" in str(
        next(PairEncoder(a_run).encode(a_tokenizer(), choose(row), [{**row, "margin": None}]))
    )


def test_a_row_of_a_pair_is_used_whole_or_not_at_all(a_run: Run) -> None:
    encoder = UnpairedEncoder(with_data(a_run, max_length=80, truncation="drop"))
    found = list(encoder.encode(a_tokenizer(), choose(LONG), [LONG, {**LONG, "rejected": "no"}]))
    assert isinstance(found[0], TooLong)
    assert isinstance(found[1], list)
    assert [group.value for group in found[1]] == [1.0, 0.0]


@pytest.mark.parametrize(
    "change",
    [{"max_length": 99}, {"max_prompt_length": 9}, {"truncation": "left"}, {"chat_format": "raw"}],
    ids=str,
)
@pytest.mark.parametrize("encoder", [PairEncoder, UnpairedEncoder])
def test_settings_that_change_the_rows_change_the_key_of_the_cache(a_run: Run, encoder: Any, change: Any) -> None:
    before, after = encoder(a_run).settings(), encoder(with_data(a_run, **change)).settings()
    assert before != after
    assert json.loads(json.dumps(after)) == after
    assert PairEncoder(a_run).settings() != PairEncoder(a_run, margins=False).settings()
    assert PairEncoder(a_run).settings() != UnpairedEncoder(a_run).settings()


def test_a_table_gives_the_pairs_back(a_run: Run, tmp_path: Path) -> None:
    rows = [{**row, "margin": number / 2} for number, row in enumerate(ROWS)]
    encoder = PairEncoder(a_run)
    groups = [
        group for group in encoder.encode(a_tokenizer(), choose(rows[0]), rows) if isinstance(group, EncodedGroup)
    ]
    write_table(tmp_path / "table", groups, {}, group=encoder.group, weighted=encoder.weighted)
    view = encoder.view(TokenTable(tmp_path / "table"))
    assert len(view) == len(rows)
    for number, group in enumerate(groups):
        assert [row.ids.tolist() for row in view[number].rows] == [row.ids for row in group.rows]
        assert [row.trained.tolist() for row in view[number].rows] == [row.trained for row in group.rows]
        assert view[number].value == number / 2


def test_a_tokenizer_without_a_template_needs_a_format(a_run: Run) -> None:
    with pytest.raises(DataError, match=r"data\.chat_format: the tokenizer has no chat template"):
        outcome(a_run, ROWS[0], a_tokenizer(None))
    assert "raw has no place for more" in reason(a_run, MESSAGES[0], chat_format="raw")
