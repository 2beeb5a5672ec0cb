"""Keys of `data` that every task reads which predicts something of a row."""

from __future__ import annotations

READS = (
    "data.path",
    "data.files",
    "data.config",
    "data.*_split",
    "data.valid_fraction",
    "data.max_samples*",
    "data.on_bad_rows",
    "data.max_bad_rows",
    "data.columns.target",
)
TEXTS = ("text", "sentence", "content", "review", "comment", "tweet", "message", "utterance", "query", "question",
         "title", "body", "document", "description", "sentence1", "text1", "question1", "question_1",
         "premise")  # fmt: skip
"""What columns of text are called."""
PAIRS = ("text_pair", "text2", "sentence2", "question2", "question_2", "hypothesis")
"""What columns with a second text are called."""
