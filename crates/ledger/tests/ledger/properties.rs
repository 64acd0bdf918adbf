//! Random sequences of operations, with all laws after every step. A failure prints the seed
//! that replays it and the shortest sequence found that still fails.

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::steps::{Step, steps};
use crate::world::World;

/// Sequences of a normal run. `VOLLEY_SEQUENCES` asks for another number, `VOLLEY_SEED` for another first seed.
const SEQUENCES: u64 = 2_048;

#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn argument(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")),
        Err(_) => default,
    }
}

/// The first sequence of a seed.
fn sequence(seed: u64) -> (TestRunner, impl ValueTree<Value = Vec<Step>>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let tree = steps().new_tree(&mut runner).expect("steps need no filter");
    (runner, tree)
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new();
    for step in &steps {
        world.take(step);
    }
    world.end();
    Ok(())
}

#[test]
fn all_laws_hold_after_every_step_of_any_sequence() {
    let first = argument("VOLLEY_SEED", 1);
    for seed in first..first + argument("VOLLEY_SEQUENCES", SEQUENCES) {
        let (mut runner, tree) = sequence(seed);
        match runner.run_one(tree, run) {
            Ok(_) => {}
            Err(TestError::Abort(reason)) => panic!("seed {seed}: {reason}"),
            Err(TestError::Fail(reason, steps)) => {
                let replay = format!("VOLLEY_SEED={seed} VOLLEY_SEQUENCES=1 cargo test -p volley-ledger --test ledger");
                panic!("seed {seed}: {reason}\nreplay: {replay}\nshortest: {steps:#?}");
            }
        }
    }
}

/// The same seed gives the same trace: nothing in the ledger depends on hash order or on chance.
#[test]
fn the_same_sequence_gives_the_same_trace() {
    for seed in 1..20 {
        let sequence = sequence(seed).1.current();
        let trace = || {
            let mut world = World::new();
            sequence.iter().map(|step| world.take(step)).collect::<Vec<String>>()
        };
        assert_eq!(trace(), trace());
    }
}

/// The sequences get everywhere that there is to get to: each of these comes to pass, and not once only.
#[test]
fn the_sequences_reach_every_state_and_refusal() {
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    for seed in 1..1_000 {
        let mut world = World::new();
        for step in sequence(seed).1.current() {
            world.take(&step);
        }
        for (what, count) in world.tally {
            *tally.entry(what).or_default() += count;
        }
    }
    let expected = [
        "accepted",
        "assigned",
        "starting",
        "running",
        "stopping",
        "queued",
        "assigned again",
        "ended Exited",
        "ended Stopped",
        "ended Expired",
        "ended Unplaceable",
        "ended Lost",
        "ended Failed",
        "worker ready",
        "worker cordoned",
        "worker draining",
        "worker lost",
        "worker gone",
        "pool",
        "pool removed",
        "recheck",
        "hold",
        "inventory Keep",
        "inventory Kill",
        "report Keep",
        "report Kill",
        "restart",
        "pruned",
        "session ended",
        "token",
        "token revoked",
        "token expired",
        "token forgotten",
        "tenant",
        "tenant removed",
        "TooMany",
        "TenantBacklogFull",
        "RateExceeded",
        "debt",
        "BacklogFull",
        "KeyReused",
        "IdTaken",
        "NameInUse",
        "Superseded",
        "left to another",
        "TooManyWorkers",
        "SessionEnded",
        "ClaimLost",
        "WorkerGone",
        "RevisionChanged",
        "NotReady",
        "NoCapacity",
        "Held",
        "worker provisioning",
        "machine registered",
        "machine Created true",
        "machine Failed true",
        "machine Destroyed true",
        "retired true",
        "retired false",
        "NotLeading",
        "NoSuchPool",
        "AtMax",
        "InFlight",
        "MinuteLimit",
        "Waits",
        "Changed",
        "HasMachines",
    ];
    for what in expected {
        assert!(tally.get(what).is_some_and(|count| *count >= 5), "'{what}' hardly ever: {tally:#?}");
    }
}

/// Law 11, after whatever came before.
#[test]
fn after_the_faults_everything_drains_and_then_it_is_quiet() {
    for seed in 1..=argument("VOLLEY_DRAINS", 200) {
        let mut world = World::new();
        for step in sequence(seed).1.current() {
            world.take(&step);
        }
        println!("seed {seed}");
        world.drain();
    }
}
