//! Random sequences, played on the bare ledger and on a store side by side: every reply and,
//! after each operation, everything that can be read must be equal.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Runtime;
use volley_ledger::{Answer, LedgerOptions, ListQuery, Operation, Query, Reply};
use volley_model::{DeliveryNumber, EventNumber, Nonce, TenantName, Timestamp};
use volley_store::redis::{RedisOptions, RedisStore};
use volley_store::{Clock, Store};

use crate::cell::Traced;
use crate::model::Model;
use crate::redis_server::RedisServer;
use crate::steps::steps;
use crate::subject::{Subject, is_durable};
use crate::world::World;
use crate::world::things::options;

/// The operations of a seed's random sequence, as they came to pass on the ledger.
pub fn trace(seed: u64, restart_after_each_step: bool) -> Vec<Traced> {
    let mut world = World::new();
    world.cell.trace = Some(Vec::new());
    let mut runner = runner(seed);
    for step in steps().new_tree(&mut runner).expect("steps need no filter").current() {
        world.take(&step);
        if restart_after_each_step {
            world.take(&crate::steps::Step::Restart);
        }
    }
    world.cell.trace.take().expect("set above")
}

/// Sequences of a seed in one world, one after the other, until so many operations came to pass. A restart of a server
/// is nothing to a cell that others share, so there are none.
fn long_trace(seed: u64, operations: usize) -> Vec<(Timestamp, Operation)> {
    let (mut world, mut runner) = (World::new(), runner(seed));
    world.cell.trace = Some(Vec::new());
    let mut applied = Vec::new();
    while applied.len() < operations {
        for step in steps().new_tree(&mut runner).expect("steps need no filter").current() {
            if !matches!(step, crate::steps::Step::Restart) {
                world.take(&step);
            }
        }
        let traced = world.cell.trace.replace(Vec::new()).expect("set above");
        applied.extend(traced.into_iter().map(|traced| match traced {
            Traced::Applied(now, operation) => (now, *operation),
            Traced::Restarted => panic!("nothing restarts here"),
        }));
    }
    applied.truncate(operations);
    applied
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// All state: every record of every kind, as it is read.
pub fn records(streams: &[(volley_model::WorkerId, Nonce)], model: &Model) -> Vec<Query> {
    let take = |(worker, stream): &(_, Nonce)| volley_ledger::TakeFrom {
        worker: Clone::clone(worker),
        stream: *stream,
        after: DeliveryNumber(0),
    };
    let recent = EventNumber(model.ledger.counters().last_event.0.saturating_sub(20));
    vec![
        Query::Workers { after: None, max: 100 },
        Query::Tenants { after: None, max: 100 },
        Query::Tokens { after: None, max: 100 },
        Query::Pools,
        Query::Scale,
        Query::Fleet { known: volley_model::FleetVersion(0), max: 1 },
        Query::List(ListQuery { max: 10_000, ..ListQuery::default() }),
        Query::Events { after: recent, max: 100, scope: None },
        Query::Take(streams.iter().map(take).collect()),
    ]
}

/// Everything that can be read, in every way, streams included.
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
        Query::Servers { worker: streams.first().map(|(worker, _)| worker.clone()) },
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
                if let Operation::Attach(attach) = &operation {
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

/// Operations of a sequence on Redis.
const OPERATIONS: usize = 200;
/// After so many everything is read in every way: pages, scopes, single records, counts, the laws. After each other one
/// every record of every kind is.
const EVERY_WAY: usize = 8;
/// Sequences that are played side by side, each on a redis-server of its own: one for a core.
const SIDE_BY_SIDE: u64 = 2;

/// Every reply, and after every operation all state. `VOLLEY_SEED` is the first of `VOLLEY_SEQUENCES`
/// seeds.
#[test]
fn redis_is_the_ledger_after_every_operation() {
    let (first, sequences) = (argument("VOLLEY_SEED", 1), argument("VOLLEY_SEQUENCES", 500));
    std::thread::scope(|threads| {
        for part in 0..SIDE_BY_SIDE {
            threads.spawn(move || {
                let server = RedisServer::start(&[]);
                for seed in (first + part..first + sequences).step_by(SIDE_BY_SIDE as usize) {
                    println!("seed {seed}");
                    play_on_redis(seed, &server);
                    // The cell of the sequence before is nobody's.
                    server.cli(&["FLUSHALL"]);
                }
            });
        }
    });
}

fn play_on_redis(seed: u64, server: &RedisServer) {
    let (mut model, mut shared) = (Model::new(options()), Shared::open(server, options()));
    let mut streams = Vec::new();
    for (number, (now, operation)) in long_trace(seed, OPERATIONS).into_iter().enumerate() {
        let place = format!("seed {seed}, operation {number}");
        if let Operation::Attach(attach) = &operation {
            streams.push((attach.worker.id.clone(), attach.stream));
            streams.drain(..streams.len().saturating_sub(8));
        }
        let expected = model.apply(now, operation.clone());
        assert_eq!(shared.apply(now, operation.clone()), expected, "{place}: {operation:#?}");
        let mut queries = records(&streams, &model);
        if number % EVERY_WAY == EVERY_WAY - 1 {
            queries.extend(reads(&model, &streams));
        }
        let answers = shared.read_all(queries.clone());
        for (query, answer) in queries.into_iter().zip(answers) {
            assert_eq!(answer, model.read(query.clone()), "{place}: {query:?} after {operation:#?}");
        }
    }
}

/// A cell, asked many things at once: their order does not matter, for nothing moves between.
struct Shared {
    runtime: Runtime,
    now: Arc<AtomicU64>,
    store: RedisStore,
}

impl Shared {
    fn open(server: &RedisServer, ledger: LedgerOptions) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&now);
        let clock = Clock::given(move || Timestamp(time.load(Ordering::SeqCst)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let options = RedisOptions { ledger, clock: Some(clock), ..RedisOptions::new(&server.url()) };
        let store = runtime.block_on(RedisStore::open(options)).expect("the server answers");
        Self { runtime, now, store }
    }

    fn apply(&mut self, now: Timestamp, operation: Operation) -> Reply {
        self.now.store(now.0, Ordering::SeqCst);
        self.runtime.block_on(self.store.apply(operation)).expect("nothing fails here")
    }

    fn read_all(&mut self, queries: Vec<Query>) -> Vec<Answer> {
        let answers = queries.into_iter().map(|query| self.store.read(query));
        let answers = self.runtime.block_on(futures_util::future::join_all(answers));
        answers.into_iter().map(|answer| answer.expect("nothing fails here")).collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}
