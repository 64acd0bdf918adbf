//! The ledger's limits and terms, each with where its number comes from.

use volley_model::Millis;

/// Limits and terms of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerOptions {
    /// A worker's lease: long enough for a server's restart, short enough that lost work is retried within a minute.
    pub worker_lease: Millis,
    /// A session's lease: its claims are stuck for that long when a server dies.
    pub session_lease: Millis,
    /// How long the right to buy machines lasts without being renewed: nobody buys for that long when a leader dies.
    pub scale_lease: Millis,
    /// Specs that a worker fails in a row before it is cordoned: fewer may be the specs' own fault.
    pub failing_specs_max: usize,
    /// Most blocked shapes whose demand is told, the best scores first.
    pub demand_shapes_max: usize,
    /// Scores of one shape that are told apart in its demand.
    pub demand_runs_max: usize,
    /// How long a client key gives the same group.
    pub key_retention: Millis,
    /// Most containers that may wait (queued or claimed).
    pub backlog_max: u64,
    /// Most workers.
    pub workers_max: u32,
    /// Most finished containers kept.
    pub finished_containers_max: u64,
    /// How long finished containers are kept.
    pub finished_age_max: Millis,
    /// Most events kept.
    pub events_max: u64,
    /// How long events are kept.
    pub events_age_max: Millis,
    /// How long a lost worker with nothing bound to it is listed.
    pub lost_worker_age_max: Millis,
    /// How long an attempt with `on_disconnect = keep` outlives its worker's lease: a day of repairs. Then it is lost.
    pub kept_attempt_age_max: Millis,
    /// Most blocked shapes handed out by one claim.
    pub recheck_max: usize,
    /// Most containers of one claim: a turn's batch is at most this.
    pub claim_containers_max: u32,
    /// Affinity keys remembered per worker.
    pub affinity_keys_max: usize,
    /// Removed records remembered in the change feed.
    pub tombstones_max: usize,
    /// Most messages of one take, per worker.
    pub take_deliveries_max: usize,
    /// Most tenants with limits of their own.
    pub tenants_max: u32,
    /// Most tokens kept, ended ones included.
    pub tokens_max: u32,
    /// How long a token is listed after its end: whoever looks for what it did finds whose it was.
    pub token_record_age_max: Millis,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            worker_lease: Millis::from_secs(60),
            session_lease: Millis::from_secs(15),
            scale_lease: Millis::from_secs(10),
            failing_specs_max: 5,
            demand_shapes_max: 1_000,
            demand_runs_max: 64,
            key_retention: Millis::from_secs(24 * 3600),
            backlog_max: 1_000_000,
            workers_max: 100_000,
            finished_containers_max: 200_000,
            finished_age_max: Millis::from_secs(7 * 24 * 3600),
            events_max: 1_000_000,
            events_age_max: Millis::from_secs(7 * 24 * 3600),
            lost_worker_age_max: Millis::from_secs(3600),
            kept_attempt_age_max: Millis::from_secs(24 * 3600),
            recheck_max: 64,
            claim_containers_max: 10_000,
            affinity_keys_max: 16,
            tombstones_max: 10_000,
            take_deliveries_max: 1_000,
            tenants_max: 10_000,
            tokens_max: 10_000,
            token_record_age_max: Millis::from_secs(30 * 24 * 3600),
        }
    }
}
