"""One control plane, seen from Python.

`heliostat.connect()` makes a `Client` from the settings (see `heliostat.settings` for where they come from); the functions of
the package (`heliostat.submit`, `heliostat.jobs`, ...) use one that is made on first use. A client is safe to share between
threads and holds no state of the server.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from heliostat.client.asking import Command, Gpus, Target, command_of, gpu_fields, memory_bytes, seconds
from heliostat.client.events import follow_events
from heliostat.client.job import Job
from heliostat.client.listing import Listing
from heliostat.client.models import Models, ModelVersion
from heliostat.client.tokens import Tokens
from heliostat.render.cluster import node_table, queue_table
from heliostat.render.jobs import job_table
from heliostat.settings import Settings
from heliostat.version import VERSION
from heliostat.wire.call import Caller, Retry, segment
from heliostat.wire.errors import NotFound
from heliostat.wire.shapes import (
    ClusterJson,
    EndpointJson,
    EventJson,
    JobJson,
    ModelJson,
    NodeJson,
    QueueJson,
    VersionJson,
)
from heliostat.wire.transport import HttpTransport, Transport

if TYPE_CHECKING:
    from heliostat.client.endpoints import Endpoint, Endpoints
    from heliostat.client.forecast import EtaReport, ForecastCalls, WhatIf

if TYPE_CHECKING:
    from heliostat_jobs.spec import Recipe

    from heliostat.client.training import Device, Trainable

PAGE = 200
YAML = {"Content-Type": "application/yaml"}


class QueueFile(NamedTuple):
    """text: YAML. etag: its version."""

    text: str
    etag: str


class Client:
    """Talks to one control plane. `transport` is for tests; by default it is HTTP to `settings.url`."""

    def __init__(self, settings: Settings, transport: Transport | None = None, caller: Caller | None = None) -> None:
        self.settings = settings
        self.caller = caller or Caller(
            transport or HttpTransport(settings.url),
            token=settings.token,
            url=settings.url,
            user_agent=f"heliostat/{VERSION}",
        )

    @property
    def url(self) -> str:
        return self.settings.url

    @property
    def tokens(self) -> Tokens:
        """Make, list and revoke access tokens."""
        return Tokens(self.caller)

    # ---- models

    @property
    def model_calls(self) -> Models:
        """Everything under /models."""
        return Models(self.caller, self.settings.project)

    def models_of(self, project: str) -> Models:
        """As `model_calls`, for another project."""
        return Models(self.caller, project)

    def models(self) -> Listing[ModelJson]:
        """The models of your project, by name."""
        return self.model_calls.ls()

    def model(self, reference: str) -> ModelVersion:
        """A version: `digits@champion`, `digits:3`, or `digits` for the newest."""
        return self.model_calls.find(reference)

    def push(self, name: str, folder: str | Path, **about: Any) -> ModelVersion:  # Any: as Models.push
        """Push a folder with model.json and weights as the next version of a model: aliases, tags, metrics, variant_of."""
        return self.model_calls.push(name, folder, **about)

    # ---- endpoints

    @property
    def endpoint_calls(self) -> Endpoints:
        """Everything under /endpoints and /keys."""
        from heliostat.client.endpoints import Endpoints

        return Endpoints(self.caller, self.settings.project)

    def deploy(self, model: str, endpoint: str, **how: Any) -> Endpoint:  # Any: as Endpoints.deploy
        """Serve a registered version at an endpoint: replicas, gpus, weight, direct, queue, priority. `wait_ready` waits."""
        return self.endpoint_calls.deploy(model, endpoint, **how)

    def endpoint(self, name: str, key: str = "") -> Endpoint:
        """The handle of an endpoint; calls are made with `key`."""
        return self.endpoint_calls.get(name, key)

    def endpoints(self) -> Listing[EndpointJson]:
        """The endpoints of your project, by name."""
        return self.endpoint_calls.ls()

    # ---- jobs

    def submit(
        self,
        target: Target,
        *,
        kind: str = "command",
        name: str | None = None,
        queue: str | None = None,
        priority: str | int | None = None,
        project: str | None = None,
        gpus: Gpus | None = None,
        gpus_per_task: float | None = None,
        cpus: float | None = None,
        memory: int | str | None = None,
        flavor: str | None = None,
        preemptibility: str | None = None,
        nodes: int | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str | Path | None = None,
        runtime_env: Mapping[str, Any] | None = None,  # Any: Ray's own structure
        max_runtime: float | str | timedelta | None = None,
        after: Sequence[Job | str] = (),
        metadata: Mapping[str, str] | None = None,
        hold: bool = False,
        id: str | None = None,
    ) -> Job:
        """Queue a job: a list of words, a line for the shell, or the path of a script (whose folder travels along).

        gpus: `2`, `"2..8"`, `(2, 8)` or `range(2, 9)`. max_runtime: seconds, `"2h"` or a timedelta. memory: bytes or `"16GiB"`.
        """
        given = {key: value for key, value in locals().items() if key not in ("self", "target", "working_dir")}
        command = command_of(target, working_dir)
        return Job(self, self.caller.json("POST", "/jobs", self.request_of(command, given)))

    def train(
        self,
        target: Trainable,
        *,
        workers: Gpus | None = None,
        register: str = "",
        alias: str = "",
        device: Device = "auto",
        options: Mapping[str, object] | None = None,
        args: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        working_dir: str | Path | None = None,
        name: str | None = None,
        queue: str | None = None,
        priority: str | int | None = None,
        project: str | None = None,
        flavor: str | None = None,
        max_runtime: float | str | timedelta | None = None,
        metadata: Mapping[str, str] | None = None,
        after: Sequence[Job | str] = (),
        **more: object,
    ) -> Job:
        """Queue a training: a recipe by name (its options by keyword, as `epochs=5`), a script, or a function that Ray Train runs
        in each worker. register: the model that it leaves behind becomes a version of this name; `job.model()` waits for it."""
        from heliostat.client.training import Training, train

        asked: dict[str, Any] = {"queue": queue, "priority": priority, "project": project, "flavor": flavor}
        asked |= {"max_runtime": max_runtime, "metadata": metadata, "after": after, **({"name": name} if name else {})}
        told = Training(workers, device, register, alias, {**(options or {}), **more}, args, config, working_dir)
        return train(self, target, told, **asked)

    def recipes(self) -> Listing[Recipe]:
        """The training programs that come with Heliostat."""
        from heliostat.client.training import recipes

        return recipes()

    def plan(
        self, target: Target, *, working_dir: str | Path | None = None, **asked: Any
    ) -> dict[str, Any]:  # Any: as submit
        """What `submit` with the same arguments would meet: nothing is stored, nothing is uploaded."""
        command = command_of(target, working_dir)
        body = self.request_of(Command(command.argv, command.line), asked)
        return cast("dict[str, Any]", self.caller.json("POST", "/jobs", body, query={"plan": True}))

    # ---- the future and the past

    @property
    def forecasts(self) -> ForecastCalls:
        """Estimates, timeline, replay and the state of the records."""
        from heliostat.client.forecast import ForecastCalls

        return ForecastCalls(self)

    def whatif(self, **asked: Any) -> WhatIf:  # Any: as ForecastCalls.whatif
        """What would change with other quotas, more nodes, a cancelled job, another policy, or one more job. Nothing is touched.

        quota: `{"research": 6}`. nodes: `"+2xh200:8"`. cancel: job ids. policy: `{"reclaim": False}`. target: as `submit`, with its
        arguments. horizon: seconds, `"24h"` or a timedelta. The answer is a list of rows; `.to_dataframe()` needs pandas.
        """
        return self.forecasts.whatif(**asked)

    def eta_report(self, queue: str | None = None) -> EtaReport:
        """How well past estimates of start held."""
        return self.forecasts.report(queue)

    def explain_queue(self, name: str) -> dict[str, Any]:  # Any: JSON
        """What a queue has, uses and may have, and why its jobs wait."""
        return self.forecasts.explain_queue(name)

    def timeline(self, since: float | str | timedelta = 3600.0) -> dict[str, Any]:  # Any: JSON
        """Who held which slot in the last hour (or since), with the reason of each change."""
        return self.forecasts.timeline(since)

    def job(self, id: str) -> Job:
        """The handle of a job that exists."""
        return Job(self, self.read_job(id))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        queue: str | None = None,
        user: str | None = None,
        limit: int = 50,
    ) -> Listing[Job]:
        """The newest jobs first, at most `limit`."""
        return Listing(
            [Job(self, data) for data in self.list_jobs(state=state, queue=queue, user=user, limit=limit)],
            lambda jobs: job_table([job.data for job in jobs], datetime.now(UTC)),
            "No jobs. Queue one with: heliostat.submit('echo hello')",
        )

    def list_jobs(
        self, *, state: str | Sequence[str] | None, queue: str | None, user: str | None, limit: int
    ) -> Iterator[JobJson]:
        """The API's documents, page by page."""
        states = [state] if isinstance(state, str) else list(state or [])
        query: dict[str, object] = {"state": states, "queue": queue, "user": user}
        cursor = ""
        while limit > 0:
            page = self.caller.json("GET", "/jobs", query={**query, "limit": min(limit, PAGE), "cursor": cursor})
            items = page["items"][:limit]
            yield from items
            limit -= len(items)
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return

    def read_job(self, id: str, retry: Retry = Retry()) -> JobJson:  # noqa: B008 - frozen
        return cast("JobJson", self.caller.json("GET", f"/jobs/{segment(id)}", retry=retry))

    # ---- the cluster and its queues

    def queues(self) -> Listing[QueueJson]:
        """All queues with quota, use and how many run and wait."""
        return Listing(self.caller.json("GET", "/queues")["items"], queue_table, "no queues")

    def queue_document(self) -> dict[str, Any]:  # Any: JSON
        """The queues (`items`) and what their file promises and the cluster cannot keep (`warnings`)."""
        return cast("dict[str, Any]", self.caller.json("GET", "/queues"))

    def queue(self, name: str) -> QueueJson:
        for queue in self.queues():
            if queue.get("name") == name:
                return queue
        raise NotFound(f"There is no queue '{name}'.", remedy="See them with: helio queue ls")

    def queue_file(self) -> QueueFile:
        """The queues.yaml in force."""
        answer = self.caller.send("GET", "/queues/file", headers={"Accept": "application/yaml"})
        return QueueFile(answer.body.decode("utf-8"), answer.headers.get("etag", ""))

    def diff_queues(self, text: str) -> dict[str, Any]:  # Any: the API's document
        """What a queues.yaml would change; an invalid one raises with the lines that are wrong."""
        answer = self.caller.send("POST", "/queues/file/diff", text.encode(), headers=YAML)
        return cast("dict[str, Any]", json.loads(answer.body))

    def apply_queues(self, text: str) -> dict[str, Any]:  # Any: the API's document
        """Put a queues.yaml in force, unless somebody else changed it meanwhile (`Conflict`)."""
        headers = {**YAML, "If-Match": self.queue_file().etag}
        answer = self.caller.send("PUT", "/queues/file", text.encode(), headers=headers)
        return cast("dict[str, Any]", json.loads(answer.body or b"{}"))

    def cluster(self) -> ClusterJson:
        """Nodes with their slots, and the state of Ray, bridge and control plane."""
        return cast("ClusterJson", self.caller.json("GET", "/cluster"))

    def nodes(self) -> Listing[NodeJson]:
        """The nodes and who holds their GPUs."""
        nodes = self.cluster().get("nodes") or []
        return Listing(nodes, lambda items: node_table({"nodes": items}, datetime.now(UTC)), "no nodes")

    def cordon(self, node: str, *, drain: bool = False) -> NodeJson:
        """Start nothing new on a node (the beginning of its id is enough). drain: move what runs there away, too."""
        return cast("NodeJson", self.caller.json("POST", f"/nodes/{segment(node)}/{'drain' if drain else 'cordon'}"))

    def uncordon(self, node: str) -> NodeJson:
        """Use a node again."""
        return cast("NodeJson", self.caller.json("POST", f"/nodes/{segment(node)}/uncordon"))

    def events(
        self, job: Job | str | None = None, *, follow: bool = False, after: int | None = None
    ) -> Iterator[EventJson]:
        """Events, oldest first: the latest ones (all, of one job), or with `follow` as they come.

        after: the `seq` to continue behind; a broken connection continues by itself.
        """
        job_id = job.id if isinstance(job, Job) else job
        if not follow:
            path = "/events" if job_id is None else f"/jobs/{segment(job_id)}/events"
            yield from self.caller.json("GET", path, query={"after": after})["items"]
            return
        yield from follow_events(self.caller, job_id, after)

    # ---- who and what

    def whoami(self) -> dict[str, Any]:  # Any: the API's document
        return cast("dict[str, Any]", self.caller.json("GET", "/whoami"))

    def version(self) -> VersionJson:
        return cast("VersionJson", self.caller.json("GET", "/version"))

    def close(self) -> None:
        self.caller.transport.close()

    # ---- inside

    def upload(self, folder: Path, project: str = "") -> str:
        """Send a folder along; returns its package's URI. A folder that the project already has is not sent again."""
        from heliostat.client.packing import pack

        package = pack(folder)
        path = f"/packages/{segment(package.name)}"
        query = {"project": project}
        if self._has(path, query):
            return package.uri
        with tempfile.TemporaryFile() as file:
            package.write(file)
            file.seek(0)
            self.caller.send("PUT", path, file.read(), query=query, headers={"Content-Type": "application/zip"})
        return package.uri

    def _has(self, path: str, query: Mapping[str, object]) -> bool:
        try:
            self.caller.send("HEAD", path, query=query)
        except NotFound:
            return False
        return True

    def request_of(self, command: Command, asked: Mapping[str, Any]) -> dict[str, object]:  # Any: arguments of submit
        """The body of POST /jobs."""
        body: dict[str, object] = {"kind": "command", **command.fields(), **gpu_fields(asked.get("gpus"))}
        plain = (
            "kind",
            "name",
            "queue",
            "priority",
            "gpus_per_task",
            "cpus",
            "flavor",
            "preemptibility",
            "nodes",
            "id",
        )
        body |= {key: asked[key] for key in plain if asked.get(key) is not None}
        project = asked.get("project") or self.settings.project
        other = {
            "project": project,
            "env": dict(asked.get("env") or {}),
            "runtime_env": dict(asked.get("runtime_env") or {}),
            "metadata": dict(asked.get("metadata") or {}),
            "memory_bytes": memory_bytes(asked.get("memory")),
            "max_runtime_s": seconds(asked.get("max_runtime")),
            "after": [job.id if isinstance(job, Job) else job for job in asked.get("after") or ()],
            "hold": asked.get("hold") or None,
        }
        body |= {key: value for key, value in other.items() if value}
        if command.folder is not None:
            body["working_dir_package"] = self.upload(command.folder, project)
        return body
