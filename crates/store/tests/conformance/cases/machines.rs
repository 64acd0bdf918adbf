//! Cases of bought machines: who may buy, what is bought once, and how each comes to an end.

use std::collections::BTreeMap;

use volley_ledger::{
    Answer, ApplyPool, ApplyPoolRefusal, AttachRefusal, Commit, LeadScaling, LedgerOptions, MachineSaid, NewMachine,
    NoteMachines, OpenSession, Progress, Provision, ProvisionRefusal, Query, RemovePool, RemovePoolRefusal, Retire,
    ScaleRefusal, Schedulable, SetSchedulable,
};
use volley_model::{
    BlockedMark, Cost, CpuMilli, Elastic, Machine, MinFree, Outcome, Pool, PoolName, PoolVersion, ProvisionedMachine,
    ProvisionerKind, RetireCause, Retry, ScaleState, SessionId, Spec, Stage, WaitReason, WorkerId, WorkerStatus,
};

use super::{Open, bench};
use crate::bench::Bench;
use crate::cell::{secs, worker};

/// Of up to four machines, two on their way, three a minute.
fn pool() -> Pool {
    let elastic = Elastic {
        provisioner: ProvisionerKind::Process,
        options: BTreeMap::new(),
        machine: Machine { capacity: worker("m", 4).capacity, labels: BTreeMap::new() },
        min: 0,
        max: 4,
        min_free: MinFree::default(),
        cost_per_hour: Cost(7),
        boot_time: secs(1),
        boot_limit: secs(100),
        idle_timeout: secs(60),
        fallback_after: secs(1),
        in_flight_max: 2,
        per_minute_max: 3,
    };
    Pool { elastic: Some(elastic), ..Pool::with_defaults(PoolName::new("p").unwrap()) }
}

/// A leader and its pool.
struct Leader {
    session: SessionId,
    term: u64,
    version: PoolVersion,
}

fn leader(bench: &mut Bench) -> Leader {
    let version = bench.call(ApplyPool { pool: pool(), expected: None, renew: false }).unwrap();
    let session = SessionId(bench.number());
    bench.call(OpenSession { session, address: String::new() });
    let term = bench.call(LeadScaling { session }).unwrap().term;
    Leader { session, term, version }
}

impl Leader {
    /// Leads again: a store that was opened again has forgotten who did.
    fn again(&mut self, bench: &mut Bench) {
        bench.call(OpenSession { session: self.session, address: String::new() });
        self.term = bench.call(LeadScaling { session: self.session }).unwrap().term;
    }

    fn provision(&mut self, bench: &mut Bench, ids: &[&str]) -> Vec<Result<(), ProvisionRefusal>> {
        self.again(bench);
        let pool = PoolName::new("p").unwrap();
        let machine = |id: &&str| NewMachine { worker: id_of(id), pool: pool.clone(), pool_version: self.version };
        let machines = ids.iter().map(machine).collect();
        bench.call(Provision { session: self.session, term: self.term, machines }).unwrap()
    }

    fn note(&mut self, bench: &mut Bench, id: &str, said: MachineSaid) -> bool {
        self.again(bench);
        let notes = vec![(id_of(id), said)];
        bench.call(NoteMachines { session: self.session, term: self.term, notes, jitter: 1_000 }).unwrap()[0]
    }

    fn retire(&mut self, bench: &mut Bench, id: &str, why: RetireCause) -> bool {
        self.again(bench);
        let machines = vec![(id_of(id), why)];
        bench.call(Retire { session: self.session, term: self.term, machines, jitter: 1_000 }).unwrap()[0]
    }
}

fn id_of(id: &str) -> WorkerId {
    WorkerId::new(id).unwrap()
}

fn state(bench: &mut Bench) -> ScaleState {
    match bench.subject.read(Query::Scale) {
        Answer::Scale(state) => *state,
        other => panic!("another answer: {other:?}"),
    }
}

fn machine(bench: &mut Bench, id: &str) -> Option<ProvisionedMachine> {
    state(bench).machines.into_iter().find(|machine| machine.record.worker == id_of(id))
}

fn stage(bench: &mut Bench, id: &str) -> Option<Stage> {
    machine(bench, id).map(|machine| machine.record.stage)
}

/// The worker that a machine registers.
fn offer(id: &str) -> volley_model::Worker {
    volley_model::Worker { pool: PoolName::new("p").unwrap(), ..worker(id, 4) }
}

pub fn one_session_leads(open: Open) {
    let mut bench = bench(open);
    let mut first = leader(&mut bench);
    first.again(&mut bench);
    let other = SessionId(bench.number());
    bench.call(OpenSession { session: other, address: String::new() });
    let refused = bench.call(LeadScaling { session: other }).unwrap_err();
    let ScaleRefusal::NotLeading { lead: Some(lead) } = refused else { panic!("{refused:?}") };
    assert_eq!((lead.session, lead.term), (first.session, first.term));
    assert_eq!(bench.call(LeadScaling { session: SessionId(0) }), Err(ScaleRefusal::SessionEnded));
    bench.later(secs(10));
    let lead = bench.call(LeadScaling { session: other }).unwrap();
    assert!(lead.term > first.term);
    // What the first one had planned in its term comes late.
    let late = Provision { session: first.session, term: first.term, machines: Vec::new() };
    assert_eq!(bench.call(late), Err(ScaleRefusal::NotLeading { lead: Some(lead) }));
    bench.later(secs(10));
    first.again(&mut bench);
    let other_term = Provision { session: first.session, term: first.term + 1, machines: Vec::new() };
    assert!(matches!(bench.call(other_term), Err(ScaleRefusal::NotLeading { .. })), "of another term of its own");
}

pub fn buys_once_and_within_limits(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    assert_eq!(leader.provision(&mut bench, &["a", "b", "a"]), [Ok(()), Ok(()), Ok(())]);
    assert_eq!(state(&mut bench).machines.len(), 2);
    let in_flight = ProvisionRefusal::InFlight { limit: 2 };
    assert_eq!(leader.provision(&mut bench, &["c"]), [Err(in_flight)]);
    for id in ["a", "b"] {
        bench.agent(offer(id));
    }
    assert_eq!(leader.provision(&mut bench, &["c", "d"]), [Ok(()), Err(ProvisionRefusal::MinuteLimit { limit: 3 })]);
    bench.later(secs(61));
    assert_eq!(leader.provision(&mut bench, &["d", "e"]), [Ok(()), Err(ProvisionRefusal::AtMax { max: 4 })]);
    leader.version = PoolVersion(leader.version.0 - 1);
    assert_eq!(leader.provision(&mut bench, &["f"]), [Err(ProvisionRefusal::PoolChanged)]);
    let removed = bench.call(RemovePool { pool: PoolName::new("p").unwrap() });
    assert_eq!(removed, Err(RemovePoolRefusal::HasWorkers { workers: 2 }));
}

pub fn a_machine_becomes_its_worker(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    leader.provision(&mut bench, &["a"]).remove(0).unwrap();
    assert_eq!(stage(&mut bench, "a"), Some(Stage::Requested));
    assert!(leader.note(&mut bench, "a", MachineSaid::Created { handle: "i-1".to_owned() }));
    assert_eq!(stage(&mut bench, "a"), Some(Stage::Booting));
    // Its name is kept for its pool.
    let mut other = bench.worker_to_be(worker("a", 4));
    let refused = bench.attach_with(&mut other, None, Vec::new());
    assert_eq!(refused.unwrap_err(), AttachRefusal::NameInUse { worker: id_of("a") });
    bench.later(secs(8));
    let mut less = offer("a");
    less.capacity.cpu = CpuMilli(3_900);
    bench.agent(less.clone());
    let at = bench.now;
    let found = machine(&mut bench, "a").unwrap();
    assert_eq!((found.record.stage, found.record.handle.as_deref()), (Stage::Registered { at }, Some("i-1")));
    assert_eq!(found.worker.map(|worker| (worker.status, worker.containers)), Some((WorkerStatus::Ready, 0)));
    let standing = state(&mut bench).standings.remove(0);
    assert_eq!((standing.boot_time, standing.offered), (Some(secs(8)), Some(less.capacity)));
    assert!(!leader.note(&mut bench, "a", MachineSaid::Failed { reason: "late".to_owned() }), "it has come");
    assert!(!leader.note(&mut bench, "a", MachineSaid::Destroyed), "it was not to be destroyed");
}

pub fn a_machine_is_given_up_when_empty(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    leader.provision(&mut bench, &["a"]).remove(0).unwrap();
    let agent = bench.agent(offer("a"));
    let running = bench.assign(&agent, &Spec::of_command("true", &[]), 1).remove(0);
    assert!(!leader.retire(&mut bench, "a", RetireCause::Idle), "something runs there");
    assert!(leader.retire(&mut bench, "a", RetireCause::Drained));
    assert!(matches!(stage(&mut bench, "a"), Some(Stage::Draining { why: RetireCause::Drained, .. })));
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Draining);
    let open_it = SetSchedulable { worker: id_of("a"), to: Schedulable::Open };
    assert!(bench.call(open_it).is_err(), "it is leaving");
    bench.say(&agent, running, Progress::Ended(Outcome::Exited { code: 0, signal: None }));
    assert!(leader.retire(&mut bench, "a", RetireCause::Drained));
    assert!(matches!(stage(&mut bench, "a"), Some(Stage::Destroying { why: RetireCause::Drained, .. })));
    assert!(leader.note(&mut bench, "a", MachineSaid::Destroyed));
    assert_eq!(stage(&mut bench, "a"), None);
    assert_eq!(bench.workers().len(), 0, "the worker went with its machine");
}

pub fn a_machine_that_never_registers_is_destroyed(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    leader.provision(&mut bench, &["a"]).remove(0).unwrap();
    assert!(!leader.retire(&mut bench, "a", RetireCause::Idle), "it is on its way");
    assert!(leader.retire(&mut bench, "a", RetireCause::BootLimit));
    // It comes too late: nothing is placed on it.
    let agent = bench.agent(offer("a"));
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Draining);
    assert!(matches!(stage(&mut bench, "a"), Some(Stage::Destroying { why: RetireCause::BootLimit, .. })));
    let standing = state(&mut bench).standings.remove(0);
    assert_eq!(standing.failures, 1);
    assert!(standing.last_failure.unwrap().contains("did not register"));
    assert!(leader.note(&mut bench, "a", MachineSaid::Destroyed));
    assert_eq!((stage(&mut bench, "a"), bench.workers().len()), (None, 0));
}

pub fn a_failing_pool_waits_and_is_quarantined(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    let fail = || MachineSaid::Failed { reason: "no capacity in zone".to_owned() };
    for (round, wait) in [5, 10, 20, 40].into_iter().enumerate() {
        let ids = [format!("a{round}"), format!("b{round}")];
        assert_eq!(leader.provision(&mut bench, &[&ids[0], &ids[1]]), [Ok(()), Ok(())], "round {round}");
        // Bought together, failed together: once.
        assert!(leader.note(&mut bench, &ids[0], fail()));
        bench.later(volley_model::Millis(1));
        assert!(leader.note(&mut bench, &ids[1], fail()));
        let standing = state(&mut bench).standings.remove(0);
        assert_eq!((standing.failures, standing.quarantined), (round as u32 + 1, false));
        let refused = leader.provision(&mut bench, &["x"]).remove(0);
        assert!(matches!(refused, Err(ProvisionRefusal::Waits { .. })), "round {round}: {refused:?}");
        bench.later(secs(wait.max(61)));
    }
    leader.provision(&mut bench, &["z"]).remove(0).unwrap();
    leader.note(&mut bench, "z", fail());
    let standing = state(&mut bench).standings.remove(0);
    assert_eq!((standing.quarantined, standing.last_failure.as_deref()), (true, Some("no capacity in zone")));
    bench.later(secs(901));
    let one = ProvisionRefusal::InFlight { limit: 1 };
    assert_eq!(leader.provision(&mut bench, &["y", "x"]), [Ok(()), Err(one)], "one machine is tried");
    bench.agent(offer("y"));
    let standing = state(&mut bench).standings.remove(0);
    assert_eq!((standing.failures, standing.quarantined), (0, false), "and all is well again");
}

pub fn an_owner_ends_a_quarantine(open: Open) {
    let mut bench = bench(open);
    let mut leader = leader(&mut bench);
    leader.provision(&mut bench, &["a"]).remove(0).unwrap();
    leader.note(&mut bench, "a", MachineSaid::Failed { reason: "no".to_owned() });
    assert!(leader.provision(&mut bench, &["b"]).remove(0).is_err());
    leader.version = bench.twice(ApplyPool { pool: pool(), expected: Some(leader.version), renew: true }).unwrap();
    assert_eq!(leader.provision(&mut bench, &["b"]), [Ok(())]);
    let fixed = Pool::with_defaults(PoolName::new("p").unwrap());
    let refused = bench.call(ApplyPool { pool: fixed, expected: None, renew: false });
    assert_eq!(refused, Err(ApplyPoolRefusal::HasMachines { machines: 1 }));
}

pub fn a_worker_that_eats_containers_is_cordoned(open: Open) {
    let options = LedgerOptions { failing_specs_max: 3, ..LedgerOptions::default() };
    let mut bench = Bench::new(open, options);
    let agent = bench.agent(worker("w", 4));
    let run = |bench: &mut Bench, program: &str, end: Outcome| {
        let spec = Spec { retry: Retry::Never, ..Spec::of_command(program, &[]) };
        let what = bench.assign(&agent, &spec, 1).remove(0);
        bench.say(&agent, what, Progress::Ended(end));
    };
    let failed = || Outcome::Failed { reason: "no space left on device".to_owned() };
    // One spec that fails again and again is the spec's own fault; and so is an exit code.
    for _ in 0..5 {
        run(&mut bench, "same", failed());
    }
    run(&mut bench, "b", failed());
    run(&mut bench, "c", Outcome::Exited { code: 1, signal: None });
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Ready);
    for program in ["d", "e", "f"] {
        run(&mut bench, program, failed());
    }
    let record = bench.worker(&agent);
    assert_eq!(record.view.status, WorkerStatus::Cordoned);
    assert!(record.quarantine.unwrap().contains("no space left on device"));
    bench.call(SetSchedulable { worker: id_of("w"), to: Schedulable::Open }).unwrap();
    let record = bench.worker(&agent);
    assert_eq!((record.view.status, record.quarantine), (WorkerStatus::Ready, None));
}

pub fn tells_exact_demand(open: Open) {
    let options = LedgerOptions { demand_runs_max: 2, ..LedgerOptions::default() };
    let mut bench = Bench::new(open, options);
    for _ in 0..3 {
        bench.submit(&Spec::of_command("true", &[]), 5);
    }
    assert_eq!(state(&mut bench).demand, [], "nobody has looked at it");
    // Placed and refused, or not placed yet: what another server has claimed is planned by it.
    let other = bench.session();
    bench.claim(other, 4);
    let session = bench.session();
    let claim = bench.claim(session, 1);
    let reasons = vec![WaitReason::NoWorkers];
    let mark = BlockedMark { shape: claim.containers[0].shape, at: claim.fleet.version, reasons };
    let returned = vec![claim.containers[0].container];
    let op = Commit { blocked: vec![mark], returned, ..bench.commit_op(session) };
    bench.call(op).unwrap();
    // A mark is void when the store's process ends; then the shape is looked at first.
    let Some(demand) = state(&mut bench).demand.pop() else { return };
    let counts: Vec<u64> = demand.runs.iter().map(|(_, count)| *count).collect();
    assert_eq!((demand.count(), counts), (11, vec![1, 10]), "the rest is told in one");
}
