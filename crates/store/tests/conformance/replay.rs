//! Random sequences, played on the bare ledger and on a store side by side: every reply and,
//! after each operation, everything that can be read must be equal.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use volley_ledger::{Answer, LedgerOptions, ListQuery, Query};
use volley_model::{DeliveryNumber, EventNumber, Nonce, TenantName};

use crate::cell::Traced;
use crate::model::Model;
use crate::steps::steps;
use crate::subject::{Subject, is_durable};
use crate::world::World;
use crate::world::things::options;

/// The operations of a seed's random sequence, as they came to pass on the ledger.
pub fn trace(seed: u64, restart_after_each_step: bool) -> Vec<Traced> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let sequence = steps().new_tree(&mut runner).expect("steps need no filter").current();
    let mut world = World::new();
    world.cell.trace = Some(Vec::new());
    for step in sequence {
        world.take(&step);
        if restart_after_each_step {
            world.take(&crate::steps::Step::Restart);
        }
    }
    world.cell.trace.take().expect("set above")
}

/// Everything that can be read, streams included.
pub fn reads(model: &Model, streams: &[(volley_model::WorkerId, Nonce)]) -> Vec<Query> {
    let take = |(worker, stream): &(_, Nonce)| volley_ledger::TakeFrom {
        worker: Clone::clone(worker),
        stream: *stream,
        after: DeliveryNumber(0),
    };
    let recent = EventNumber(model.ledger.counters().last_event.0.saturating_sub(20));
    let events = |scope| Query::Events { after: recent, max: 100, scope };
    let mut queries = vec![
        Query::Audit,
        Query::Workers { after: None, max: 3 },
        Query::Tenants { after: None, max: 10 },
        Query::Tokens { after: None, max: 2 },
        Query::Overview { ahead_of: None },
        Query::Pools,
        Query::Scale,
        Query::Fleet { known: volley_model::FleetVersion(0), max: 1 },
        Query::List(ListQuery { max: 10_000, ..ListQuery::default() }),
        events(None),
        events(Some(TenantName::default())),
        Query::Take(streams.iter().map(take).collect()),
    ];
    if let Answer::List(page) = model.read(Query::List(ListQuery { max: 1, ..ListQuery::default() })) {
        for record in page.containers {
            for scope in [None, Some(TenantName::default())] {
                queries.push(Query::Group(record.id.group, scope.clone()));
                queries.push(Query::Container(record.id, scope.clone()));
                queries.push(Query::Prefix(record.id.group.to_string()[..3].to_owned(), scope));
            }
        }
    }
    let tokens = model.ledger.tokens(None, 1).0;
    queries.extend(tokens.first().map(|token| Query::Token(token.hash)));
    queries
}

/// Plays a sequence on the store and on the ledger. `restart_always` restarts the ledger where the store does it by
/// itself.
pub fn play(seed: u64, trace: Vec<Traced>, open: impl Fn(LedgerOptions) -> Subject, restart_always: bool) {
    let mut model = Model::new(options());
    // An embedded store begins with loading an empty file.
    model.restart();
    play_on(seed, trace, model, open, restart_always);
}

fn play_on(
    seed: u64,
    trace: Vec<Traced>,
    mut model: Model,
    open: impl Fn(LedgerOptions) -> Subject,
    restart_always: bool,
) {
    let mut subject = open(options());
    let mut streams = Vec::new();
    for (number, traced) in trace.into_iter().enumerate() {
        let place = format!("seed {seed}, operation {number}");
        match traced {
            Traced::Restarted => {
                model.restart();
                subject.restart();
            }
            Traced::Applied(now, operation) => {
                let operation = *operation;
                let durable = is_durable(&operation);
                if let volley_ledger::Operation::Attach(attach) = &operation {
                    streams.push((attach.worker.id.clone(), attach.stream));
                    streams.drain(..streams.len().saturating_sub(8));
                }
                let expected = model.apply(now, operation.clone());
                if restart_always && durable {
                    model.restart();
                }
                let reply = subject.apply(now, operation.clone());
                assert_eq!(reply, expected, "{place}: {operation:#?}");
            }
        }
        for query in reads(&model, &streams) {
            let expected = model.read(query.clone());
            let answer = subject.read(query.clone());
            assert_eq!(answer, expected, "{place}: {query:?}");
        }
    }
}

#[test]
fn sqlite_is_the_ledger_after_every_operation() {
    for seed in 1..=40 {
        play(seed, trace(seed, false), Subject::sqlite, false);
    }
}

#[test]
fn sqlite_reopened_after_every_durable_operation_is_the_restored_ledger() {
    for seed in 1..=8 {
        play(seed, trace(seed, true), Subject::sqlite_reopened, true);
    }
}

/// A restart of a server is nothing to a cell that others share: what it had goes on.
#[test]
fn redis_is_the_ledger_after_every_operation() {
    for seed in 1..=argument("VOLLEY_SEQUENCES", 30) {
        let shared = trace(seed, false).into_iter().filter(|traced| !matches!(traced, Traced::Restarted));
        play_on(seed, shared.collect(), Model::new(options()), Subject::redis, false);
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}
