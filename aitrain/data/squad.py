"""The nested JSON of SQuAD, `data[].paragraphs[].{context, qas[]}`, unfolded into a row for each question.

Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250; 2018, https://arxiv.org/abs/1806.03822 (`is_impossible`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ARTICLES = "data"


def is_nested(values: Mapping[str, Any]) -> bool:
    """Whether a JSON file is in this form: an object whose `data` is a list of articles with paragraphs."""
    articles = values.get(ARTICLES)
    return isinstance(articles, list) and any(isinstance(each, dict) and "paragraphs" in each for each in articles)


def unfold(values: Mapping[str, Any]) -> Iterator[dict[str, Any] | str]:
    """A row for each question: `id`, `title`, `context`, `question`, `answers` and `is_impossible`; or, where a part
    has another form, what is wrong with it."""
    for number, article in enumerate(values[ARTICLES]):
        where = f"{ARTICLES}[{number}]"
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            yield f"{where} has no list of paragraphs"
            continue
        for place, paragraph in enumerate(paragraphs):
            yield from _questions(article.get("title"), paragraph, f"{where}.paragraphs[{place}]")


def _questions(title: Any, paragraph: Any, where: str) -> Iterator[dict[str, Any] | str]:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    if not isinstance(questions, list):
        yield f"{where} has no list of questions (qas)"
        return
    if "context" not in paragraph:
        yield f"{where} has no context"
        return
    for number, asked in enumerate(questions):
        if not isinstance(asked, dict):
            yield f"{where}.qas[{number}] is no object"
            continue
        yield {
            "id": asked.get("id"),
            "title": title,
            "context": paragraph["context"],
            "question": asked.get("question"),
            "answers": _side_by_side(asked.get("answers")),
            "is_impossible": asked.get("is_impossible", False),
        }


def _side_by_side(answers: Any) -> Any:
    """`{text: [...], answer_start: [...]}` of a list of `{text, answer_start}`; anything else as it is."""
    if isinstance(answers, list) and all(isinstance(each, dict) for each in answers):
        return {name: [each.get(name) for each in answers] for name in ("text", "answer_start")}
    return answers
