//! Bodies about the whole: counts of containers, of a server's turns, and of its store.

use serde::Serialize;
use utoipa::ToSchema;
use volley_control::ledger;
use volley_control::store::StoreStats;
use volley_control::{TurnStats, TurnTimes};

/// Counts of all containers, and whether every law holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Audit {
    version: u32,
    ok: bool,
    accepted: u64,
    queued: u64,
    claimed: u64,
    assigned: u64,
    starting: u64,
    running: u64,
    stopping: u64,
    finished: u64,
    pruned: u64,
    violations: Vec<String>,
    /// What can be lost by how the store is set up.
    warnings: Vec<String>,
}

impl Audit {
    pub(crate) fn of(audit: &ledger::Audit, warnings: Vec<String>) -> Self {
        Self {
            version: 1,
            ok: audit.violations.is_empty(),
            accepted: audit.accepted,
            queued: audit.queued,
            claimed: audit.claimed,
            assigned: audit.assigned,
            starting: audit.starting,
            running: audit.running,
            stopping: audit.stopping,
            finished: audit.finished,
            pruned: audit.pruned,
            violations: audit.violations.clone(),
            warnings,
        }
    }
}

/// Counts of one server since its start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    version: u32,
    turns: Turns,
    store: StoreCounts,
}

/// Turns of one server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Turns {
    /// Turns that placed something.
    batches: u64,
    /// Containers placed.
    placed: u64,
    /// Most containers placed by one turn.
    largest: u64,
    /// Placements refused at commit.
    refused: u64,
    /// One for each turn.
    claims: u64,
    /// Of these: claims after which there was nothing to commit.
    claims_idle: u64,
    /// One for each turn that has something to write.
    commits: u64,
    /// Fleet views made anew.
    reloads: u64,
    sizes: Vec<BatchSize>,
    /// The last turns that wrote something, oldest first.
    recent: Vec<RecentTurn>,
}

/// What one turn took, in microseconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RecentTurn {
    /// That were planned.
    containers: u64,
    claim_us: u64,
    plan_us: u64,
    commit_us: u64,
}

impl From<&TurnTimes> for RecentTurn {
    fn from(times: &TurnTimes) -> Self {
        let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (claim_us, plan_us, commit_us) = (us(times.claim), us(times.plan), us(times.commit));
        Self { containers: times.containers, claim_us, plan_us, commit_us }
    }
}

/// Batches of at most so many containers, and more than the size before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchSize {
    /// Null for no bound.
    up_to: Option<u64>,
    batches: u64,
}

/// The store as seen from one server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoreCounts {
    operations: u64,
    reads: u64,
    transactions: u64,
}

impl Stats {
    pub(crate) fn of(turns: &TurnStats, store: StoreStats) -> Self {
        let sizes = turns.sizes.iter().enumerate().filter(|(_, batches)| **batches > 0);
        let size =
            |(index, batches): (usize, &u64)| BatchSize { up_to: TurnStats::size_up_to(index), batches: *batches };
        let turns = Turns {
            batches: turns.batches,
            placed: turns.placed,
            largest: turns.largest,
            refused: turns.refused,
            claims: turns.claims,
            claims_idle: turns.claims_idle,
            commits: turns.commits,
            reloads: turns.reloads,
            sizes: sizes.map(size).collect(),
            recent: turns.recent.iter().map(RecentTurn::from).collect(),
        };
        let (operations, reads, transactions) = (store.operations, store.reads, store.transactions);
        Self { version: 1, turns, store: StoreCounts { operations, reads, transactions } }
    }
}
