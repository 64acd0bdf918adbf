//! A cell in a test: a ledger, its store and a clock, and short ways to say the usual things.
//! After each operation it checks the laws and that the store knows all that is durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_ledger::{
    Attach, AttachRefusal, AttachReply, ChangeSet, Claim, ClaimReply, Commit, CommitReply, Found, Heartbeat,
    InventoryItem, Ledger, LedgerOptions, OpenSession, Operation, Order, Progress, Reply, Report, Request, Stop,
    StopReply, StopTarget, Submit, SubmitRefusal, SubmitReply, Sweep, SweepReply, TakeFrom, Verdict, WorkerMessage,
    WorkerRecord,
};
use volley_model::{
    Attempt, Bytes, Capacity, ClaimNumber, Claimed, CommitNumber, ContainerId, ContainerState, CpuMilli,
    DeliveryNumber, Epoch, FleetVersion, GroupId, Millis, Nonce, Outcome, Placement, PoolName, Refusal, Run, SessionId,
    Spec, Submission, TenantName, Timestamp, Worker, WorkerId,
};

use crate::disk::{Disk, comparable};

/// Exit code 0.
pub const DONE: Outcome = Outcome::Exited { code: 0, signal: None };

pub fn secs(seconds: u64) -> Millis {
    Millis::from_secs(seconds)
}

pub struct Cell {
    pub ledger: Ledger,
    pub disk: Disk,
    pub now: Timestamp,
    /// Of the last operation.
    pub last: ChangeSet,
    numbers: u64,
    claims: BTreeMap<SessionId, u64>,
    commits: BTreeMap<SessionId, u64>,
    /// What each session knows of the fleet.
    known: BTreeMap<SessionId, FleetVersion>,
    /// What came to pass so far, when someone wants to play it again elsewhere.
    pub trace: Option<Vec<Traced>>,
}

/// An operation with its time, or a restart.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "the stores' tests play it again")]
pub enum Traced {
    Applied(Timestamp, Box<Operation>),
    Restarted,
}

/// A worker as its agent knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub session: SessionId,
    pub worker: Worker,
    pub stream: Nonce,
    pub epoch: Epoch,
}

impl Cell {
    pub fn new() -> Self {
        Self::with(LedgerOptions::default())
    }

    pub fn with(options: LedgerOptions) -> Self {
        Self {
            ledger: Ledger::new(options),
            disk: Disk::default(),
            now: Timestamp(1_000_000),
            last: ChangeSet::default(),
            numbers: 0,
            claims: BTreeMap::new(),
            commits: BTreeMap::new(),
            known: BTreeMap::new(),
            trace: None,
        }
    }

    /// One operation, then all laws.
    pub fn call<R: Request>(&mut self, request: R) -> R::Reply {
        let reply = self.unchecked(request);
        self.check();
        reply
    }

    /// One operation. For states too large to be checked after each one.
    pub fn unchecked<R: Request>(&mut self, request: R) -> R::Reply {
        let (reply, set) = self.apply(request.into_operation());
        self.last = set;
        R::from_reply(reply).expect("an operation is answered with its own reply")
    }

    /// One operation as it is, with what it changed.
    pub fn apply(&mut self, operation: Operation) -> (Reply, ChangeSet) {
        let asked = self.trace.is_some().then(|| operation.clone());
        let (reply, set) = self.ledger.apply(self.now, operation);
        self.disk.apply(&set, self.ledger.counters());
        if let (Some(trace), Some(operation)) = (&mut self.trace, asked) {
            trace.push(Traced::Applied(self.now, Box::new(operation)));
        }
        (reply, set)
    }

    pub fn check(&self) {
        let (audit, overview) = (self.ledger.audit(), self.ledger.overview(None));
        assert_eq!(audit.violations, Vec::<String>::new());
        for (state, count) in overview.containers {
            assert_eq!(count, audit.count(state), "the overview counts what is {state} as the audit does");
        }
        assert_eq!(comparable(self.disk.stored()), comparable(self.ledger.stored()), "the change sets say it all");
    }

    pub fn later(&mut self, span: Millis) {
        self.now = self.now.after(span);
    }

    /// The store is killed and comes back with what it had written.
    pub fn restart(&mut self) {
        let options = self.ledger.options().clone();
        self.ledger = Ledger::restore(options, self.disk.stored()).expect("what was written is whole");
        self.known.clear();
        self.trace.iter_mut().for_each(|trace| trace.push(Traced::Restarted));
        self.check();
    }

    /// A number that was not used before.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn session(&mut self) -> SessionId {
        let session = SessionId(self.number());
        self.call(OpenSession { session, address: "here".to_owned() });
        session
    }

    pub fn submit(&mut self, spec: &Spec, count: u32) -> GroupId {
        self.submit_runs(&[(spec, count)])
    }

    pub fn submit_runs(&mut self, runs: &[(&Spec, u32)]) -> GroupId {
        let group = GroupId(self.number());
        let reply = self.call(Submit { group, submission: submission(runs, None), body_digest: 0 });
        assert_eq!(reply.map(|r| r.group), Ok(group));
        group
    }

    pub fn submit_key(&mut self, spec: &Spec, key: &str, body_digest: u128) -> Result<SubmitReply, SubmitRefusal> {
        let group = GroupId(self.number());
        self.call(Submit { group, submission: submission(&[(spec, 3)], Some(key)), body_digest })
    }

    /// A worker of so many slots and cores.
    pub fn agent(&mut self, session: SessionId, name: &str, slots: u32) -> Agent {
        let worker = worker(name, slots);
        let mut agent = Agent { session, worker, stream: Nonce(0), epoch: Epoch { number: 0, nonce: Nonce(0) } };
        let reply = self.attach_with(&mut agent, None, Vec::new()).expect("nothing speaks against it");
        assert_eq!(reply.inventory, []);
        agent
    }

    /// Attaches with a new stream, in the epoch that the agent knows.
    pub fn attach(&mut self, agent: &mut Agent, inventory: Vec<InventoryItem>) -> Result<AttachReply, AttachRefusal> {
        let epoch = Some(agent.epoch);
        self.attach_with(agent, epoch, inventory)
    }

    pub fn attach_with(
        &mut self,
        agent: &mut Agent,
        epoch: Option<Epoch>,
        inventory: Vec<InventoryItem>,
    ) -> Result<AttachReply, AttachRefusal> {
        let op = self.attach_op(agent, epoch, inventory);
        agent.stream = op.stream;
        let reply = self.call(op)?;
        agent.epoch = reply.epoch;
        Ok(reply)
    }

    pub fn attach_op(&mut self, agent: &Agent, epoch: Option<Epoch>, inventory: Vec<InventoryItem>) -> Attach {
        Attach {
            session: agent.session,
            worker: agent.worker.clone(),
            stream: Nonce(self.number()),
            replaces: self.ledger.servers(Some(&agent.worker.id)).holder.map(|(_, stream)| stream),
            epoch,
            epoch_nonce: Nonce(self.number()),
            inventory,
            affinities: Vec::new(),
        }
    }

    pub fn heartbeat(&mut self, agent: &Agent) -> bool {
        let workers = vec![(agent.worker.id.clone(), agent.stream, agent.epoch)];
        self.call(Heartbeat { session: agent.session, workers }).workers[0]
    }

    pub fn claim_op(&mut self, session: SessionId, containers_max: u32) -> Claim {
        let number = self.claims.entry(session).or_default();
        *number += 1;
        let known = self.known.get(&session).copied().unwrap_or_default();
        Claim { session, number: ClaimNumber(*number), containers_max, known, changes_max: 1000 }
    }

    pub fn claim(&mut self, session: SessionId, containers_max: u32) -> ClaimReply {
        let op = self.claim_op(session, containers_max);
        let reply = self.call(op).expect("the session is open");
        self.known.insert(session, reply.fleet.version);
        reply
    }

    /// Claims and gives the containers' ids.
    pub fn claim_ids(&mut self, session: SessionId, containers_max: u32) -> Vec<ContainerId> {
        self.claim(session, containers_max).containers.iter().map(|c| c.container).collect()
    }

    pub fn commit_op(&mut self, session: SessionId) -> Commit {
        let number = self.commits.entry(session).or_default();
        *number += 1;
        Commit { session, number: CommitNumber(*number), ..Commit::default() }
    }

    /// A placement that is right at present, without GPUs.
    pub fn placement(&mut self, claimed: &Claimed, agent: &Agent) -> Placement {
        let view = self.worker(agent).view;
        Placement {
            container: claimed.container,
            claim: claimed.claim,
            worker: view.worker.id.clone(),
            epoch: view.epoch,
            revision: view.revision,
            gpus: Vec::new(),
            nonce: Nonce(self.number()),
        }
    }

    pub fn commit(&mut self, session: SessionId, placements: Vec<Placement>) -> CommitReply {
        let op = Commit { placements, ..self.commit_op(session) };
        self.call(op).expect("the session is open")
    }

    /// Places what was claimed on one worker.
    pub fn place(&mut self, agent: &Agent, claimed: &[Claimed]) -> Vec<Result<Attempt, Refusal>> {
        let placements = claimed.iter().map(|claimed| self.placement(claimed, agent)).collect();
        self.commit(agent.session, placements).placements
    }

    /// Submits, claims and places on a worker; gives the attempts.
    pub fn assign(&mut self, agent: &Agent, spec: &Spec, count: u32) -> Vec<(ContainerId, Attempt)> {
        self.submit(spec, count);
        self.assign_waiting(agent, count)
    }

    /// Claims the next ones and places them on a worker.
    pub fn assign_waiting(&mut self, agent: &Agent, count: u32) -> Vec<(ContainerId, Attempt)> {
        let claimed = self.claim(agent.session, count).containers;
        let placed = self.place(agent, &claimed);
        claimed.iter().zip(placed).map(|(claimed, placed)| (claimed.container, placed.expect("it fits"))).collect()
    }

    pub fn say(&mut self, agent: &Agent, what: (ContainerId, Attempt), progress: Progress) -> Verdict {
        self.call(said(agent, what, progress))[0]
    }

    pub fn worker(&self, agent: &Agent) -> WorkerRecord {
        let found = self.ledger.workers().into_iter().find(|record| record.view.worker.id == agent.worker.id);
        found.expect("the worker is known")
    }

    pub fn state(&self, id: ContainerId) -> ContainerState {
        match self.ledger.container(id, None).expect("there is such a container") {
            Found::Live(record) => record.state,
            Found::Finished(_) => ContainerState::Finished,
        }
    }

    /// How a container ended; `None` while it is live.
    pub fn outcome(&self, id: ContainerId) -> Option<Outcome> {
        assert_eq!(self.disk.finished.contains_key(&id), self.state(id) == ContainerState::Finished);
        self.disk.finished.get(&id).map(|finished| finished.outcome.clone())
    }

    /// What the worker's stream has not been handed yet, from the start of the stream.
    pub fn orders(&self, agent: &Agent) -> Vec<Order> {
        let from = TakeFrom { worker: agent.worker.id.clone(), stream: agent.stream, after: DeliveryNumber(0) };
        let taken = self.ledger.take(&[from]).remove(0);
        taken.deliveries.into_iter().map(|delivery| delivery.order).collect()
    }

    pub fn stop(&mut self, target: StopTarget, force: bool) -> StopReply {
        self.call(Stop { target, tenant: Some(TenantName::default()), force }).expect("there is such a one")
    }

    /// As one of a tenant, or as an operator.
    pub fn stop_of(&mut self, target: StopTarget, tenant: Option<TenantName>) -> StopReply {
        self.call(Stop { target, tenant, force: true }).expect("there is such a one")
    }

    pub fn sweep(&mut self) -> SweepReply {
        self.call(Sweep { session: None, items_max: 1000 })
    }

    /// Time goes by with a sweep each second, and heartbeats of these.
    pub fn pass(&mut self, span: Millis, alive: &[&Agent]) -> Vec<SweepReply> {
        let mut replies = Vec::new();
        for _ in 0..span.0 / 1000 {
            self.later(secs(1));
            for agent in alive {
                assert!(self.heartbeat(agent), "{} is alive", agent.worker.id);
            }
            replies.push(self.sweep());
        }
        replies
    }
}

/// A message of a worker about an attempt.
pub fn said(agent: &Agent, (container, attempt): (ContainerId, Attempt), progress: Progress) -> Report {
    let (worker, epoch) = (agent.worker.id.clone(), agent.epoch);
    Report { session: agent.session, messages: vec![WorkerMessage { worker, epoch, container, attempt, progress }] }
}

pub fn item((container, attempt): (ContainerId, Attempt), progress: Progress) -> InventoryItem {
    InventoryItem { container, attempt, progress }
}

/// A submission of the default tenant.
pub fn submission(runs: &[(&Spec, u32)], key: Option<&str>) -> Submission {
    let runs = runs.iter().map(|(spec, count)| Run { spec: Arc::new((*spec).clone()), count: *count }).collect();
    Submission {
        tenant: TenantName::default(),
        client_key: key.map(str::to_owned),
        name: None,
        labels: BTreeMap::new(),
        runs,
    }
}

/// A spec that takes one core.
pub fn spec() -> Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(1000);
    spec
}

/// So many slots and cores, plenty of memory.
pub fn worker(name: &str, slots: u32) -> Worker {
    Worker {
        id: WorkerId::new(name).expect("a good name"),
        pool: PoolName::default(),
        labels: BTreeMap::new(),
        capacity: Capacity { cpu: CpuMilli(1000 * u64::from(slots)), memory: Bytes(1 << 40), slots, gpus: Vec::new() },
        notes: Vec::new(),
    }
}
