//! Records as the JSON of the API.

use serde_json::{Value, json};
use volley_control::TurnStats;
use volley_control::ledger::{Audit, ContainerRecord, Event, EventKind, GroupRecord, WorkerRecord};
use volley_control::store::StoreStats;

/// A container, with why it waits in words.
pub fn container(record: &ContainerRecord) -> Value {
    let waiting = record.waiting.as_ref().map(|waiting| {
        let words: Vec<String> = waiting.reasons.iter().map(ToString::to_string).collect();
        json!({ "since_ms": waiting.since.0, "not_before_ms": waiting.not_before.map(|at| at.0),
                "reasons": waiting.reasons, "words": words.join("; ") })
    });
    json!({
        "id": record.id.to_string(), "name": record.name, "state": record.state,
        "command": std::iter::once(&record.spec.command).chain(&record.spec.args).collect::<Vec<_>>(),
        "spec": volley_wire::json::spec_to(&record.spec),
        "attempt": record.attempt.map(|attempt| attempt.number), "worker": record.worker, "gpus": record.gpus,
        "submitted_at_ms": record.submitted_at.0, "assigned_at_ms": record.assigned_at.map(|at| at.0),
        "started_at_ms": record.started_at.map(|at| at.0), "finished_at_ms": record.finished_at.map(|at| at.0),
        "outcome": record.outcome, "outcome_words": record.outcome.as_ref().map(ToString::to_string),
        "success": record.outcome.as_ref().map(volley_model::Outcome::is_success), "waiting": waiting,
    })
}

/// A group.
pub fn group(record: &GroupRecord) -> Value {
    json!({
        "id": record.id.to_string(), "name": record.name, "labels": record.labels, "count": record.count,
        "submitted_at_ms": record.submitted_at.0, "finished": record.finished, "succeeded": record.succeeded,
    })
}

/// A worker.
pub fn worker(record: &WorkerRecord) -> Value {
    let worker = &record.view.worker;
    json!({
        "id": worker.id, "pool": worker.pool, "status": record.view.status, "connected": record.connected,
        "labels": worker.labels, "capacity": worker.capacity, "free": record.view.free,
        "containers": record.containers, "finished": record.finished, "notes": worker.notes,
    })
}

/// The audit, as `volley audit --output json` prints it.
pub fn audit(audit: &Audit) -> Value {
    json!({
        "version": 1, "ok": audit.violations.is_empty(), "accepted": audit.accepted, "queued": audit.queued,
        "claimed": audit.claimed, "assigned": audit.assigned, "starting": audit.starting, "running": audit.running,
        "stopping": audit.stopping, "finished": audit.finished, "pruned": audit.pruned,
        "violations": audit.violations,
    })
}

/// An event; ids in the text form that all other answers have.
pub fn event(event: &Event) -> Value {
    let mut value = match &event.kind {
        EventKind::GroupAccepted { group, tenant, count } => {
            json!({ "kind": "group_accepted", "group": group.to_string(), "tenant": tenant, "count": count })
        }
        EventKind::Container { container, state, attempt, worker, outcome } => json!({
            "kind": "container", "container": container.to_string(), "state": state, "attempt": attempt,
            "worker": worker, "outcome": outcome, "outcome_words": outcome.as_ref().map(ToString::to_string),
        }),
        EventKind::Worker { worker, status } => json!({ "kind": "worker", "worker": worker, "status": status }),
        EventKind::Pool { pool, removed } => json!({ "kind": "pool", "pool": pool, "removed": removed }),
        EventKind::Token { token, tenant, role, revoked } => json!({
            "kind": "token", "token": token.to_string(), "tenant": tenant, "role": role, "revoked": revoked,
        }),
        EventKind::Tenant { tenant, removed } => json!({ "kind": "tenant", "tenant": tenant, "removed": removed }),
    };
    value["number"] = event.number.0.into();
    value["at_ms"] = event.at.0.into();
    value
}

/// Counts of this server since its start.
pub fn stats(turns: &TurnStats, store: StoreStats) -> Value {
    let sizes = turns.sizes.iter().enumerate().filter(|(_, batches)| **batches > 0);
    let sizes: Vec<Value> =
        sizes.map(|(index, batches)| json!({ "up_to": TurnStats::size_up_to(index), "batches": batches })).collect();
    json!({
        "version": 1,
        "turns": {
            "batches": turns.batches, "placed": turns.placed, "largest": turns.largest, "refused": turns.refused,
            "claims": turns.claims, "claims_idle": turns.claims_idle, "commits": turns.commits,
            "reloads": turns.reloads, "sizes": sizes,
        },
        "store": { "operations": store.operations, "reads": store.reads, "transactions": store.transactions },
    })
}
