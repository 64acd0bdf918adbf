//! The metrics of a server.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::instruments::{Count, Counts, Histogram, Histograms, Value, Values};
use crate::process::ProcessMetrics;
use crate::scale::{MachineMetrics, ScaleMetrics};
use crate::table::{Metric, Table};

/// All metrics of a server. Each part is handed to the room that counts.
pub struct ServerMetrics {
    /// The turn and the fleet view.
    pub turn: TurnMetrics,
    /// Calls of the store.
    pub store: StoreMetrics,
    /// Submissions, reports, heartbeats, sweeps.
    pub work: WorkMetrics,
    /// Machines bought and given up.
    pub scale: ScaleMetrics,
    /// Requests to the port.
    pub requests: RequestMetrics,
    /// The state of the whole cell, set at each read.
    pub fleet: FleetMetrics,
    process: ProcessMetrics,
    registry: Mutex<Registry>,
    metrics: Vec<Metric>,
}

impl fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMetrics").finish_non_exhaustive()
    }
}

impl Default for ServerMetrics {
    fn default() -> Self {
        let mut table = Table::new();
        let turn = TurnMetrics::register(&mut table);
        let store = StoreMetrics::register(&mut table);
        let work = WorkMetrics::register(&mut table);
        let scale = ScaleMetrics::register(&mut table);
        let fleet = FleetMetrics::register(&mut table);
        let requests = RequestMetrics::register(&mut table);
        let process = ProcessMetrics::register(&mut table);
        let (registry, metrics) = (Mutex::new(table.registry), table.metrics);
        Self { turn, store, work, scale, requests, fleet, process, registry, metrics }
    }
}

impl ServerMetrics {
    /// The text of `/metrics` (OpenMetrics 1.0). `refresh` sets the fleet's values; one read at a time, so that none
    /// shows half of another's.
    pub fn text(&self, refresh: impl FnOnce(&FleetMetrics)) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        refresh(&self.fleet);
        self.process.refresh();
        let mut text = String::new();
        encode(&mut text, &registry).expect("text takes all that is written");
        text
    }

    pub(crate) fn metrics(&self) -> &[Metric] {
        &self.metrics
    }
}

/// The turn and the fleet view.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct TurnMetrics {
    pub batch: Histogram,
    pub phase: Histograms<1>,
    pub turns: Counts<1>,
    pub placements: Count,
    pub refusals: Counts<1>,
    pub returned: Count,
    pub unplaceable: Count,
    pub marks: Counts<1>,
    pub holds: Count,
    pub queue_wait: Histograms<0>,
    pub view_uses: Counts<1>,
    pub view_changes: Counts<1>,
    pub view_fresh: Count,
    pub sessions: Count,
}

impl TurnMetrics {
    fn register(table: &mut Table) -> Self {
        Self {
            batch: table.containers("batch", "Containers planned together in one turn, turns without any left out."),
            phase: table.seconds(
                "turn_phase",
                [("phase", "collect, claim, plan, commit")],
                "Time of each phase of a turn; collect is the wait for the batch to close.",
            ),
            turns: table.counts(
                "turns",
                [("result", "placed, idle, broken")],
                "Turns: that placed something, that did not, that a fault of the store broke off.",
            ),
            placements: table
                .count("placements", "Placements that the store accepted: containers onto workers there are."),
            refusals: table.counts(
                "refusals",
                [("reason", "claim_lost, worker_gone, revision_changed, not_ready, no_capacity, held")],
                "Placements that the store turned down at commit; no_capacity is double booking prevented.",
            ),
            returned: table.count("returned", "Claimed containers that went back to their queue because nothing fits."),
            unplaceable: table.count("unplaceable", "Containers ended because no pool could ever serve them."),
            marks: table.counts(
                "blocked_marks",
                [("change", "marked, unblocked")],
                "Shapes marked as blocked (again), and shapes that fit again.",
            ),
            holds: table.count("holds_asked", "Rooms on workers asked to be kept for work that waited long."),
            queue_wait: table.seconds("queue_wait", [], "From ready in the queue to placed."),
            view_uses: table.counts(
                "fleet_view_uses",
                [("result", "hit, updated, reloaded")],
                "Turns by how they found the fleet view: as it was, with some records fresh, or all loaded anew.",
            ),
            view_changes: table.counts(
                "fleet_view_changes",
                [("record", "worker, pool, shape")],
                "Records of the fleet view that were invalidated and set anew by the feed, one by one.",
            ),
            view_fresh: table.count("fleet_view_refreshed", "Workers whose numbers a refusal brought."),
            sessions: table.count("sessions_opened", "Sessions that this server opened; more than one after faults."),
        }
    }
}

/// Calls of the store.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct StoreMetrics {
    pub calls: Histograms<1>,
    pub errors: Counts<2>,
    pub operations: Count,
    pub reads: Count,
    pub transactions: Count,
}

impl StoreMetrics {
    fn register(table: &mut Table) -> Self {
        let calls = "submit, claim, commit, attach, heartbeat, report, take, ... (each operation and read by its name)";
        Self {
            calls: table.seconds(
                "store_call",
                [("call", calls)],
                "Time from a call of the store to its answer, which is when it is durable.",
            ),
            errors: table.counts(
                "store_errors",
                [("call", "as above"), ("error", "unknown, unavailable, closed")],
                "Calls that the store could not answer.",
            ),
            operations: table.count("store_operations", "Operations that the store applied."),
            reads: table.count("store_reads", "Reads that the store answered."),
            transactions: table.count("store_transactions", "Durable transactions; each holds all that waited."),
        }
    }
}

/// Submissions, reports, heartbeats, sweeps.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct WorkMetrics {
    pub submissions: Counts<1>,
    pub submitted: Count,
    pub reports: Counts<2>,
    pub ended: Counts<1>,
    pub heartbeats: Counts<1>,
    pub attached: Counts<1>,
    pub sweeps: Count,
    pub swept: Counts<1>,
    pub deliveries: Counts<1>,
}

impl WorkMetrics {
    fn register(table: &mut Table) -> Self {
        Self {
            submissions: table.counts(
                "submissions",
                [("result", "accepted, repeated, refused, failed")],
                "Submissions: a repeated one was accepted before under the same key; a failed one the store did not answer.",
            ),
            submitted: table.count("submitted_containers", "Containers of accepted submissions."),
            reports: table.counts(
                "reports",
                [("progress", "accepted, running, ended"), ("verdict", "keep, kill")],
                "Reports of workers and what they were told; kill means another attempt or epoch is in charge.",
            ),
            ended: table.counts(
                "attempts_ended",
                [("outcome", "success, exited, stopped, lost, failed")],
                "Attempts that ended, as their workers reported; success is exit code 0.",
            ),
            heartbeats: table.counts(
                "heartbeats",
                [("result", "renewed, fenced")],
                "Heartbeats of workers; a fenced one's stream was replaced by another.",
            ),
            attached: table.counts(
                "attachments",
                [("result", "attached, refused")],
                "Streams that workers opened.",
            ),
            sweeps: table.count("sweeps", "Sweeps of what is due."),
            swept: table.counts(
                "swept",
                [("what", "sessions_ended, workers_lost, expired, retries_ready, pruned")],
                "What sweeps of this server found.",
            ),
            deliveries: table.counts("deliveries", [("order", "start, stop")], "Orders handed to workers' streams."),
        }
    }
}

/// Requests to the port.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct RequestMetrics {
    pub time: Histograms<3>,
}

impl RequestMetrics {
    fn register(table: &mut Table) -> Self {
        let route = "the route's pattern, as in /v1/containers/{id}; other";
        let labels = [("route", route), ("method", "GET, POST, ..."), ("status", "2xx, 3xx, 4xx, 5xx")];
        Self { time: table.seconds("request", labels, "Time until the head of the answer; streams go on after it.") }
    }
}

/// The state of the whole cell, whichever server shows it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct FleetMetrics {
    pub accepted: Count,
    pub pruned: Count,
    pub containers: Values<1>,
    pub oldest_wait: Value,
    pub shapes: Value,
    pub blocked_shapes: Value,
    pub blocked_containers: Value,
    pub blocked_oldest: Value,
    pub workers: Values<2>,
    pub workers_empty: Values<1>,
    pub cpu: Values<2>,
    pub memory: Values<2>,
    pub slots: Values<2>,
    pub gpus: Values<2>,
    pub holds: Values<1>,
    pub sessions: Value,
    pub streams: Value,
    pub machines: MachineMetrics,
}

impl FleetMetrics {
    fn register(table: &mut Table) -> Self {
        let state = "queued, claimed, assigned, starting, running, stopping, finished";
        let status = "ready, cordoned, draining, lost";
        let pool = ("pool", "its name");
        let part = [pool, ("part", "total, reserved")];
        Self {
            accepted: table.count("containers_accepted", "Containers ever accepted by the cell."),
            pruned: table.count("containers_pruned", "Finished containers that were forgotten."),
            containers: table.values("containers", "", [("state", state)], "Containers by state."),
            oldest_wait: table.value(
                "queue_oldest_wait",
                "seconds",
                "How long the container in front that waited longest has waited; 0 when none waits.",
            ),
            shapes: table.value("queued_shapes", "", "Shapes of which something waits."),
            blocked_shapes: table.value("blocked_shapes", "", "Shapes of which nothing fits at present."),
            blocked_containers: table.value("blocked_containers", "", "Containers that wait behind them."),
            blocked_oldest: table.value(
                "blocked_oldest_wait",
                "seconds",
                "How long the longest waiting head of a blocked shape has waited; 0 when none is blocked.",
            ),
            workers: table.values("workers", "", [pool, ("status", status)], "Workers by pool and status."),
            workers_empty: table.values("workers_empty", "", [pool], "Ready workers on which nothing runs."),
            cpu: table.values(
                "pool_cpu",
                "cores",
                part,
                "CPU of a pool's ready workers: offered, and reserved by attempts.",
            ),
            memory: table.values(
                "pool_memory",
                "bytes",
                part,
                "Memory of a pool's ready workers: offered, and reserved.",
            ),
            slots: table.values("pool_slots", "", part, "Slots of a pool's ready workers: offered, and taken."),
            gpus: table.values(
                "pool_gpu",
                "devices",
                part,
                "GPU devices of a pool's ready workers: offered, and reserved; parts count as parts.",
            ),
            holds: table.values("holds", "", [pool], "Workers on which room is kept for work that waited long."),
            sessions: table.value("sessions", "", "Live servers of the cell."),
            streams: table.value("streams", "", "Streams of workers that this server holds."),
            machines: MachineMetrics::register(table),
        }
    }
}
