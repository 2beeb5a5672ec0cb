"""`tracking=mlflow`: MLflow (https://mlflow.org), as files in the run directory or at a tracking server."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, parse_qsl, urlsplit

from aitrain.config.run import leaves
from aitrain.config.section import OptionSection, key
from aitrain.errors import MachineError, Problem
from aitrain.trackers.identity import keep_id, known_id
from aitrain.trackers.metrics import metrics

if TYPE_CHECKING:
    from aitrain.config.run import Run

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SECRET = re.compile(r"token|secret|key|pass|pwd|user|auth|credential|sig", re.IGNORECASE)
"""In the name of a parameter that lets someone in."""
ENDED = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LONGEST_PARAMETER = 6000
"""MLflow refuses a parameter with more characters (`MAX_PARAM_VAL_LENGTH`)."""
MOST_PARAMETERS = 100
"""MLflow takes no more in one request."""


class MLflow(OptionSection):
    """MLflow tracking."""

    name: Literal["mlflow"]
    """The tracker; choose it with `tracking=mlflow`."""
    experiment: str = key(min_length=1)
    """Experiment the run is listed in."""
    tracking_uri: str | None
    """A folder, `http(s)://SERVER`, `databricks` or a database. null: the folder `mlruns` in the run directory."""

    def problems(self, run: Run) -> Iterator[Problem]:
        try:
            uri = urlsplit(self.tracking_uri or "")
        except ValueError as error:
            yield Problem("tracking.tracking_uri", f"is no address: {error}")
            return
        remote = uri.scheme in ("http", "https") or self.tracking_uri == "databricks" or uri.scheme == "databricks"
        if remote and not run.run.allow_downloads:
            yield Problem(
                "tracking.tracking_uri",
                "a server needs the network, and run.allow_downloads is false",
                "use tracking.tracking_uri=null",
                fix="tracking.tracking_uri=null",
            )
        if "@" in uri.netloc or any(SECRET.search(name) for name in _names(uri)):
            is_database = uri.scheme.partition("+")[0] in DATABASES
            yield Problem(
                "tracking.tracking_uri",
                "holds a login or a token, and the config is written to files",
                "leave it to the database's own variables, such as PGUSER and PGPASSWORD"
                if is_database
                else "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            )
        if uri.scheme.partition("+")[0] in DATABASES and util.find_spec("sqlalchemy") is None:
            yield Problem(
                "tracking.tracking_uri",
                f"{uri.scheme} needs the whole of MLflow, not mlflow-skinny",
                "pip install mlflow",
            )


def _names(uri: SplitResult) -> Iterator[str]:
    """Names of the parameters behind the path."""
    for part in (uri.query, uri.fragment):
        yield from (name for name, _ in parse_qsl(part, keep_blank_values=True))


class MLflowRun:
    """One run at MLflow."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def log(self, event: dict[str, Any]) -> None:
        """Store the numbers of an event."""
        from mlflow.entities import Metric

        milliseconds = int(time.time() * 1000)
        values = [Metric(name, value, milliseconds, event["step"]) for name, value in metrics(event).items()]
        if values:
            self.client.log_batch(self.run_id, metrics=values)

    def finish(self, status: str) -> None:
        """Say how the run ended; `stopped` is MLflow's KILLED."""
        self.client.set_terminated(self.run_id, ENDED[status])


def start(run: Run, folder: Path) -> MLflowRun:
    """Begin the run, or go on with it. Raises MachineError when MLflow refuses."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    section: MLflow = run.tracking  # type: ignore[assignment]
    uri = section.tracking_uri or (folder / "mlruns").resolve().as_uri()
    if urlsplit(uri).scheme in ("", "file"):
        # MLflow only maintains its file store and asks for this consent; mlflow-skinny has no other store offline.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri)
        return MLflowRun(client, _continued(client, folder) or _begun(client, run, section, folder))
    except MlflowException as error:
        raise MachineError(Problem("tracking", f"mlflow does not start: {str(error).splitlines()[0]}")) from error


def _continued(client: Any, folder: Path) -> str | None:
    """The id of the run that an earlier start began, set running again; None if this store does not have it."""
    from mlflow.exceptions import MlflowException

    run_id = known_id(folder, "mlflow")
    if run_id is None:
        return None
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run_id


def _begun(client: Any, run: Run, section: MLflow, folder: Path) -> str:
    from mlflow.entities import Param

    experiment = client.get_experiment_by_name(section.experiment)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(section.experiment)
    begun = client.create_run(experiment_id, run_name=f"{run.run.name}-{folder.name}")
    run_id = str(begun.info.run_id)
    parameters = [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in leaves(run.tree())]
    for first in range(0, len(parameters), MOST_PARAMETERS):
        client.log_batch(run_id, params=parameters[first : first + MOST_PARAMETERS])
    keep_id(folder, "mlflow", run_id)
    return run_id
