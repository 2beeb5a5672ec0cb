"""What evaluations report: measures as plain numbers, and details for the report as JSON. Nothing here loads torch.

from aitrain.evaluation import details_of_classes, judge_classes
judge_classes(probabilities, truth, ["negative", "positive"])["f1"]

`judge_…` gives `dict[str, float]` of finite numbers, with a measure left out where the rows do not define it;
`details_of_…` gives what `json.dumps(…, allow_nan=False)` writes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aitrain.evaluation.answers import judge_answers, judge_optional_answers
    from aitrain.evaluation.bootstrap import interval
    from aitrain.evaluation.calibration import calibration_bins, calibration_error
    from aitrain.evaluation.classification import details_of_classes, details_of_labels, judge_classes, judge_labels
    from aitrain.evaluation.regression import details_of_numbers, judge_numbers
    from aitrain.evaluation.spans import details_of_tags, faults, find_scheme, judge_tags, repair
    from aitrain.evaluation.text import details_of_texts, judge_texts

__all__ = [
    "calibration_bins",
    "calibration_error",
    "details_of_classes",
    "details_of_labels",
    "details_of_numbers",
    "details_of_tags",
    "details_of_texts",
    "faults",
    "find_scheme",
    "interval",
    "judge_answers",
    "judge_classes",
    "judge_labels",
    "judge_numbers",
    "judge_optional_answers",
    "judge_tags",
    "judge_texts",
    "repair",
]

_HOMES = {
    "calibration_bins": "calibration",
    "calibration_error": "calibration",
    "details_of_classes": "classification",
    "details_of_labels": "classification",
    "details_of_numbers": "regression",
    "details_of_tags": "spans",
    "details_of_texts": "text",
    "faults": "spans",
    "find_scheme": "spans",
    "interval": "bootstrap",
    "judge_answers": "answers",
    "judge_classes": "classification",
    "judge_labels": "classification",
    "judge_numbers": "regression",
    "judge_optional_answers": "answers",
    "judge_tags": "spans",
    "judge_texts": "text",
    "repair": "spans",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: who repairs tags has no use for scikit-learn."""
    if name in _HOMES:
        return getattr(import_module(f"aitrain.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'aitrain.evaluation' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
