//! How good expected starts are: a cell in virtual time that is always a little too small for what comes, whose waiting
//! containers are asked about as a person would, and what then really came. Nothing goes wrong in it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use volley_control::{Options, Profile};
use volley_ledger::{Answer, LedgerOptions, Query};
use volley_model::{
    Bytes, Capacity, ContainerId, CpuMilli, Expected, GroupId, Millis, PoolName, Spec, SubmissionBody, TenantName,
    Timestamp, Worker, WorkerId,
};

use crate::chance::Chance;
use crate::cluster::{Cluster, Server};
use crate::faults::Rates;
use crate::record::Failure;
use crate::run::set_up;
use crate::scenario::Scenario;

/// Virtual time in which work comes.
const WORK_FOR: Duration = Duration::from_secs(600);
/// Work that is slower than this to end is a fault of the simulation.
const DRAIN_WITHIN: Duration = Duration::from_secs(3_600);
/// Containers that wait, above which nothing more is submitted.
const WAITING_MAX: u64 = 150;
/// Tries to find a container that waits.
const TRIES_MAX: usize = 40;

/// One question and what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guess {
    /// By what.
    pub basis: Basis,
    /// Containers in front, where that is its basis.
    pub ahead: u64,
    /// What was said: so long from then on.
    pub said: Millis,
    /// What was.
    pub was: Millis,
}

/// By what a start was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Basis {
    NextTurn,
    NotBefore,
    Work,
    Rate,
    Boot,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::NextTurn, Self::NotBefore, Self::Work, Self::Rate, Self::Boot];

    /// As answers name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NextTurn => "next_turn",
            Self::NotBefore => "not_before",
            Self::Work => "work",
            Self::Rate => "rate",
            Self::Boot => "boot",
        }
    }
}

impl Guess {
    /// Within a quarter of what was, or 2 s of it.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let off = self.said.0.abs_diff(self.was.0);
        off <= 2_000 || off * 4 <= self.was.0
    }

    /// It said less than it took, and not just a little.
    #[must_use]
    pub fn is_too_early(&self) -> bool {
        self.said < self.was && !self.is_near()
    }
}

/// What became of the questions of a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guesses {
    /// Those with a time.
    pub told: Vec<Guess>,
    /// Those where nothing could be told.
    pub unknown: u64,
}

/// Asks about waiting containers in the cell of a seed.
///
/// # Errors
/// When a law was broken, or something that was to end did not.
pub fn expected_starts(seed: u64) -> Result<Guesses, Box<Failure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the system");
    let guesses = runtime.block_on(play(seed));
    // Tasks that wait for ever end with it.
    drop(runtime);
    guesses
}

/// What comes in this cell: a few kinds of work, each with its size and its usual time.
struct Kind {
    cpu: CpuMilli,
    usual_millis: u64,
}

async fn play(seed: u64) -> Result<Guesses, Box<Failure>> {
    let chance = Chance::of_seed(seed);
    let dir = tempfile::tempdir().expect("a directory for the workers' epochs");
    let cluster = set_up(&scenario(seed, &chance), false, dir.path()).await;
    // All laws after each step are the simulation's of faults.
    cluster.cell.audit_no_more();
    let server = cluster.any_server().expect("it was started");
    let kinds: Vec<Kind> = (0..1 + chance.index(3))
        .map(|_| Kind { cpu: CpuMilli(500 * chance.within(1..5)), usual_millis: chance.within(2_000..30_000) })
        .collect();
    let mut groups: Vec<(GroupId, u32)> = Vec::new();
    let mut asked: Vec<(ContainerId, Timestamp, Guess)> = Vec::new();
    let mut guesses = Guesses::default();
    let begin = tokio::time::Instant::now();
    while begin.elapsed() < WORK_FOR {
        if cluster.cell.waiting() < WAITING_MAX && chance.per_mille(400) {
            groups.push(submit(&server, &chance, &kinds).await);
        }
        sleep(chance.millis(500..4_000)).await;
        let Some(id) = waiting(&cluster, &chance, &groups) else { continue };
        let why = server.control.why(id, None).await.expect("the container is there");
        match why.expected {
            None => {}
            Some(Expected::Unknown { .. }) => guesses.unknown += 1,
            Some(expected) => {
                let (basis, said, ahead) = told(&expected, why.now);
                asked.push((id, why.now, Guess { basis, ahead, said, was: Millis(0) }));
            }
        }
    }
    drained(&cluster).await?;
    for (id, at, guess) in asked {
        let Some(Answer::Container(Some(record))) = cluster.cell.read(Query::Container(id, None)) else { continue };
        let Some(assigned) = record.assigned_at else { continue };
        guesses.told.push(Guess { was: assigned.since(at), ..guess });
    }
    Ok(guesses)
}

/// By what, so long from now on, behind so many.
fn told(expected: &Expected, now: Timestamp) -> (Basis, Millis, u64) {
    match expected {
        Expected::NextTurn { .. } | Expected::Unknown { .. } => (Basis::NextTurn, Millis(0), 0),
        Expected::NotBefore { at } => (Basis::NotBefore, at.since(now), 0),
        Expected::Work { after, ahead, .. } => (Basis::Work, *after, *ahead),
        Expected::Rate { after, ahead, .. } => (Basis::Rate, *after, *ahead),
        Expected::Boot { after, .. } => (Basis::Boot, *after, 0),
    }
}

fn scenario(seed: u64, chance: &Chance) -> Scenario {
    let worker = |number: u64| Worker {
        id: WorkerId::new(&format!("worker-{number}")).expect("a good name"),
        pool: PoolName::default(),
        labels: Default::default(),
        capacity: Capacity {
            cpu: CpuMilli(1_000 * chance.within(3..9)),
            memory: Bytes(64 << 30),
            slots: 64,
            gpus: Vec::new(),
        },
        notes: Vec::new(),
    };
    Scenario {
        seed,
        servers: 1,
        workers: (0..2 + chance.within(0..4)).map(worker).collect(),
        orders: Vec::new(),
        rates: Rates::CALM,
        troubles: Vec::new(),
        trouble_for: Duration::ZERO,
        options: Options::of_profile(Profile::Auto),
        ledger: LedgerOptions::default(),
    }
}

/// A burst of one kind, whose containers take between half and one and a half of the usual time.
async fn submit(server: &Arc<Server>, chance: &Chance, kinds: &[Kind]) -> (GroupId, u32) {
    let kind = &kinds[chance.index(kinds.len())];
    let count = chance.within(10..80) as u32;
    let spec = |_| {
        let millis = kind.usual_millis / 2 + chance.within(0..kind.usual_millis);
        let mut spec = Spec::of_command("simulated", &[&millis.to_string(), "0"]);
        spec.resources.cpu = kind.cpu;
        spec.resources.memory = Bytes(1 << 20);
        spec
    };
    let body = SubmissionBody::List((0..count).map(spec).collect());
    let submission = body.check(TenantName::default(), None, None, Default::default()).expect("a good submission");
    let digest = submission.digest();
    let reply = server.control.submit(submission, digest).await.expect("nothing goes wrong here");
    (reply.group, reply.count)
}

/// One of those that wait, by chance.
fn waiting(cluster: &Cluster, chance: &Chance, groups: &[(GroupId, u32)]) -> Option<ContainerId> {
    (0..TRIES_MAX.min(groups.len() * TRIES_MAX)).find_map(|_| {
        // The later ones are those that wait.
        let (group, count) = groups[groups.len() - 1 - chance.index(groups.len().min(8))];
        let id = ContainerId { group, index: chance.index(count as usize) as u32 };
        match cluster.cell.read(Query::Container(id, None)) {
            Some(Answer::Container(Some(record))) => record.waiting.is_some().then_some(id),
            _ => None,
        }
    })
}

async fn drained(cluster: &Cluster) -> Result<(), Box<Failure>> {
    let begin = tokio::time::Instant::now();
    loop {
        if let Some(failure) = cluster.record.failure() {
            return Err(Box::new(failure));
        }
        if cluster.cell.waiting() == 0 && cluster.held_attempts() == 0 {
            return Ok(());
        }
        if begin.elapsed() > DRAIN_WITHIN {
            cluster.record.fail(format!("{} containers wait after {DRAIN_WITHIN:?}", cluster.cell.waiting()));
        }
        sleep(Duration::from_secs(1)).await;
    }
}
