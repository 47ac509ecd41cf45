"""Every private part of Ray that this project uses, in one place: the GCS and raylet RPCs behind Ray's own state tables.

Why private: the public API cannot kill an actor that it has no handle for, cannot list actors without the dashboard, does not
say which bundle of which group is in use, and cannot ask a raylet to keep a worker process warm. Ray is pinned to one minor;
`CONTRACT` names each message and field, and `verify()` says in one sentence what is missing. Calls are asyncio, each with a
timeout, and carry the cluster's token (Ray's own channel does that).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, node_manager_pb2, node_manager_pb2_grpc

from heliostat_scheduler.live.tables import ActorRow, GroupRow, JobRow, NodeRow, WorkerRow

SUPPORTED = "2.60."
TIMEOUT_S = 5.0
DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING, DEAD = 0, 1, 2, 3, 4
ACTOR_STATES = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")
GROUP_STATES = ("PENDING", "PREPARED", "CREATED", "REMOVED", "RESCHEDULING")
NODE_ALIVE = 0
WORKER_IS_DRIVER = 1
PYTHON = 0
NIL = "f" * 32
KV_NAMESPACE = b"heliostat"

CONTRACT: dict[str, tuple[str, ...]] = {
    "gcs_service_pb2.GetAllActorInfoRequest": ("filters",),
    "gcs_service_pb2.GetAllActorInfoRequest.Filters": ("state",),
    "gcs_service_pb2.GetAllActorInfoReply": ("actor_table_data",),
    "gcs_service_pb2.KillActorViaGcsRequest": ("actor_id", "force_kill", "no_restart"),
    "gcs_service_pb2.GetAllAvailableResourcesReply": ("resources_list",),
    "gcs_service_pb2.GetAllPlacementGroupReply": ("placement_group_table_data",),
    "gcs_service_pb2.RemovePlacementGroupRequest": ("placement_group_id",),
    "gcs_service_pb2.GetAllJobInfoRequest": (
        "job_or_submission_id",
        "skip_submission_job_info_field",
        "skip_is_running_tasks_field",
    ),
    "gcs_service_pb2.GetAllNodeInfoReply": ("node_info_list",),
    "gcs_service_pb2.GetWorkerInfoRequest": ("worker_id",),
    "gcs_service_pb2.GetWorkerInfoReply": ("worker_table_data",),
    "gcs_service_pb2.InternalKVGetRequest": ("key", "namespace"),
    "gcs_service_pb2.InternalKVPutRequest": ("key", "value", "overwrite", "namespace"),
    "gcs_service_pb2.InternalKVDelRequest": ("key", "namespace", "del_by_prefix"),
    "gcs_pb2.ActorTableData": (
        "actor_id", "state", "name", "ray_namespace", "class_name", "job_id", "node_id", "pid", "placement_group_id",
        "required_resources", "resource_mapping", "serialized_runtime_env",
    ),
    "gcs_pb2.WorkerTableData": ("is_alive", "worker_address"),
    "gcs_pb2.PlacementGroupTableData": ("placement_group_id", "name", "state", "bundles"),
    "gcs_pb2.JobTableData": ("job_id", "config"),
    "gcs_pb2.GcsNodeInfo": (
        "node_id", "node_manager_address", "node_manager_port", "state", "resources_total", "labels", "is_head_node",
    ),
    "node_manager_pb2.GetNodeStatsReply": ("core_workers_stats",),
    "node_manager_pb2.PrestartWorkersRequest": ("language", "job_id", "num_workers", "keep_alive_duration_secs"),
    "common_pb2.CoreWorkerStats": ("pid", "actor_id", "job_id", "used_resources", "num_executed_tasks", "worker_type"),
}  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {
    "ActorInfoGcsService": ("GetAllActorInfo", "KillActorViaGcs"),
    "NodeResourceInfoGcsService": ("GetAllAvailableResources",),
    "PlacementGroupInfoGcsService": ("GetAllPlacementGroup", "RemovePlacementGroup"),
    "JobInfoGcsService": ("GetAllJobInfo",),
    "NodeInfoGcsService": ("GetAllNodeInfo",),
    "WorkerInfoGcsService": ("GetWorkerInfo",),
    "InternalKVGcsService": ("InternalKVGet", "InternalKVPut", "InternalKVDel"),
    "NodeManagerService": ("GetNodeStats", "PrestartWorkers"),
}


class UnsupportedRay(Exception):
    """The installed Ray is not the one whose private parts were checked."""


def verify(version: str) -> None:
    """Raise UnsupportedRay with one sentence if this Ray lacks anything that is used here."""
    from ray.core.generated import common_pb2, gcs_pb2

    modules = {
        "gcs_service_pb2": gcs_service_pb2, "node_manager_pb2": node_manager_pb2, "gcs_pb2": gcs_pb2, "common_pb2": common_pb2,
    }  # fmt: skip
    missing = []
    for path, names in CONTRACT.items():
        module, _, rest = path.partition(".")
        message: Any = modules[module]  # Any: generated code without types
        for part in rest.split("."):
            message = getattr(message, part, None)
        known = {f.name for f in message.DESCRIPTOR.fields} if message is not None else set()
        missing += [f"{path}.{name}" for name in names if name not in known]
    services = {**gcs_service_pb2.DESCRIPTOR.services_by_name, **node_manager_pb2.DESCRIPTOR.services_by_name}
    for service, methods in METHODS.items():
        known = set(services[service].methods_by_name) if service in services else set()
        missing += [f"{service}.{method}" for method in methods if method not in known]
    if gcs_pb2.ActorTableData.ActorState.keys() != list(ACTOR_STATES):
        missing.append("ActorTableData.ActorState in its known order")
    if gcs_pb2.PlacementGroupTableData.PlacementGroupState.keys() != list(GROUP_STATES):
        missing.append("PlacementGroupTableData.PlacementGroupState in its known order")
    if missing:
        raise UnsupportedRay(
            f"Ray {version} is not supported: it lacks {', '.join(missing)}. Install ray=={SUPPORTED}* on every node."
        )


class RayTables:
    """Ray's tables over its own RPCs. All ids are hex strings."""

    def __init__(self, gcs_address: str) -> None:
        channel = init_grpc_channel(gcs_address, asynchronous=True)
        self._actors = gcs_service_pb2_grpc.ActorInfoGcsServiceStub(channel)
        self._resources = gcs_service_pb2_grpc.NodeResourceInfoGcsServiceStub(channel)
        self._groups = gcs_service_pb2_grpc.PlacementGroupInfoGcsServiceStub(channel)
        self._jobs = gcs_service_pb2_grpc.JobInfoGcsServiceStub(channel)
        self._nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        self._processes = gcs_service_pb2_grpc.WorkerInfoGcsServiceStub(channel)
        self._kv = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)
        self._raylets: dict[str, Any] = {}  # Any: generated stubs

    async def nodes(self) -> dict[str, NodeRow]:
        """Every node that is alive."""
        reply = await self._nodes.GetAllNodeInfo(gcs_service_pb2.GetAllNodeInfoRequest(), timeout=TIMEOUT_S)
        rows = (_node(info) for info in reply.node_info_list if info.state == NODE_ALIVE)
        return {row.id: row for row in rows}

    async def actors(self) -> list[ActorRow]:
        """Every actor that is not dead. One call per state: the dead ones are kept by Ray and may be very many."""
        found: dict[str, ActorRow] = {}
        for state in (DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING):
            found |= {row.id: row for row in map(_actor, await self._in_state(state))}
        return list(found.values())

    async def dead_names(self, prefix: str) -> set[str]:
        """Names of dead actors that begin like this. Ray remembers 100,000 dead actors: not for every second."""
        return {data.name for data in await self._in_state(DEAD) if data.name.startswith(prefix)}

    async def _in_state(self, state: int) -> Any:  # Any: generated messages
        filters = gcs_service_pb2.GetAllActorInfoRequest.Filters(state=state)
        request = gcs_service_pb2.GetAllActorInfoRequest(filters=filters)
        reply = await self._actors.GetAllActorInfo(request, timeout=TIMEOUT_S)
        return reply.actor_table_data

    async def kill_actor(self, actor_id: str) -> None:
        """SIGKILL the actor's process, no restart. No effect on a dead one."""
        request = gcs_service_pb2.KillActorViaGcsRequest(
            actor_id=bytes.fromhex(actor_id), force_kill=True, no_restart=True
        )
        await self._actors.KillActorViaGcs(request, timeout=TIMEOUT_S)

    async def available(self) -> dict[str, dict[str, float]]:
        """Unused resources by node, group resources included. About 100 ms behind the raylets."""
        request = gcs_service_pb2.GetAllAvailableResourcesRequest()
        reply = await self._resources.GetAllAvailableResources(request, timeout=TIMEOUT_S)
        return {row.node_id.hex(): dict(row.resources_available) for row in reply.resources_list}

    async def groups(self) -> list[GroupRow]:
        """Every placement group that was not removed."""
        request = gcs_service_pb2.GetAllPlacementGroupRequest()
        reply = await self._groups.GetAllPlacementGroup(request, timeout=TIMEOUT_S)
        rows = (_group(data) for data in reply.placement_group_table_data)
        return [row for row in rows if row.state != "REMOVED"]

    async def remove_group(self, group: str) -> None:
        request = gcs_service_pb2.RemovePlacementGroupRequest(placement_group_id=bytes.fromhex(group))
        await self._groups.RemovePlacementGroup(request, timeout=TIMEOUT_S)

    async def job(self, job_id: str) -> JobRow:
        """One Ray job by its id. An unknown one comes back empty."""
        request = gcs_service_pb2.GetAllJobInfoRequest(
            job_or_submission_id=job_id, skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        reply = await self._jobs.GetAllJobInfo(request, timeout=TIMEOUT_S)
        for data in reply.job_info_list:
            if data.job_id.hex() == job_id:
                submission = data.config.metadata.get("job_submission_id", "")
                return JobRow(job_id, submission, _env(data.config.runtime_env_info.serialized_runtime_env))
        return JobRow(job_id)

    async def kv_get(self, key: str) -> str:
        """A value that lives as long as the cluster; "" when there is none."""
        request = gcs_service_pb2.InternalKVGetRequest(key=key.encode(), namespace=KV_NAMESPACE)
        reply = await self._kv.InternalKVGet(request, timeout=TIMEOUT_S)
        return str(reply.value.decode())

    async def kv_put(self, key: str, value: str) -> None:
        request = gcs_service_pb2.InternalKVPutRequest(
            key=key.encode(), value=value.encode(), overwrite=True, namespace=KV_NAMESPACE
        )
        await self._kv.InternalKVPut(request, timeout=TIMEOUT_S)

    async def kv_delete(self, key: str) -> None:
        request = gcs_service_pb2.InternalKVDelRequest(key=key.encode(), namespace=KV_NAMESPACE, del_by_prefix=False)
        await self._kv.InternalKVDel(request, timeout=TIMEOUT_S)

    async def living_workers(self, ids: Iterable[str]) -> set[str]:
        """Which of these processes (worker ids; a driver has one, too) live. One that came a moment ago may not be known yet.

        The table forgets no process when its node dies, so the node is looked at as well.
        """
        nodes, living = await self.nodes(), set()
        for worker in ids:
            request = gcs_service_pb2.GetWorkerInfoRequest(worker_id=bytes.fromhex(worker))
            data = (await self._processes.GetWorkerInfo(request, timeout=TIMEOUT_S)).worker_table_data
            if data.is_alive and data.worker_address.node_id.hex() in nodes:
                living.add(worker)
        return living

    async def workers(self, raylet: str) -> list[WorkerRow]:
        """The worker processes of one node and what each uses. The raylet asks every one of them: not for every second."""
        request = node_manager_pb2.GetNodeStatsRequest()
        reply = await self._raylet(raylet).GetNodeStats(request, timeout=TIMEOUT_S)
        return [_worker(stats) for stats in reply.core_workers_stats]

    async def prestart_worker(self, raylet: str, job_id: str, keep_s: int) -> None:
        """Have the node start one idle worker process for this job, so that the next actor need not wait for one."""
        request = node_manager_pb2.PrestartWorkersRequest(
            language=PYTHON, job_id=bytes.fromhex(job_id), num_workers=1, keep_alive_duration_secs=keep_s
        )
        await self._raylet(raylet).PrestartWorkers(request, timeout=TIMEOUT_S)

    def _raylet(self, address: str) -> Any:  # Any: generated stub
        if address not in self._raylets:
            channel = init_grpc_channel(address, asynchronous=True)
            self._raylets[address] = node_manager_pb2_grpc.NodeManagerServiceStub(channel)
        return self._raylets[address]


async def wait_gcs(tables: RayTables, patience_s: float) -> None:
    """Until the GCS answers. Raises the last error."""
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            await tables.nodes()
            return
        except Exception:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)


# Generated messages have no types, hence Any below.


def _node(info: Any) -> NodeRow:
    raylet = f"{info.node_manager_address}:{info.node_manager_port}"
    labels, resources = dict(info.labels), dict(info.resources_total)
    return NodeRow(info.node_id.hex(), info.node_manager_address, raylet, resources, labels, info.is_head_node)


def _actor(data: Any) -> ActorRow:
    devices = sorted(
        int(entry.index)
        for mapping in data.resource_mapping
        if mapping.name == "GPU" or mapping.name.startswith("GPU_group_")
        for entry in mapping.resource_ids
    )
    return ActorRow(
        id=data.actor_id.hex(),
        name=data.name,
        namespace=data.ray_namespace,
        class_name=data.class_name,
        state=ACTOR_STATES[data.state],
        job_id=data.job_id.hex(),
        node=data.node_id.hex(),
        pid=data.pid,
        group=_hex_or_none(data.placement_group_id),
        requires=dict(data.required_resources),
        env=_env(data.serialized_runtime_env),
        devices=tuple(dict.fromkeys(devices)),
    )


def _group(data: Any) -> GroupRow:
    bundles = tuple(dict(bundle.unit_resources) for bundle in data.bundles)
    nodes = tuple(_hex_or_none(bundle.node_id) for bundle in data.bundles)
    return GroupRow(data.placement_group_id.hex(), data.name, GROUP_STATES[data.state], bundles, nodes)


def _worker(stats: Any) -> WorkerRow:
    driver = stats.worker_type == WORKER_IS_DRIVER
    actor, used = _hex_or_none(stats.actor_id), tuple(sorted(stats.used_resources))
    return WorkerRow(stats.pid, actor, stats.job_id.hex(), used, stats.num_executed_tasks, driver)


def _hex_or_none(raw: bytes) -> str:
    """Ray's nil ids are all 0xff."""
    return "" if not raw or raw == b"\xff" * len(raw) else raw.hex()


def _env(serialized: str) -> Mapping[str, str]:
    if not serialized or serialized == "{}":
        return {}
    env = json.loads(serialized).get("env_vars", {})
    return {str(key): str(value) for key, value in env.items()}
