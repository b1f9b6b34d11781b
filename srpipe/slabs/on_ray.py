"""A job in slabs on the nodes of a Ray cluster.

The driver, the process that was asked, holds the lock of the job folder, hands out slabs, and joins
their parts. All else happens on nodes: the plan is made on one, whose memory, devices and speed are
then those of the slabs. Nodes and driver share nothing but a file system: what each slab has done is
read there, by the driver, by a node that repeats it, and by the driver that is started again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from srpipe.engines.ray import Cluster, Node, Slot, connected, stop_with_file
from srpipe.errors import Interrupted, SrpipeError
from srpipe.io.assembly import takes_parts_one_by_one
from srpipe.io.job_lock import LOCK_FILE
from srpipe.io.job_place import job_place
from srpipe.io.job_record import PLAN_FILE, read_record
from srpipe.io.slabs_folder import stop_file
from srpipe.plan.job import Plan
from srpipe.plan.slabs import Slab, default_slabs
from srpipe.prepare import prepare
from srpipe.runtime.events import ProgressCallback, Report
from srpipe.settings import Settings
from srpipe.slabs.monitor import SlabsMonitor
from srpipe.slabs.nodes import anywhere, check_nodes, for_slot, slot_for
from srpipe.slabs.task import SlabTask, run_slab
from srpipe.slabs.whole import Whole, locked
from srpipe.stop import StopRequest
from srpipe.tune.budget import job_budget_bytes

# A driver that was killed is gone at once; one that lives is not waited for.
_PATIENCE_S = 1.0


def enhance_on_ray(
    src: str, dst: str, settings: Settings, progress: ProgressCallback | None, begin_s: float,
    stop: StopRequest, deliver: Callable[[object], None] | None = None,
) -> Report:  # fmt: skip
    """Enhance one image on all nodes of a cluster.

    Args:
        src: the input, which all nodes see under the same name.
        dst: the output, options in brackets behind it.
        settings: what is asked for.
        progress: called with every progress event of the whole.
        begin_s: when the request was made, monotonic clock.
        stop: how it can be asked to stop; the same request goes on.
        deliver: called when the output is in place.

    Raises:
        ClusterError: the cluster cannot be reached, is too small, or its nodes are not alike.
        SrpipeError: as :func:`srpipe.enhance` does.
    """
    src = os.path.abspath(src)
    place = job_place(dst, settings.job_dir)
    dst = os.path.join(os.getcwd(), dst)
    settings = replace(anywhere(settings), job_dir=str(place.folder))
    with (
        connected(settings.address) as cluster,
        locked(place, _PATIENCE_S) as lock,
        stop.heeding(),
    ):
        slot = slot_for(cluster, settings)
        able = cluster.check_room(slot)
        check_nodes(cluster, able, src, place.folder / LOCK_FILE, settings.model, stop)
        at_once = sum(node.slots(slot) for node in able)
        plan = _make_plan(cluster, slot, able, src, dst, settings, stop)
        count = settings.slabs or (None if settings.fresh else _kept_count(place.folder))
        whole = Whole.of(plan, count or default_slabs(plan.grid.y.n_tiles, at_once))
        folder = whole.folder(lock)
        there = folder.prepare() is None
        monitor = whole.monitor(progress, begin_s)
        monitor.tell("started")
        joining = None
        if not there and takes_parts_one_by_one(plan, whole.cut):
            joining = whole.begin_joining(folder, stop)
        try:
            if not there:
                _run_slabs(cluster, slot, at_once, whole, settings, monitor, stop, folder.beat)
            return whole.join(folder, monitor, stop, at_once, joining, deliver, there=there)
        except BaseException as error:
            if joining is not None:
                joining.give_up()
            tiles = folder.keep_or_remove()
            if tiles and isinstance(error, SrpipeError):
                error.args = (f"{error} Slabs are kept in {place.folder}: repeat the command.",)
            raise


def _kept_count(folder: Path) -> int | None:
    try:
        return len(read_record(folder)["slabs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def plan_on_node(src: str, dst: str, settings: Settings, shares: int) -> Plan:
    """Plan a job on a node that runs so many slabs at once."""
    assert settings.job_dir is not None
    new = settings.fresh or not Path(settings.job_dir, PLAN_FILE).exists()
    if shares > 1 and new:
        budget = job_budget_bytes(settings.memory_bytes)
        settings = replace(settings, memory_bytes=budget and budget // shares)
    return prepare(src, dst, settings)


def _make_plan(
    cluster: Cluster, slot: Slot, able: Sequence[Node], src: str, dst: str, settings: Settings,
    stop: StopRequest,
) -> Plan:  # fmt: skip
    shares = max(node.slots(slot) for node in able)
    call = (src, dst, for_slot(settings, slot), shares)
    with closing(cluster.call_all(plan_on_node, [call], slot, stop)) as answers:
        for _, plan in answers:
            if isinstance(plan, SrpipeError):
                raise plan
            assert isinstance(plan, Plan)
            return plan
    raise Interrupted("interrupted.")


def run_slab_on_node(task: SlabTask) -> None:
    """Compute a slab in a call that the driver may stop."""
    with stop_with_file(os.fspath(stop_file(Path(task.plan.job_dir).parent))) as stop:
        if stop.times:
            raise Interrupted("interrupted.")
        run_slab(task, None, stop)


def _run_slabs(
    cluster: Cluster, slot: Slot, at_once: int, whole: Whole, settings: Settings,
    monitor: SlabsMonitor, stop: StopRequest, beat: Callable[[], None],
) -> None:  # fmt: skip
    """Have all slabs computed that are not.

    Raises:
        SrpipeError: of the slab that failed first; the others stop.
        Interrupted: ``stop`` asked for it.
    """
    tasks = [whole.task(slab, settings) for slab in whole.not_done()]
    pending: dict[int, Slab] = {number: task.slab for number, task in enumerate(tasks)}

    def look() -> None:
        beat()
        # Ray begins them about in turn: those far behind need not be looked at.
        monitor.tell("running", list(itertools.islice(pending.values(), 2 * at_once)))

    calls = [(task,) for task in tasks]
    names = [task.name for task in tasks]
    stops = stop_file(whole.path)
    with closing(
        cluster.call_all(run_slab_on_node, calls, slot, stop, look, names, stops)
    ) as answers:
        for number, error in answers:
            if isinstance(error, Interrupted) and stop.times:
                continue
            if isinstance(error, SrpipeError):
                raise error
            slab = pending.pop(number)
            monitor.tell("running", [slab])
    if pending:
        raise Interrupted("interrupted.")
