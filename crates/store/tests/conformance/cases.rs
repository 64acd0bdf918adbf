//! The named cases, and the stores that run them. Each case starts with an empty store.

mod access;
mod clients;
mod machines;
mod reads;
mod time;
mod turns;
mod workers;

use volley_ledger::LedgerOptions;

use crate::bench::Bench;
use crate::subject::Subject;

macro_rules! suites {
    ($($store:ident: $open:path),+ $(,)?) => {
        $(mod $store { cases!($open); })+
    };
}

macro_rules! cases {
    ($open:path) => {
        cases!($open, clients: accepts_a_group_once, refuses_what_is_too_much, keys_end, stops_at_every_state,
            stops_a_group, keeps_tenants_apart);
        cases!($open, turns: claims_in_one_order, replays_a_lost_claim, replays_a_lost_commit, refuses_each_for_its_reason,
            gives_back_what_a_session_claimed, returns_and_ends_unplaceable, blocks_and_looks_again,
            tells_the_fleets_changes, holds_room, chooses_devices);
        cases!($open, workers: keeps_an_epoch_within_its_lease, fences_an_older_stream, refuses_a_stream_that_comes_late,
            goes_through_an_inventory,
            judges_each_report, retries_with_backoff, drains_a_worker, detaches, bounds_the_fleet, keeps_pools);
        cases!($open, machines: one_session_leads, buys_once_and_within_limits, a_machine_becomes_its_worker,
            a_machine_is_given_up_when_empty, a_machine_that_never_registers_is_destroyed,
            a_failing_pool_waits_and_is_quarantined, an_owner_ends_a_quarantine,
            a_worker_that_eats_containers_is_cordoned, tells_exact_demand);
        cases!($open, time: loses_a_silent_worker, forgives_a_gap, one_server_sweeps, expires_what_waits, prunes_by_count,
            ends_silent_sessions);
        cases!($open, access: bounds_a_tenants_backlog, keeps_tokens);
        cases!($open, reads: finds_by_prefix, lists_in_pages, records_every_transition, takes_in_order);
    };
    ($open:path, $room:ident: $($case:ident),+) => {
        $(#[test]
        fn $case() {
            super::super::$room::$case($open);
        })+
    };
}

/// A store under test.
type Open = fn(LedgerOptions) -> Subject;

fn bench(open: Open) -> Bench {
    Bench::new(open, LedgerOptions::default())
}

mod suites {
    use super::Subject;
    suites!(bare: super::Subject::bare, sqlite: super::Subject::sqlite, sqlite_reopened: super::Subject::sqlite_reopened, redis: super::Subject::redis);
}
