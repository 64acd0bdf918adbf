//! A store on the bench: short ways to say the usual things to it. After each operation the
//! laws are checked by the store's own audit. Knows no cases.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_ledger::{
    Answer, Attach, AttachRefusal, AttachReply, Audit, Claim, ClaimReply, Commit, CommitReply, ContainerPage,
    ContainerRecord, Event, EventPage, GroupRecord, Heartbeat, InventoryItem, LedgerOptions, ListQuery, OpenSession,
    Order, PrefixMatch, Progress, Query, Report, Request, Submit, SubmitRefusal, SubmitReply, Sweep, SweepReply,
    TakeFrom, Verdict, WorkerMessage, WorkerRecord,
};
use volley_model::{
    Attempt, ClaimNumber, Claimed, CommitNumber, ContainerId, ContainerState, DeliveryNumber, Epoch, EventNumber,
    FleetVersion, GroupId, Millis, Nonce, Outcome, Placement, Refusal, Run, SessionId, Spec, Submission, TenantName,
    Timestamp, Worker,
};

use crate::subject::Subject;

/// A store, its clock and the numbers used so far.
pub struct Bench {
    pub subject: Subject,
    pub now: Timestamp,
    numbers: u64,
    claims: BTreeMap<SessionId, u64>,
    commits: BTreeMap<SessionId, u64>,
    known: BTreeMap<SessionId, FleetVersion>,
}

/// A worker as its agent knows it.
#[derive(Debug, Clone)]
pub struct Agent {
    pub worker: Worker,
    pub session: SessionId,
    pub stream: Nonce,
    pub epoch: Epoch,
}

impl Bench {
    pub fn new(open: fn(LedgerOptions) -> Subject, options: LedgerOptions) -> Self {
        Self {
            subject: open(options),
            now: Timestamp(1_000_000),
            numbers: 0,
            claims: BTreeMap::new(),
            commits: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    pub fn call<R: Request>(&mut self, request: R) -> R::Reply {
        let reply = self.subject.apply(self.now, request.into_operation());
        assert_eq!(self.audit().violations, Vec::<String>::new());
        R::from_reply(reply).expect("an operation is answered with its own reply")
    }

    /// The same request twice: the second changes nothing (law 7).
    pub fn twice<R: Request + Clone>(&mut self, request: R) -> R::Reply {
        self.call(request.clone());
        let before = self.audit();
        let reply = self.call(request);
        assert_eq!(self.audit(), before, "law 7: twice is once");
        reply
    }

    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn later(&mut self, span: Millis) {
        self.now = self.now.after(span);
    }

    /// Time goes by with a sweep each second, and heartbeats of these.
    pub fn pass(&mut self, span: Millis, alive: &[&Agent]) -> Vec<SweepReply> {
        let mut replies = Vec::new();
        for _ in 0..span.0 / 1000 {
            self.later(Millis(1000));
            for agent in alive {
                self.heartbeat(agent);
            }
            replies.push(self.sweep());
        }
        replies
    }

    pub fn sweep(&mut self) -> SweepReply {
        self.call(Sweep { session: None, items_max: 1000 })
    }

    /// A new session: an old one may have ended with the store's process.
    pub fn session(&mut self) -> SessionId {
        let session = SessionId(self.number());
        self.call(OpenSession { session, address: "here".to_owned() });
        session
    }

    pub fn submit(&mut self, spec: &Spec, count: u32) -> GroupId {
        let submission = submission(&[(spec, count)], None);
        self.accepted(submission).expect("nothing speaks against it").group
    }

    pub fn accepted(&mut self, submission: Submission) -> Result<SubmitReply, SubmitRefusal> {
        let body_digest = submission.digest();
        let group = GroupId(self.number());
        self.call(Submit { group, submission, body_digest })
    }

    /// A worker that has not attached yet.
    pub fn worker_to_be(&mut self, worker: Worker) -> Agent {
        let session = self.session();
        Agent { worker, session, stream: Nonce(0), epoch: Epoch { number: 0, nonce: Nonce(0) } }
    }

    pub fn agent(&mut self, worker: Worker) -> Agent {
        let mut agent = self.worker_to_be(worker);
        self.attach_with(&mut agent, None, Vec::new()).expect("nothing speaks against it");
        agent
    }

    /// A new stream from a new server, in the epoch that the agent knows.
    pub fn attach(&mut self, agent: &mut Agent, inventory: Vec<InventoryItem>) -> AttachReply {
        agent.session = self.session();
        let epoch = Some(agent.epoch);
        self.attach_with(agent, epoch, inventory).expect("nothing speaks against it")
    }

    pub fn attach_with(
        &mut self,
        agent: &mut Agent,
        epoch: Option<Epoch>,
        inventory: Vec<InventoryItem>,
    ) -> Result<AttachReply, AttachRefusal> {
        let op = self.attach_op(agent, epoch, inventory);
        let stream = op.stream;
        let reply = self.call(op)?;
        (agent.stream, agent.epoch) = (stream, reply.epoch);
        Ok(reply)
    }

    /// A new stream at the agent's server, as it is opened now.
    pub fn attach_op(&mut self, agent: &Agent, epoch: Option<Epoch>, inventory: Vec<InventoryItem>) -> Attach {
        let (stream, epoch_nonce) = (Nonce(self.number()), Nonce(self.number()));
        let (session, worker) = (agent.session, agent.worker.clone());
        let replaces = match self.subject.read(Query::Servers { worker: Some(worker.id.clone()) }) {
            Answer::Servers(servers) => servers.holder.map(|(_, stream)| stream),
            other => panic!("another answer: {other:?}"),
        };
        Attach { session, worker, stream, replaces, epoch, epoch_nonce, inventory, affinities: Vec::new() }
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

    pub fn commit_op(&mut self, session: SessionId) -> Commit {
        let number = self.commits.entry(session).or_default();
        *number += 1;
        Commit { session, number: CommitNumber(*number), ..Commit::default() }
    }

    pub fn commit(&mut self, session: SessionId, placements: Vec<Placement>) -> CommitReply {
        let op = Commit { placements, ..self.commit_op(session) };
        self.call(op).expect("the session is open")
    }

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

    /// Claims the next ones in a new session and places them on a worker.
    pub fn place(&mut self, agent: &Agent, count: u32) -> Vec<(ContainerId, Result<Attempt, Refusal>)> {
        let session = self.session();
        let claimed = self.claim(session, count).containers;
        let placements = claimed.iter().map(|claimed| self.placement(claimed, agent)).collect();
        let placed = self.commit(session, placements).placements;
        claimed.iter().map(|claimed| claimed.container).zip(placed).collect()
    }

    /// Submits, claims and places; gives the attempts.
    pub fn assign(&mut self, agent: &Agent, spec: &Spec, count: u32) -> Vec<(ContainerId, Attempt)> {
        self.submit(spec, count);
        let placed = self.place(agent, count);
        placed.into_iter().map(|(id, attempt)| (id, attempt.expect("it fits"))).collect()
    }

    pub fn say(&mut self, agent: &Agent, what: (ContainerId, Attempt), progress: Progress) -> Verdict {
        let (worker, epoch, session) = (agent.worker.id.clone(), agent.epoch, agent.session);
        let message = WorkerMessage { worker, epoch, container: what.0, attempt: what.1, progress };
        self.twice_if_not_ended(Report { session, messages: vec![message] })
    }

    /// Of an end the second report is told to forget it; all others say the same twice.
    fn twice_if_not_ended(&mut self, report: Report) -> Verdict {
        let ended = matches!(report.messages[0].progress, Progress::Ended(_));
        if ended { self.call(report)[0] } else { self.twice(report)[0] }
    }

    pub fn audit(&mut self) -> Audit {
        match self.subject.read(Query::Audit) {
            Answer::Audit(audit) => *audit,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn container(&mut self, id: ContainerId) -> Option<ContainerRecord> {
        match self.subject.read(Query::Container(id, None)) {
            Answer::Container(record) => record.map(|record| *record),
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn state(&mut self, id: ContainerId) -> ContainerState {
        self.container(id).expect("there is such a container").state
    }

    pub fn outcome(&mut self, id: ContainerId) -> Option<Outcome> {
        self.container(id).expect("there is such a container").outcome
    }

    pub fn group(&mut self, id: GroupId) -> Option<GroupRecord> {
        match self.subject.read(Query::Group(id, None)) {
            Answer::Group(record) => record.map(|record| *record),
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn prefix(&mut self, text: &str) -> Vec<PrefixMatch> {
        match self.subject.read(Query::Prefix(text.to_owned(), None)) {
            Answer::Prefix(found) => found,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn list(&mut self, query: ListQuery) -> ContainerPage {
        match self.subject.read(Query::List(query)) {
            Answer::List(page) => page,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn workers(&mut self) -> Vec<WorkerRecord> {
        match self.subject.read(Query::Workers { after: None, max: 10_000 }) {
            Answer::Workers { workers, more: false } => workers,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn worker(&mut self, agent: &Agent) -> WorkerRecord {
        let found = self.workers().into_iter().find(|record| record.view.worker.id == agent.worker.id);
        found.expect("the worker is known")
    }

    pub fn pools(&mut self) -> Vec<volley_model::Pool> {
        match self.subject.read(Query::Pools) {
            Answer::Pools(pools) => pools,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn event_page(&mut self, after: u64, max: u32) -> EventPage {
        match self.subject.read(Query::Events { after: EventNumber(after), max, scope: None }) {
            Answer::Events(page) => page,
            other => panic!("another answer: {other:?}"),
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        self.event_page(0, 10_000).events
    }

    pub fn orders(&mut self, agent: &Agent, after: u64) -> Vec<(u64, Order)> {
        let (worker, stream) = (agent.worker.id.clone(), agent.stream);
        let asked = vec![TakeFrom { worker, stream, after: DeliveryNumber(after) }];
        match self.subject.read(Query::Take(asked)) {
            Answer::Take(mut taken) => taken.remove(0).deliveries.into_iter().map(|d| (d.number.0, d.order)).collect(),
            other => panic!("another answer: {other:?}"),
        }
    }
}

/// A submission of the default tenant.
pub fn submission(runs: &[(&Spec, u32)], key: Option<&str>) -> Submission {
    let runs = runs.iter().map(|(spec, count)| Run { spec: Arc::new((*spec).clone()), count: *count }).collect();
    Submission {
        tenant: TenantName::default(),
        client_key: key.map(str::to_owned),
        name: Some("named".to_owned()),
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        runs,
    }
}
