"""Probabilities for classifiers that only know on which side of a border a row lies."""

from __future__ import annotations

from typing import Any

from aitrain.config.estimator import Goal
from aitrain.errors import DataError, Problem

PARTS = 5


def calibrated(classifier: Any, goal: Goal) -> Any:
    """The classifier with Platt's sigmoid (1999), learnt from rows its
    copies did not see; the classifier itself is fitted on all rows. Raises DataError where a class has one row."""
    from sklearn.calibration import CalibratedClassifierCV

    if goal.smallest_class < 2:
        raise DataError(
            Problem(
                "trainer.probabilities",
                "a part that is fitted on has one row of the rarest class, and probabilities need rows aside",
                "set trainer.probabilities=false, or give that class more rows",
            )
        )
    return CalibratedClassifierCV(classifier, cv=min(PARTS, goal.smallest_class), ensemble=False)
