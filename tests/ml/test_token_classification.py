"""`task=token_classification`: labels and losses against plain transformers, any division of the work, and its use."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import distance, events, losses, report, run, run_stopped_at, weights
from seqeval.metrics import f1_score, precision_score, recall_score
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertConfig, BertModel

from aitrain.cli import main
from aitrain.commands.predict import predict_file
from aitrain.data.columns import ColumnChoice
from aitrain.data.encoding import TooLong, Unusable
from aitrain.data.tag_encoding import TagEncoder, blanks_before
from aitrain.data.targets import Tags
from aitrain.data.tokens import NO_LABEL, EncodedGroup
from aitrain.errors import ConfigError, Refused
from aitrain.evaluation.bootstrap import interval
from aitrain.evaluation.spans import judge_tags
from aitrain.ml.sample_models import sample_model
from aitrain.rundir.events import read_events

PEOPLE, PLACES = ("Ann", "Bob", "Zoë", "McIntosh"), ("Rome", "Oslo", "Aix", "Ulaanbaatar")
OTHER = ("saw", "went", "to", "in", "and", "the", "rain", "2012", ",", "co-op", "don't", ".")
ODD = ("def", "NewWord", "x y", "ü😀", "\u200b", "12", "__init__", "don't", "a" * 40, "…", "Ａ", "\u0301")
CHOICE = ColumnChoice("word_tags", {"tokens": "tokens", "tags": "tags"}, "")
NAMES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
WNUT = Path(__file__).resolve().parents[3] / "shared/data/token_classification/wnut17"


def sentence(rng: random.Random) -> dict[str, Any]:
    tokens, tags = [], []
    for _ in range(rng.randint(1, 9)):
        kind, names = rng.choice([("O", OTHER), ("O", OTHER), ("PER", PEOPLE), ("LOC", PLACES)])
        words = rng.choices(names, k=1 if kind == "O" else rng.randint(1, 2))
        tokens += words
        tags += ["O" if kind == "O" else f"{'I' if place else 'B'}-{kind}" for place in range(len(words))]
    return {"tokens": tokens, "tags": tags}


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences in which a word alone tells the type of its span."""
    rng = random.Random(seed)
    return [sentence(rng) for _ in range(count)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def small(folder: Path, data: Path, **changes: Any) -> Any:
    common = {"task": "token_classification", "model__path": "sample:tiny-encoder", "data__path": data,
              "data__max_samples": None, "generate__count": None, "train__max_steps": 3}  # fmt: skip
    return run(folder, **{**common, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "train.jsonl", rows_of(37, 0))
    write_rows(folder / "valid.jsonl", rows_of(23, 1))
    return folder


SPLIT = {"data__valid_split": "valid", "train__learning_rate": 2e-3}


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model knows a little."""
    folder = tmp_path_factory.mktemp("trained") / "r"
    small(folder, data, train__max_steps=14, **SPLIT)
    return folder


# --- pieces and labels ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with a tokenizer of word pieces, which knows few words and drops marks."""
    from transformers import BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), "don", "rome"]
    BertTokenizer({word: number for number, word in enumerate(vocabulary)}, do_lower_case=True).save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(vocabulary), intermediate_size=32, max_position_embeddings=128, **sizes)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def encoder_of(run_of: Callable[..., Any], *words: str) -> TagEncoder:
    found = TagEncoder(run_of("task=token_classification", *words), lambda tags: ())
    return found.with_targets(Tags(NAMES, (9, 1, 1, 1, 1), "BIO", 3))


def encoded(encoder: TagEncoder, tokenizer: Any, tokens: list[str], tags: list[str]) -> Any:
    (outcome,) = encoder.encode(tokenizer, CHOICE, [{"tokens": tokens, "tags": tags}])
    return outcome


@pytest.mark.parametrize("which", ["sample", "wordpiece", "prefixed"])
@pytest.mark.parametrize("pieces", ["first", "all"])
def test_pieces_and_labels_are_those_of_plain_transformers(
    run_of: Callable[..., Any], wordpiece: Path, tmp_path: Path, which: str, pieces: str
) -> None:
    sample = sample_model("tiny-encoder")
    plain = tokenizer = AutoTokenizer.from_pretrained(wordpiece if which == "wordpiece" else sample)
    if which != "wordpiece":  # what add_prefix_space=True makes of byte-level BPE
        assert blanks_before(tokenizer)
        state = json.loads((sample / "tokenizer.json").read_text())
        state["pre_tokenizer"]["pretokenizers"][-1]["add_prefix_space"] = True
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
        (tmp_path / "tokenizer_config.json").write_text((sample / "tokenizer_config.json").read_text())
    if which == "prefixed":
        plain = tokenizer = AutoTokenizer.from_pretrained(tmp_path)
        assert not blanks_before(tokenizer)
    tokens = list(ODD)
    tags = ["O", "B-PER", "I-PER", "B-LOC", *["O"] * 3, "B-PER", "B-LOC", "I-LOC", "O", "O"]
    given = [f" {word}" for word in tokens] if which == "sample" else tokens
    reference = plain(given, is_split_into_words=True)
    labels, before = [], None
    for word in reference.word_ids():
        tag = None if word is None else tags[word]
        if word is not None and word == before:
            tag = None if pieces == "first" or tag is None else tag.replace("B-", "I-")
        labels.append(NO_LABEL if tag is None else NAMES.index(tag))
        before = word
    outcome = encoded(encoder_of(run_of, f"task.label_pieces={pieces}"), tokenizer, tokens, tags)
    assert isinstance(outcome, EncodedGroup)
    (row,) = outcome.rows
    assert row.ids == reference["input_ids"]
    assert row.labels == labels
    assert row.trained == [int(label != NO_LABEL) for label in labels]
    assert max(reference.word_ids()[1:-1].count(number) for number in range(len(tokens))) > 8
    assert outcome.value == (len(tokens), len(tokens) - len(set(reference.word_ids()) - {None}), 0)
    first = json.loads(row.record or "")["first"]
    ids = reference.word_ids()
    assert first == [ids.index(number) if number in ids else -1 for number in range(len(tokens))]
    assert (-1 in first) == (which == "wordpiece")


def test_a_roberta_tokenizer_reads_words_as_inside_a_text(run_of: Callable[..., Any], tmp_path: Path) -> None:
    from transformers import RobertaTokenizer

    letters = [*"abc", "Ġ", "Ġa", "Ġb", "<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    vocab = {piece: number for number, piece in enumerate(letters)}
    RobertaTokenizer(vocab, [("Ġ", "a"), ("Ġ", "b")]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    (pieces,) = encoder_of(run_of).pieces(tokenizer, [["ab", "b"]])
    assert not isinstance(pieces, TooLong)
    assert tokenizer.convert_ids_to_tokens(pieces.ids) == ["<s>", "Ġa", "b", "Ġb", "</s>"]
    assert pieces.words == [None, 0, 0, 1, None]


def test_rows_longer_than_they_may_be(run_of: Callable[..., Any], wordpiece: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    tokens, tags = ["abcd", "ef", "ghi"], ["B-PER", "O", "B-LOC"]  # pieces: 4 + 2 + 3, and two around them

    def cut(*words: str) -> Any:
        return encoded(encoder_of(run_of, *words), tokenizer, tokens, tags)

    def shown(outcome: Any) -> tuple[int, list[int], list[int], Any]:
        (row,) = outcome.rows
        assert row.truncated
        return len(row.ids), row.labels, json.loads(row.record)["first"], outcome.value[1]

    none = NO_LABEL
    assert shown(cut("data.max_length=8")) == (8, [none, 3, none, none, none, 0, none, none], [1, 5, -1], 1)
    # of a word whose beginning is cut off nothing is learnt, and it counts as not read
    left = cut("data.max_length=8", "data.truncation=left")
    assert shown(left) == (8, [none, none, 0, none, 1, none, none, none], [-1, 2, 4], 1)
    assert cut("data.max_length=8", "data.truncation=drop") == TooLong(11)
    assert isinstance(cut("data.max_length=2"), Unusable)


def test_a_slow_tokenizer_is_refused(run_of: Callable[..., Any]) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError, match="does not tell which word a token is of"):
        list(encoder_of(run_of).pieces(Slow(), [["a"]]))


# --- losses --------------------------------------------------------------------------------------------------------


def plain_loss(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], pieces: str) -> tuple[float, list[list[str]]]:
    """What plain transformers makes of the rows in float64, each alone: mean loss of labelled pieces, and tags."""
    model = AutoModelForTokenClassification.from_pretrained(folder).double().eval()
    names = model.config.id2label
    total, count, tags = 0.0, 0, []
    for row in rows:
        found = tokenizer([f" {word}" for word in row["tokens"]], is_split_into_words=True, return_tensors="pt")
        ids = found.word_ids()
        with torch.no_grad():
            logits = model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).logits[0]
        for place, word in enumerate(ids):
            is_further = place > 0 and ids[place - 1] == word
            if word is None or (is_further and pieces == "first"):
                continue
            tag = row["tags"][word].replace("B-", "I-") if is_further else row["tags"][word]
            total += float(cross_entropy(logits[place], torch.tensor(model.config.label2id[tag])))
            count += 1
        tags.append([names[int(logits[ids.index(word)].argmax())] for word in range(len(row["tokens"]))])
    return total / count, tags


@pytest.mark.parametrize("pieces", ["first", "all"])
def test_evaluation_is_that_of_plain_transformers_and_seqeval(data: Path, tmp_path: Path, pieces: str) -> None:
    small(tmp_path / "r", data, train__max_steps=14, **SPLIT, **{"task.label_pieces": pieces})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "r/model")
    valid = rows_of(23, 1)
    loss, tags = plain_loss(tmp_path / "r/model", tokenizer, valid, pieces)
    after = report(tmp_path / "r")["metrics"]["after"]
    assert after["loss"] == pytest.approx(loss, abs=1e-5)
    truth = [row["tags"] for row in valid]
    assert after["f1"] == pytest.approx(f1_score(truth, tags), abs=1e-12)
    assert after["precision"] == pytest.approx(precision_score(truth, tags), abs=1e-12)
    assert after["recall"] == pytest.approx(recall_score(truth, tags), abs=1e-12)
    assert 0 < after["f1"] < 1, "figures of a model that knows nothing, or all, would agree by chance"


def test_a_step_is_that_of_float64(data: Path, tmp_path: Path) -> None:
    """One step of plain gradient descent on all rows: the mean over all labelled pieces, whatever the rows' lengths."""
    step = {"train__max_steps": 1, "train__optimizer": "sgd", "train__learning_rate": 0.5, "train__max_grad_norm": 1000,
            "train__warmup_ratio": 0, "train__save_steps": "never", "train__eval_steps": "never"}  # fmt: skip
    changes = {**step, "data__valid_fraction": 0}
    rows = rows_of(37, 0)
    small(tmp_path / "r", data / "train.jsonl", train__batch_size=5, train__gradient_accumulation=8, **changes)
    small(tmp_path / "start", data / "train.jsonl", train__batch_size=37, **{**changes, "train__learning_rate": 1e-12})
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "start/model").double().eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "start/model")
    total, count = torch.zeros((), dtype=torch.float64), 0
    for row in rows:
        found = tokenizer([f" {word}" for word in row["tokens"]], is_split_into_words=True, return_tensors="pt")
        ids = found.word_ids()
        first = [ids.index(word) for word in range(len(row["tokens"]))]
        logits = model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).logits[0, first]
        total = total + cross_entropy(
            logits, torch.tensor([model.config.label2id[tag] for tag in row["tags"]]), reduction="sum"
        )
        count += len(first)
    (total / count).backward()
    assert losses(tmp_path / "r") == [pytest.approx(float(total.detach()) / count, abs=1e-5)]
    ours = weights(tmp_path / "r/model")
    moved = 0.0
    for name, parameter in model.named_parameters():
        wanted = (parameter - 0.5 * (parameter.grad if parameter.grad is not None else 0)).detach()
        assert float((ours[name].double() - wanted).abs().max()) < 2e-6, name
        moved = max(moved, float((wanted - parameter.detach()).abs().max()))
    assert moved > 1e-3


def test_any_division_of_a_step_trains_alike(data: Path, tmp_path: Path) -> None:
    # 37 rows in steps of 8: the last one of an epoch is uneven
    changes = {"train__max_steps": 10, **SPLIT}
    small(tmp_path / "eight", data, train__batch_size=8, **changes)
    small(tmp_path / "parts", data, train__batch_size=2, train__gradient_accumulation=4, **changes)
    small(tmp_path / "two", data, train__batch_size=2, train__gradient_accumulation=2, hardware="cpu_x2", **changes)
    wanted = losses(tmp_path / "eight")
    assert len(wanted) == 10
    after = report(tmp_path / "eight")["metrics"]["after"]
    for other in ("parts", "two"):
        assert losses(tmp_path / other) == pytest.approx(wanted, abs=1e-5)
        assert report(tmp_path / other)["metrics"]["after"] == pytest.approx(after, abs=1e-5)


def test_a_stopped_run_continues_bit_equal(data: Path, tmp_path: Path) -> None:
    common = {"task": "token_classification", "model__path": "sample:tiny-encoder", "data__path": data,
              "data__max_samples": None, "generate__count": None, "train__max_steps": 8, **SPLIT}  # fmt: skip
    run(tmp_path / "whole", **common)
    run_stopped_at(5, tmp_path / "r", **common)
    run(tmp_path / "r", run__resume="auto", **common)
    assert events(tmp_path / "r") == events(tmp_path / "whole")
    assert distance(weights(tmp_path / "r/model"), weights(tmp_path / "whole/model")) == 0.0


# --- what is told --------------------------------------------------------------------------------------------------


def test_baselines_by_hand(tmp_path: Path) -> None:
    train = [{"tokens": ["Ann", "saw", "Rome"], "tags": ["B-PER", "O", "B-LOC"]},
             {"tokens": ["Rome", "Rome"], "tags": ["B-LOC", "B-PER"]}, {"tokens": ["it"], "tags": ["O"]},
             {"tokens": ["it"], "tags": ["O"]}]  # fmt: skip
    write_rows(tmp_path / "train.jsonl", train)
    valid = [{"tokens": ["Rome", "saw", "Bob", "Ann"], "tags": ["B-LOC", "O", "B-PER", "O"]}]
    write_rows(tmp_path / "valid.jsonl", valid)
    small(tmp_path / "r", tmp_path, data__valid_split="valid", train__max_steps=1)
    found = report(tmp_path / "r")["metrics"]["baselines"]
    # usual: B-LOC O O B-PER, of which one span of two is right and one of two is found
    assert found["usual"] == pytest.approx({"accuracy": 2 / 4, "precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2,
                                            "f1_macro": (1 + 0) / 2})  # fmt: skip
    assert found["majority"] == {"accuracy": 2 / 4, "precision": 0, "recall": 0, "f1": 0, "f1_macro": 0}


def test_words_cut_off_are_judged_as_outside_and_told(data: Path, tmp_path: Path, trained: Path) -> None:
    small(tmp_path / "r", data, train__max_steps=2, data__max_length=9, **SPLIT)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "r/model")
    unread = total = 0
    for row in (valid := rows_of(23, 1)):
        ids = tokenizer([f" {w}" for w in row["tokens"]], is_split_into_words=True, truncation=True, max_length=9)
        unread += len(row["tokens"]) - len(set(ids.word_ids()) - {None})
        total += len(row["tokens"])
    assert unread > 20
    told = [event.get("text", "") for event in read_events(tmp_path / "r")]
    plan = (tmp_path / "r/log.txt").read_text() + (tmp_path / "r/report.json").read_text() + "".join(told)
    what = f"{unread:,} of the {total:,} words to validate on have no token"
    assert what in plan
    assert "judged as 'O'" in plan
    assert report(tmp_path / "r")["details"]["unread_words"] == unread
    # every word of every row is judged
    confusion = report(tmp_path / "r")["details"]["confusion"]
    assert sum(map(sum, confusion)) == total == sum(len(row["tags"]) for row in valid)


def test_repaired_tags_are_counted(tmp_path: Path) -> None:
    rows = [{"tokens": ["in", "Rome"], "tags": ["O", "I-LOC"]}, *rows_of(20, 2)]
    data = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(Refused, match=r"tag 2 is 'I-LOC' after 'O' and at the end, where BIO writes 'B-LOC'"):
        small(tmp_path / "refused", data)
    assert not (tmp_path / "refused/model").exists()
    small(tmp_path / "r", data, data__valid_fraction=0, train__eval_steps="never", **{"task.repair_tags": "true"})
    total = sum(len(row["tags"]) for row in rows)
    assert f"task.repair_tags changed 1 of the {total} tags to train on" in (tmp_path / "r/log.txt").read_text()
    skipping = {"data__on_bad_rows": "skip", "data__max_bad_rows": 0.5, "data__valid_fraction": 0.2}
    small(tmp_path / "skipped", data, **skipping)
    facts = report(tmp_path / "skipped")["data"]
    assert facts["bad_rows"] == 1, facts


def test_the_report_shows_sentences_with_their_tags(trained: Path) -> None:
    details = report(trained)["details"]
    assert details["kind"] == "tags"
    assert {entry["entity"] for entry in details["per_entity"]} == {"LOC", "PER"}
    valid = rows_of(23, 1)
    for entry in details["wrong"]:
        assert (entry["tokens"], entry["truth"]) == (valid[entry["row"]]["tokens"], valid[entry["row"]]["tags"])
        assert entry["prediction"] != entry["truth"]
    page = (trained / "report.html").read_text()
    assert "Scores of each entity" in page
    assert 'class="sentence"' in page
    assert "usual baseline" in page


# --- use -----------------------------------------------------------------------------------------------------------


def test_predictions_are_those_that_were_judged(trained: Path, data: Path, tmp_path: Path) -> None:
    assert main(["predict", str(trained), str(data / "valid.jsonl"), f"output={tmp_path / 'out.jsonl'}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    truth, predicted = [line["tags"] for line in lines], [line["prediction"] for line in lines]
    after = report(trained)["metrics"]["after"]
    assert judge_tags(predicted, truth, "BIO") == {name: after[name] for name in after if name != "loss"}
    assert after["f1"] == pytest.approx(f1_score(truth, predicted), abs=1e-12)
    for line in lines:
        told = {(e["start_word"], e["end_word"], e["label"], e["text"]) for e in line["entities"]}
        starts = [place for place, tag in enumerate(line["prediction"]) if tag.startswith("B-")]
        assert {start for start, *_ in told} >= set(starts)
        for start, end, label, text in told:
            assert text == " ".join(line["tokens"][start:end])
            assert {tag[2:] for tag in line["prediction"][start:end]} == {label}
    assert any(line["entities"] for line in lines)
    assert main(["evaluate", str(trained), str(data / "valid.jsonl")]) == 0
    judged = json.loads((trained / "evaluations/valid.json").read_text())
    assert judged["measures"] == {name: after[name] for name in after if name != "loss"}
    assert judged["details"] == report(trained)["details"]


def test_predictions_for_texts_and_words_that_are_not_read(trained: Path, tmp_path: Path) -> None:
    text = "Ann saw (Rome)."
    rows = tmp_path / "texts.csv"
    rows.write_text(f'text\n{text}\n""\n')
    with pytest.raises(Refused, match="row cannot be used: column 'text' holds no word"):
        predict_file([str(trained), str(rows)])
    words = [str(trained), str(rows), f"output={tmp_path / 'o.jsonl'}", "data.on_bad_rows=skip", "data.max_length=6"]
    assert main(["predict", *words]) == 0
    line, bad = map(json.loads, (tmp_path / "o.jsonl").read_text().splitlines())
    assert line["words"] == ["Ann", "saw", "(", "Rome", ")", "."]
    assert line["prediction"][0] is not None
    assert line["prediction"][-1] is None
    for entity in line["entities"]:
        assert entity["text"] == text[entity["start"] : entity["end"]]
    assert "no word" in bad["not_predicted"]


def test_a_class_feature_names_the_numbers(tmp_path: Path) -> None:
    import datasets

    rows = rows_of(30, 3)
    feature = datasets.Sequence(datasets.ClassLabel(names=list(NAMES)))
    features = datasets.Features({"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": feature})
    numbered = [{"tokens": row["tokens"], "ner_tags": [NAMES.index(tag) for tag in row["tags"]]} for row in rows]
    datasets.Dataset.from_list(numbered, features=features).to_parquet(tmp_path / "train.parquet")
    small(tmp_path / "r", tmp_path / "train.parquet")
    targets = json.loads((tmp_path / "r/model/targets.json").read_text())
    assert (tuple(targets["names"]), targets["scheme"]) == (NAMES, "BIO")
    config = json.loads((tmp_path / "r/model/config.json").read_text())
    assert tuple(config["id2label"].values()) == NAMES
    assert main(["evaluate", str(tmp_path / "r"), str(tmp_path / "train.parquet")]) == 0


def test_an_adapter_trains_and_predicts(data: Path, tmp_path: Path) -> None:
    small(tmp_path / "r", data, train__max_steps=8, peft="lora", **SPLIT)
    adapter = json.loads((tmp_path / "r/model/adapter_config.json").read_text())
    assert adapter["task_type"] == "TOKEN_CLS"
    after = report(tmp_path / "r")["metrics"]["after"]
    assert after["loss"] < report(tmp_path / "r")["metrics"]["before"]["loss"]
    assert main(["evaluate", str(tmp_path / "r"), str(data / "valid.jsonl")]) == 0
    judged = json.loads((tmp_path / "r/evaluations/valid.json").read_text())
    assert judged["measures"] == {name: after[name] for name in after if name != "loss"}


def test_a_head_for_the_same_tags_is_kept_in_its_order(data: Path, tmp_path: Path) -> None:
    order = ["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]
    small(tmp_path / "first", data, train__max_steps=6, **SPLIT, **{"task.tags": f"[{','.join(order)}]"})
    small(tmp_path / "r", data, train__max_steps=1, model__path=tmp_path / "first/model", **SPLIT)
    assert json.loads((tmp_path / "r/model/targets.json").read_text())["names"] == order
    before, after = report(tmp_path / "r")["metrics"]["before"], report(tmp_path / "first")["metrics"]["after"]
    assert before == pytest.approx(after, abs=1e-6)


def test_a_decoder_reads_conll_files(tmp_path: Path) -> None:
    lines = ["-DOCSTART- O\n"]
    for row in rows_of(40, 4):
        lines += [f"{token} _ {tag}\n" for token, tag in zip(row["tokens"], row["tags"], strict=True)] + ["\n"]
    (tmp_path / "train.conll").write_text("".join(lines))
    small(tmp_path / "r", tmp_path / "train.conll", model__path="sample:tiny-llama")
    assert report(tmp_path / "r")["metrics"]["after"]["loss"] > 0
    plan = json.loads((tmp_path / "r/plan.json").read_text())
    assert plan["train_rows"] + plan["valid_rows"] == 40
    assert main(["preview", "task=token_classification", f"data.path={tmp_path / 'train.conll'}"]) == 0


def test_plain_tags(tmp_path: Path) -> None:
    rows = [{"tokens": row["tokens"], "tags": [tag[-3:] for tag in row["tags"]]} for row in rows_of(40, 5)]
    small(tmp_path / "r", write_rows(tmp_path / "train.jsonl", rows))
    after = report(tmp_path / "r")["metrics"]["after"]
    assert set(after) == {"loss", "accuracy", "f1_macro", "f1_micro"}
    assert "Scores of each tag" in (tmp_path / "r/report.html").read_text()
    assert main(["predict", str(tmp_path / "r"), str(tmp_path / "train.jsonl")]) == 0
    line = json.loads((tmp_path / "r/predictions/train.jsonl").read_text().splitlines()[0])
    assert set(line) == {"tokens", "tags", "prediction"}


# --- real rows -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not WNUT.is_dir(), reason="needs the rows of WNUT 2017")
def test_real_rows_are_read_whole(run_of: Callable[..., Any]) -> None:
    from aitrain.look import look_at_data

    found = look_at_data(run_of("task=token_classification", f"data.path={WNUT}", "data.valid_split=dev"))
    tags = found.sources[0].targets
    assert isinstance(tags, Tags)
    assert (len(tags.names), tags.scheme, tags.rows) == (13, "BIO", 1500)
    rows = [json.loads(line) for line in (WNUT / "test.jsonl").read_text().splitlines()]
    truth = [row["ner_tags"] for row in rows]
    low, high = interval(lambda chosen: judge_tags([truth[i] for i in chosen], [truth[i] for i in chosen])["f1"], 500,
                         draws=5)  # fmt: skip
    assert (low, high) == (1, 1)
    assert np.sum([len(row) for row in truth]) > 5_000
