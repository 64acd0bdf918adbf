//! What a seed asks for: the fleet, the work, and what goes wrong.

use std::time::Duration;

use volley_control::{Options, Profile};
use volley_ledger::LedgerOptions;
use volley_model::{
    Bytes, Capacity, CpuMilli, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Millis, OnUnplaceable, PoolName, Resources,
    Retry, RetryOn, Spec, Submission, SubmissionBody, TenantName, Worker, WorkerId,
};

use crate::chance::Chance;
use crate::faults::Rates;

/// A kind of thing that goes wrong now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    ServerKilled,
    ServerFrozen,
    ServerCut,
    StoreRestarted,
    ClockJumps,
    WorkerKilled,
    MachineDies,
    WorkerFrozen,
    WorkerCordoned,
    WorkerDrained,
}

const TROUBLES: [Trouble; 10] = [
    Trouble::ServerKilled,
    Trouble::ServerFrozen,
    Trouble::ServerCut,
    Trouble::StoreRestarted,
    Trouble::ClockJumps,
    Trouble::WorkerKilled,
    Trouble::MachineDies,
    Trouble::WorkerFrozen,
    Trouble::WorkerCordoned,
    Trouble::WorkerDrained,
];

/// One submission and what its client does later.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) after: Duration,
    pub(crate) submission: Submission,
    /// Stops the group so long after it was accepted.
    pub(crate) stop_after: Option<(Duration, bool)>,
    /// Sends the same again so long after it was accepted.
    pub(crate) again_after: Option<Duration>,
}

/// A run, as its seed has it.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub(crate) seed: u64,
    pub(crate) servers: usize,
    pub(crate) workers: Vec<Worker>,
    pub(crate) orders: Vec<Order>,
    pub(crate) rates: Rates,
    pub(crate) troubles: Vec<Trouble>,
    /// So long things go wrong.
    pub(crate) trouble_for: Duration,
    pub(crate) options: Options,
    pub(crate) ledger: LedgerOptions,
}

impl Scenario {
    /// The run of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let chance = Chance::of_seed(seed);
        let servers = 1 + chance.index(2);
        let workers = (0..2 + chance.within(0..5)).map(|number| worker(&chance, number)).collect();
        let troubles = TROUBLES.into_iter().filter(|_| chance.per_mille(400)).collect();
        let profile = [Profile::Latency, Profile::Balanced, Profile::Throughput, Profile::Auto][chance.index(4)];
        let mut options = Options::of_profile(profile);
        options.hold_after = Millis(chance.within(100..5_000));
        options.seed = chance.number();
        if chance.per_mille(300) {
            options.max_size = 1 + chance.index(4) as u32;
        }
        let ledger = LedgerOptions {
            worker_lease: Millis::from_secs(10 + 10 * chance.within(0..6)),
            session_lease: Millis::from_secs(5 + 5 * chance.within(0..3)),
            take_deliveries_max: 1 + chance.index(20),
            tombstones_max: 1 + chance.index(20),
            recheck_max: 1 + chance.index(4),
            ..LedgerOptions::default()
        };
        let trouble_for = Duration::from_secs(chance.within(20..150));
        let span = trouble_for.as_millis() as u64;
        let orders = (0..4 + chance.within(0..12)).map(|number| order(&chance, number, span)).collect();
        let rates = rates(&chance);
        Self { seed, servers, workers, orders, rates, troubles, trouble_for, options, ledger }
    }

    /// Whether what a machine runs may be measured against the leases: a clock that jumps ends them early.
    pub(crate) fn is_strict(&self) -> bool {
        !self.troubles.contains(&Trouble::ClockJumps)
    }
}

fn rates(chance: &Chance) -> Rates {
    let some = |of_mille: u64, max: u64| if chance.per_mille(of_mille) { chance.within(1..max + 1) } else { 0 };
    Rates {
        latency_millis_max: [2, 10, 100, 1_000][chance.index(4)],
        late_millis_max: [50, 1_000, 10_000, 30_000][chance.index(4)],
        never_arrives: some(400, 30),
        arrives_late: some(400, 30),
        answer_lost: some(400, 50),
        doubled: some(400, 50),
        refused: some(300, 30),
        store_dies: some(300, 5),
        hint_lost: some(400, 300),
        hint_doubled: some(300, 300),
        cut: some(500, 20),
        stall: some(300, 10),
    }
}

fn worker(chance: &Chance, number: u64) -> Worker {
    // CPU work never goes to GPU workers: the first is for it.
    let gpus =
        if number > 0 && chance.per_mille(300) { vec!["H100".to_owned(); 1 + chance.index(3)] } else { Vec::new() };
    Worker {
        id: WorkerId::new(&format!("worker-{number}")).expect("a good name"),
        pool: PoolName::new(["cpu", "mixed"][chance.index(2)]).expect("a good name"),
        labels: Default::default(),
        capacity: Capacity {
            cpu: CpuMilli(1_000 * chance.within(2..6)),
            memory: Bytes(chance.within(2..9) << 30),
            slots: 2 + chance.index(12) as u32,
            gpus,
        },
        notes: Vec::new(),
    }
}

fn order(chance: &Chance, number: u64, span: u64) -> Order {
    let client_key = chance.per_mille(800).then(|| format!("key-{number}"));
    let body = if chance.per_mille(500) {
        SubmissionBody::Count { spec: spec(chance), count: chance.within(1..25) }
    } else {
        SubmissionBody::List((0..chance.within(1..10)).map(|_| spec(chance)).collect())
    };
    let submission =
        body.check(TenantName::default(), client_key, None, Default::default()).expect("a good submission");
    let stop_after = chance.per_mille(200).then(|| (chance.millis(0..20_000), chance.per_mille(500)));
    let again_after = chance.per_mille(300).then(|| chance.millis(0..60_000));
    Order { after: chance.millis(0..span), submission, stop_after, again_after }
}

fn spec(chance: &Chance) -> Spec {
    let span = [0, 20, 500, 5_000, 40_000][chance.index(5)];
    let span = chance.within(0..span + 1).to_string();
    let code = if chance.per_mille(800) { "0" } else { "3" };
    let mut spec = Spec::of_command("simulated", &[&span, code]);
    spec.resources = Resources {
        cpu: CpuMilli(250 * chance.within(0..8)),
        memory: Bytes(chance.within(0..2) << 30),
        gpu: chance.per_mille(100).then(|| gpu(chance)),
    };
    spec.priority = chance.within(0..3) as i8 - 1;
    spec.affinity = chance.per_mille(200).then(|| "warm".to_owned());
    spec.stop_grace = Millis(chance.within(0..2_000));
    spec.retry = match chance.index(4) {
        0 => Retry::Never,
        1 => Retry::UpTo {
            attempts_max: 2 + chance.index(4) as u32,
            backoff: Millis(chance.within(0..3_000)),
            backoff_max: Millis(10_000),
            on: vec![RetryOn::ExitNonzero, RetryOn::Failed, RetryOn::Lost],
        },
        _ => Retry::OnLost,
    };
    // What may find no room ends by itself.
    let scarce = spec.resources.gpu.is_some() || spec.resources.cpu > CpuMilli(1_000);
    if scarce || chance.per_mille(100) {
        spec.max_wait = Some(Millis(chance.within(1_000..60_000)));
    }
    if chance.per_mille(30) {
        spec.resources.cpu = CpuMilli(1_000_000);
        spec.on_unplaceable = OnUnplaceable::Fail;
        spec.max_wait = Some(Millis(20_000));
    }
    spec
}

fn gpu(chance: &Chance) -> GpuRequest {
    let kinds = GpuKinds::Ordered(vec!["H100".to_owned()]);
    if chance.per_mille(500) {
        GpuRequest { kinds, count: 1, milli: GpuMilli(500) }
    } else {
        GpuRequest { kinds, count: 1 + chance.index(2) as u16, milli: GPU_WHOLE }
    }
}
