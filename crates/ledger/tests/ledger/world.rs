//! What a random sequence is played against: servers and workers that remember what they were
//! told, and expectations of each reply that are worked out from outside of the ledger.

use std::collections::{BTreeMap, BTreeSet};

use volley_ledger::{
    ApplyPool, Attach, Claim, ClaimReply, CloseSession, EventKind, Found, Heartbeat, InventoryItem, Ledger,
    LedgerOptions, OpenSession, Operation, Progress, RemovePool, Reply, Report, Request, Schedulable, SetSchedulable,
    Stop, StopTarget, Submit, SubmitRefusal, Sweep, Verdict, WorkerMessage,
};
use volley_model::{
    Attempt, Bytes, Capacity, ClaimNumber, Claimed, CommitNumber, ContainerId, ContainerState, CpuMilli, Epoch,
    FleetVersion, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, GroupId, Millis, Nonce, OnDisconnect, OnUnplaceable,
    Outcome, Pool, PoolName, Retry, RetryOn, SessionId, ShapeHash, Spec, TenantName, Timestamp, Worker, WorkerId,
};

use crate::cell::{Cell, secs, submission};
use crate::mirror::Mirror;
use crate::steps::{Known, Number, Said, Span, Step, Truth};

/// Terms so short and limits so tight that a sequence of a few dozen steps meets them.
fn options() -> LedgerOptions {
    LedgerOptions {
        key_retention: secs(300),
        backlog_max: 200,
        workers_max: 4,
        finished_containers_max: 40,
        finished_age_max: secs(250),
        events_max: 100,
        events_age_max: secs(250),
        lost_worker_age_max: secs(90),
        kept_attempt_age_max: secs(200),
        recheck_max: 2,
        claim_containers_max: 25,
        affinity_keys_max: 2,
        tombstones_max: 2,
        take_deliveries_max: 5,
        ..LedgerOptions::default()
    }
}

/// A server.
#[derive(Debug, Clone, Default)]
pub struct Server {
    pub claims: u64,
    pub commits: u64,
    pub last_claim: Option<Claim>,
    pub last_commit: Option<volley_ledger::Commit>,
    pub mirror: Mirror,
}

pub struct World {
    pub cell: Cell,
    pub servers: BTreeMap<SessionId, Server>,
    sessions: Vec<SessionId>,
    /// All claims ever, the newest last, and who claimed each container last.
    pub claims: Vec<Claimed>,
    pub owners: BTreeMap<ContainerId, (SessionId, ClaimNumber)>,
    /// Every epoch and stream a worker was ever given, the newest last.
    epochs: BTreeMap<WorkerId, Vec<(Epoch, Nonce, SessionId)>>,
    /// All attempts ever, with their worker.
    pub attempts: Vec<(WorkerId, ContainerId, Attempt)>,
    groups: Vec<(GroupId, u32)>,
    pub shapes: BTreeSet<ShapeHash>,
    keys: BTreeMap<(TenantName, String), (GroupId, u32, u128, Timestamp)>,
    accepted: u64,
    last: Option<Operation>,
    numbers: u64,
    /// What came to pass, and how often: a sequence that never gets anywhere proves nothing.
    pub tally: BTreeMap<String, u64>,
}

impl World {
    pub fn new() -> Self {
        Self {
            cell: Cell::with(options()),
            servers: BTreeMap::new(),
            sessions: Vec::new(),
            claims: Vec::new(),
            owners: BTreeMap::new(),
            epochs: BTreeMap::new(),
            attempts: Vec::new(),
            groups: Vec::new(),
            shapes: BTreeSet::new(),
            keys: BTreeMap::new(),
            accepted: 0,
            last: None,
            numbers: 100,
            tally: BTreeMap::new(),
        }
    }

    /// Takes one step, checks its reply and all laws, and says what happened.
    pub fn take(&mut self, step: &Step) -> String {
        self.cell.last = Default::default();
        let said = self.on_step(step);
        self.count_events();
        self.cell.check();
        assert_eq!(self.cell.ledger.audit().accepted, self.accepted, "law 3: what was acknowledged");
        format!("{step:?}: {said} {:?}", self.cell.last)
    }

    pub fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    fn count_events(&mut self) {
        for event in self.cell.last.events.clone() {
            match event.kind {
                EventKind::Container { outcome: Some(outcome), .. } => {
                    let words = format!("{outcome:?}");
                    self.count(format!("ended {}", words.split([' ', '{']).next().expect("a name")));
                }
                EventKind::Container { state, attempt, .. } => {
                    let again = if attempt > 1 { " again" } else { "" };
                    self.count(format!("{state}{again}"));
                }
                EventKind::Worker { status, .. } => self.count(format!("worker {status}")),
                EventKind::GroupAccepted { .. } => self.count("accepted"),
                EventKind::Pool { removed, .. } => self.count(if removed { "pool removed" } else { "pool" }),
            }
        }
    }

    /// The end of a sequence: sweeps come to an end, and a restart changes nothing that is durable.
    pub fn end(&mut self) {
        for _ in 0..2_000 {
            if !self.cell.call(Sweep { items_max: 10 }).more {
                self.on_restart();
                return;
            }
        }
        panic!("law 11: sweeps go on without end");
    }

    fn on_step(&mut self, step: &Step) -> String {
        match step {
            Step::Submit { runs, key, body, tenant, reuse_id } => self.on_submit(runs, *key, *body, *tenant, *reuse_id),
            Step::OpenSession(which) => self.on_open(*which),
            Step::CloseSession(which) => match self.session(*which) {
                Some(session) => format!("{:?}", self.call(CloseSession { session })),
                None => String::new(),
            },
            Step::Claim { session, number, max, changes_max, known } => {
                self.on_claim(*session, *number, (*max, *changes_max), *known)
            }
            Step::Commit { session, number, picks, marks } => self.on_commit(*session, *number, picks, marks),
            Step::Attach { worker, session, epoch, held, machine } => {
                self.on_attach(*worker, *session, *epoch, held, *machine)
            }
            Step::Heartbeat { session, workers } => self.on_heartbeat(*session, workers),
            Step::Report { session, messages } => self.on_report(*session, messages),
            Step::Stop { target, group, tenant, force } => self.on_stop(*target, *group, *tenant, *force),
            Step::Schedulable { worker, to } => self.on_schedulable(*worker, *to),
            Step::ApplyPool(which) => {
                let name = PoolName::new(&format!("pool{}", which % 3)).expect("a good name");
                let pool = Pool { priority: i16::from(*which), ..Pool::with_defaults(name) };
                format!("{:?}", self.call(ApplyPool { pool }))
            }
            Step::RemovePool(which) => {
                let pool = PoolName::new(&format!("pool{}", which % 3)).expect("a good name");
                format!("{:?}", self.call(RemovePool { pool }))
            }
            Step::Sweep { items_max } => {
                let reply = self.call(Sweep { items_max: u32::from(*items_max) });
                self.count(if reply.pruned > 0 { "pruned" } else { "swept" });
                self.count(if reply.sessions_ended > 0 { "session ended" } else { "swept" });
                assert!(reply.pruned <= u32::from(*items_max) && reply.expired <= 2 * u32::from(*items_max));
                format!("{reply:?}")
            }
            Step::Turn { max } => self.on_turn(*max),
            Step::Work { messages } => self.on_work(messages),
            Step::Beat => {
                self.beat(true);
                String::new()
            }
            Step::Return { worker, machine, forgets } => self.on_return(*worker, *machine, *forgets),
            Step::Again => self.on_again(),
            Step::Pass(span) => self.on_pass(*span),
            Step::Restart => {
                self.on_restart();
                String::new()
            }
        }
    }

    pub fn call<R: Request>(&mut self, request: R) -> R::Reply
    where
        R: Clone,
    {
        self.last = Some(request.clone().into_operation());
        self.cell.unchecked(request)
    }

    pub fn nonce(&mut self) -> Nonce {
        self.numbers += 1;
        Nonce(self.numbers)
    }

    /// One of the sessions there ever were; the newer ones more often.
    pub fn session(&self, which: u8) -> Option<SessionId> {
        let newest = self.sessions.len().checked_sub(1)?;
        let back = if which.is_multiple_of(4) { usize::from(which) % (newest + 1) } else { usize::from(which) % 2 };
        Some(self.sessions[newest - back.min(newest)])
    }

    fn on_open(&mut self, which: u8) -> String {
        let session = match self.session(which) {
            Some(session) if which.is_multiple_of(3) => session,
            _ => SessionId(self.nonce().0),
        };
        self.sessions.retain(|known| *known != session);
        self.sessions.push(session);
        let alive = self.is_alive(session);
        let server = self.servers.entry(session).or_default();
        if !alive {
            // It had ended: its numbers mean nothing any more.
            (server.last_claim, server.last_commit) = (None, None);
        }
        format!("{:?}", self.call(OpenSession { session, address: String::new() }))
    }

    pub fn is_alive(&self, session: SessionId) -> bool {
        let beat = Heartbeat { session, workers: Vec::new() };
        let reply = self.cell.ledger.clone().apply(self.cell.now, beat.into_operation()).0;
        matches!(reply, Reply::Heartbeat(reply) if reply.session_alive)
    }

    fn on_restart(&mut self) {
        let before = crate::disk::comparable(self.cell.ledger.stored());
        self.cell.restart();
        assert_eq!(crate::disk::comparable(self.cell.ledger.stored()), before, "a restart changes nothing durable");
        self.count("restart");
        // Their sessions ended; whoever opens one again begins anew.
        self.servers.clear();
        self.sessions.clear();
        self.last = None;
    }

    fn on_submit(&mut self, runs: &[(u8, u8)], key: Option<u8>, body: u8, tenant: u8, reuse_id: bool) -> String {
        let specs: Vec<(Spec, u32)> = runs.iter().map(|(which, count)| (spec(*which), u32::from(*count))).collect();
        let runs: Vec<(&Spec, u32)> = specs.iter().map(|(spec, count)| (spec, *count)).collect();
        let key = key.map(|key| format!("key{key}"));
        let mut submission = submission(&runs, key.as_deref());
        submission.tenant = tenant_of(tenant);
        let used = self.groups.last().filter(|_| reuse_id).map(|(group, _)| *group);
        let group = used.unwrap_or(GroupId(self.nonce().0));
        let count: u32 = runs.iter().map(|(_, count)| count).sum();
        let taken = self.cell.ledger.group(group).is_some();
        let waiting = self.cell.ledger.waiting();
        let known = key.clone().and_then(|key| self.keys.get(&(submission.tenant.clone(), key))).cloned();
        let tenant = submission.tenant.clone();
        // A group id that is used again must not be one that a key still names.
        if used.is_some() && !taken {
            return String::new();
        }
        let reply = self.call(Submit { group, submission, body_digest: u128::from(body) });
        let now = self.cell.ledger.counters().now;
        let kept = known.filter(|(.., at)| now < at.after(self.cell.ledger.options().key_retention));
        if let Err(refusal) = &reply {
            let words = format!("{refusal:?}");
            self.count(words.split([' ', '{']).next().expect("a name"));
        }
        match (&reply, kept) {
            (Ok(reply), Some((group, count, digest, _))) if digest == u128::from(body) => {
                assert_eq!((reply.group, reply.count, reply.repeated), (group, count, true), "law 6");
            }
            (Err(SubmitRefusal::KeyReused { group }), Some((of, _, digest, _))) => {
                assert!(digest != u128::from(body) && *group == of, "law 6");
            }
            (other, Some(_)) => panic!("law 6: the key is kept, and the reply is {other:?}"),
            (Ok(reply), None) if reply.repeated => {}
            (Ok(reply), None) => {
                assert_eq!((reply.group, reply.count, taken), (group, count, false));
                assert!(waiting + u64::from(count) <= 200);
                self.accepted += u64::from(count);
                self.groups.push((group, count));
                if let Some(key) = key {
                    self.keys.insert((tenant, key), (group, count, u128::from(body), now));
                }
            }
            (Err(SubmitRefusal::BacklogFull { .. }), None) => assert!(waiting + u64::from(count) > 200),
            (Err(SubmitRefusal::IdTaken), None) => assert!(taken),
            // Its retention is over and no sweep has come by yet.
            (Err(SubmitRefusal::KeyReused { .. }), None) => {}
        }
        format!("{reply:?}")
    }

    fn on_claim(&mut self, session: u8, number: Number, (max, changes_max): (u8, u8), known: Known) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let server = self.servers.get_mut(&session).expect("every session has a server");
        let repeated = server.last_claim.clone().filter(|_| matches!(number, Number::Last));
        if matches!(number, Number::Next) {
            server.claims += 1;
        }
        let version = match known {
            Known::Truth => server.mirror.version,
            Known::Nothing => FleetVersion(0),
            Known::Absurd => FleetVersion(u64::MAX),
        };
        let op = repeated.unwrap_or(Claim {
            session,
            number: ClaimNumber(server.claims - u64::from(matches!(number, Number::Older) && server.claims > 0)),
            containers_max: u32::from(max),
            known: version,
            changes_max: u32::from(changes_max),
        });
        match self.claim(op) {
            Some(reply) => format!("{reply:?}"),
            None => String::new(),
        }
    }

    /// A claim of a live session with all that changed.
    pub fn claim_now(&mut self, session: SessionId, max: u8) -> ClaimReply {
        let server = self.servers.get_mut(&session).expect("every session has a server");
        server.claims += 1;
        let (number, known) = (ClaimNumber(server.claims), server.mirror.version);
        let op = Claim { session, number, containers_max: u32::from(max), known, changes_max: 1_000 };
        self.claim(op).expect("the session is alive, the number new")
    }

    /// `None` for a refusal, and for a repeated one, whose reply is not news.
    fn claim(&mut self, op: Claim) -> Option<ClaimReply> {
        let (session, max) = (op.session, op.containers_max);
        let last = self.servers[&session].last_claim.as_ref().map(|last| last.number);
        let before = self.cell.ledger.audit();
        let claimed = self.call(op.clone()).ok()?;
        if last == Some(op.number) {
            let after = self.cell.ledger.audit();
            assert_eq!(before.claimed, after.claimed, "law 7: a repeated claim claims nothing more");
            return None;
        }
        assert_eq!(self.cell.last.changes, [], "a claim is volatile");
        assert!(claimed.containers.len() <= (max as usize).min(25));
        let order: Vec<_> = claimed.containers.iter().map(|c| (c.score, c.container.index)).collect();
        assert!(order.is_sorted(), "one order: {order:?}");
        for container in &claimed.containers {
            self.owners.insert(container.container, (session, container.claim));
            self.claims.push(container.clone());
        }
        self.shapes.extend(claimed.shapes.iter().map(|(hash, _)| *hash));
        if !claimed.recheck.is_empty() {
            self.count("recheck");
        }
        let server = self.servers.get_mut(&session).expect("seen above");
        let true_version = op.known == server.mirror.version;
        server.last_claim = Some(op);
        if true_version || claimed.fleet.reload {
            server.mirror.apply(&claimed.fleet);
            if !claimed.fleet.more {
                server.mirror.check(&self.cell.ledger);
            }
        }
        Some(claimed)
    }

    fn on_pass(&mut self, span: Span) -> String {
        let span = match span {
            Span::Millis(millis) => Millis(u64::from(millis)),
            Span::Seconds(seconds) => secs(u64::from(seconds)),
            Span::PastLease => secs(61),
            Span::PastRetention => secs(301),
            Span::SilentWorkers => return self.silence(secs(70), true),
            Span::Silence => return self.silence(secs(30), false),
        };
        self.cell.later(span);
        String::new()
    }

    /// Sweeps at their pace, while workers say nothing, and servers neither unless they are `beating`.
    fn silence(&mut self, span: Millis, beating: bool) -> String {
        let mut said = String::new();
        for _ in 0..span.0 / 5_000 {
            self.cell.later(secs(5));
            if beating {
                self.beat(false);
            }
            let reply = self.call(Sweep { items_max: 50 });
            self.cell.check();
            self.count_events();
            self.count(if reply.sessions_ended > 0 { "session ended" } else { "swept" });
            said += &format!("{reply:?}");
        }
        self.cell.last = Default::default();
        said
    }

    /// Live servers renew their leases, and those of the workers they hold.
    fn beat(&mut self, workers: bool) {
        for session in self.sessions.clone() {
            let mut beats = Vec::new();
            for (name, given) in self.epochs.iter().filter(|_| workers) {
                if let Some((epoch, stream, _)) = given.last().filter(|(_, _, of)| *of == session) {
                    beats.push((name.clone(), *stream, *epoch));
                }
            }
            self.call(Heartbeat { session, workers: beats });
        }
    }

    /// A session that is alive, opened now if there is none.
    pub fn live_session(&mut self) -> SessionId {
        match self.sessions.iter().rev().find(|session| self.is_alive(**session)) {
            Some(session) => *session,
            None => {
                self.on_open(1);
                *self.sessions.last().expect("opened now")
            }
        }
    }

    /// The attempts that live, as reads say.
    fn live_attempts(&self) -> Vec<(WorkerId, ContainerId, Attempt)> {
        self.attempts.iter().filter(|(worker, id, attempt)| self.is_bound(worker, *id, *attempt)).cloned().collect()
    }

    fn on_work(&mut self, said: &[(u8, Said)]) -> String {
        let live = self.live_attempts();
        let session = self.live_session();
        let epochs: BTreeMap<WorkerId, Epoch> =
            self.cell.ledger.workers().into_iter().map(|w| (w.view.worker.id.clone(), w.view.epoch)).collect();
        let message = |(which, said): &(u8, Said)| {
            let (worker, container, attempt) = live.get(usize::from(*which) % live.len().max(1))?.clone();
            Some(WorkerMessage { epoch: epochs[&worker], worker, container, attempt, progress: progress(*said) })
        };
        let messages: Vec<WorkerMessage> = said.iter().filter_map(message).collect();
        self.report(session, messages)
    }

    fn on_return(&mut self, which: u8, machine: u8, forgets: Option<u8>) -> String {
        let session = self.live_session();
        let name = worker(which, 0).id;
        let mut held: Vec<InventoryItem> = self
            .live_attempts()
            .into_iter()
            .filter(|(worker, ..)| *worker == name)
            .map(|(_, container, attempt)| InventoryItem { container, attempt, progress: Progress::Running })
            .collect();
        if let Some(which) = forgets.filter(|_| !held.is_empty()) {
            held.remove(usize::from(which) % held.len());
        }
        let epoch = self.registration(&name, Truth::Right).0;
        self.attach(session, worker(which, machine), epoch, held)
    }

    /// A worker's name and what it was given last, or before that, or never.
    fn registration(&mut self, name: &WorkerId, truth: Truth) -> (Option<Epoch>, Nonce, Option<SessionId>) {
        let forged = self.nonce();
        let given = self.epochs.get(name).map_or(&[][..], |given| &given[..]);
        let back = match truth {
            Truth::Right => 1,
            Truth::Older => 2,
            Truth::Absent => return (None, forged, None),
            Truth::Forged => return (Some(Epoch { number: 1, nonce: forged }), forged, None),
        };
        match given.len().checked_sub(back) {
            Some(at) => (Some(given[at].0), given[at].1, Some(given[at].2)),
            None => (None, forged, None),
        }
    }

    fn on_attach(&mut self, which: u8, session: u8, epoch: Truth, held: &[(u8, Said)], machine: u8) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let worker = worker(which, machine);
        let name = worker.id.clone();
        let epoch = self.registration(&name, epoch).0;
        let mut inventory = Vec::new();
        for (which, said) in held {
            if let Some((_, container, attempt)) = self.attempt(*which) {
                inventory.push(InventoryItem { container, attempt, progress: progress(*said) });
            }
        }
        self.attach(session, worker, epoch, inventory)
    }

    fn attach(
        &mut self,
        session: SessionId,
        worker: Worker,
        epoch: Option<Epoch>,
        inventory: Vec<InventoryItem>,
    ) -> String {
        let name = worker.id.clone();
        let (stream, epoch_nonce) = (self.nonce(), self.nonce());
        let known = self.cell.ledger.workers().iter().any(|w| w.view.worker.id == name);
        let full = self.cell.ledger.workers().len() >= 4;
        let op = Attach { session, worker, stream, epoch, epoch_nonce, inventory: inventory.clone() };
        let right: Vec<bool> = inventory.iter().map(|i| self.is_bound(&name, i.container, i.attempt)).collect();
        let reply = self.call(op);
        if let Err(refusal) = &reply {
            let words = format!("{refusal:?}");
            self.count(words.split([' ', '{']).next().expect("a name"));
        }
        if let Ok(reply) = &reply {
            assert!(known || !full, "the fleet is bounded");
            let mut named = BTreeSet::new();
            for ((item, right), verdict) in inventory.iter().zip(right).zip(&reply.inventory) {
                if named.insert((item.container, item.attempt)) {
                    assert_eq!(*verdict == Verdict::Keep, right, "{item:?} of {name}");
                    *self.tally.entry(format!("inventory {verdict:?}")).or_default() += 1;
                }
            }
            self.epochs.entry(name).or_default().push((reply.epoch, stream, session));
        }
        format!("{reply:?}")
    }

    fn on_heartbeat(&mut self, session: u8, workers: &[(u8, Truth)]) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let mut beats = Vec::new();
        for (which, truth) in workers {
            let name = worker(*which, 0).id;
            if let (Some(epoch), stream, _) = self.registration(&name, *truth) {
                beats.push((name, stream, epoch));
            }
        }
        let reply = self.call(Heartbeat { session, workers: beats });
        assert_eq!(self.cell.last.changes, [], "a heartbeat is volatile");
        format!("{reply:?}")
    }

    fn on_report(&mut self, session: u8, said: &[(u8, Said, Truth)]) -> String {
        let session = self.session(session).unwrap_or(SessionId(0));
        let mut messages = Vec::new();
        for (which, said, truth) in said {
            let Some((name, container, attempt)) = self.attempt(*which) else { continue };
            let Some(epoch) = self.registration(&name, *truth).0 else { continue };
            messages.push(WorkerMessage { worker: name, epoch, container, attempt, progress: progress(*said) });
        }
        self.report(session, messages)
    }

    fn report(&mut self, session: SessionId, messages: Vec<WorkerMessage>) -> String {
        let epoch_of = |world: &Self, name: &WorkerId| {
            world.cell.ledger.workers().into_iter().find(|w| w.view.worker.id == *name).map(|w| w.view.epoch)
        };
        let right: Vec<bool> = messages
            .iter()
            .map(|m| self.is_bound(&m.worker, m.container, m.attempt) && epoch_of(self, &m.worker) == Some(m.epoch))
            .collect();
        let verdicts = self.call(Report { session, messages: messages.clone() });
        assert_eq!(verdicts.len(), messages.len());
        let mut ended = BTreeSet::new();
        for ((message, right), verdict) in messages.iter().zip(right).zip(&verdicts) {
            let expected = right && !ended.contains(&message.container);
            assert_eq!(*verdict == Verdict::Keep, expected, "law 8: {message:?}");
            *self.tally.entry(format!("report {verdict:?}")).or_default() += 1;
            if expected && matches!(message.progress, Progress::Ended(_)) {
                ended.insert(message.container);
            }
        }
        format!("{verdicts:?}")
    }

    fn on_stop(&mut self, target: u8, whole: bool, tenant: u8, force: bool) -> String {
        let Some(newest) = self.groups.len().checked_sub(1) else { return String::new() };
        let (group, count) = self.groups[newest - usize::from(target) % (newest + 1).min(8)];
        let id = ContainerId { group, index: u32::from(target) % count };
        let target = if whole { StopTarget::Group(group) } else { StopTarget::Container(id) };
        let tenant = tenant_of(tenant);
        let finished = self.cell.ledger.audit().finished;
        let reply = self.call(Stop { target, tenant, force });
        if let Ok(reply) = &reply {
            assert_eq!(self.cell.ledger.audit().finished, finished + u64::from(reply.finished));
            let state = self.cell.state(id);
            assert!(matches!(state, ContainerState::Stopping | ContainerState::Finished), "{id} is {state}");
        } else {
            assert_eq!(self.cell.last.events, [], "law 12: nothing of another tenant is touched");
        }
        format!("{reply:?}")
    }

    fn on_schedulable(&mut self, which: u8, to: u8) -> String {
        let to = match to {
            0 | 1 => Schedulable::Open,
            2 => Schedulable::Cordoned,
            3 => Schedulable::Drain { deadline: None },
            _ => Schedulable::Drain { deadline: Some(secs(5)) },
        };
        format!("{:?}", self.call(SetSchedulable { worker: worker(which, 0).id, to }))
    }

    /// Law 7: an operation that is sent twice at once counts once.
    fn on_again(&mut self) -> String {
        let Some(operation) = self.last.clone() else { return String::new() };
        let sweep = matches!(operation, Operation::Sweep(_));
        let before = self.cell.ledger.stored();
        let claimed = self.cell.ledger.audit().claimed;
        let (reply, set) = self.cell.ledger.apply(self.cell.now, operation);
        self.cell.disk.apply(&set, self.cell.ledger.counters());
        if !sweep {
            let after = self.cell.ledger.stored();
            assert_eq!(crate::disk::comparable(before), crate::disk::comparable(after), "law 7: twice is once");
            assert_eq!(self.cell.ledger.audit().claimed, claimed, "law 7: twice is once");
        }
        if let Reply::Attach(Ok(reply)) = &reply
            && let Some(Operation::Attach(op)) = &self.last
        {
            let given = self.epochs.entry(op.worker.id.clone()).or_default();
            if given.last() != Some(&(reply.epoch, op.stream, op.session)) {
                given.push((reply.epoch, op.stream, op.session));
            }
        }
        format!("{reply:?}")
    }

    /// One of the attempts there ever were, mostly a late one.
    fn attempt(&self, which: u8) -> Option<(WorkerId, ContainerId, Attempt)> {
        let newest = self.attempts.len().checked_sub(1)?;
        self.attempts.get(newest - usize::from(which) % (newest + 1).min(32)).cloned()
    }

    /// Whether an attempt is the authoritative one, as a read says.
    fn is_bound(&self, worker: &WorkerId, container: ContainerId, attempt: Attempt) -> bool {
        match self.cell.ledger.container(container) {
            Some(Found::Live(record)) => record.attempt == Some(attempt) && record.worker.as_ref() == Some(worker),
            _ => false,
        }
    }

    pub fn commit_number(&mut self, session: SessionId, number: Number) -> CommitNumber {
        let server = self.servers.get_mut(&session).expect("every session has a server");
        if matches!(number, Number::Next) {
            server.commits += 1;
        }
        CommitNumber(server.commits - u64::from(matches!(number, Number::Older) && server.commits > 0))
    }

    pub fn ledger(&self) -> &Ledger {
        &self.cell.ledger
    }
}

/// Three in four times the default tenant.
fn tenant_of(which: u8) -> TenantName {
    if which == 3 { TenantName::new("other").expect("a good name") } else { TenantName::default() }
}

fn progress(said: Said) -> Progress {
    match said {
        Said::Accepted => Progress::Accepted,
        Said::Running => Progress::Running,
        Said::Exited(code) => Progress::Ended(Outcome::Exited { code: i32::from(code), signal: None }),
        Said::Failed => Progress::Ended(Outcome::Failed { reason: "no such command".to_owned() }),
        Said::Lost => Progress::Ended(Outcome::Lost),
    }
}

/// Eight kinds of spec, five shapes.
fn spec(which: u8) -> Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(500 + 500 * u64::from(which % 3));
    match which {
        1 => spec.max_wait = Some(secs(20)),
        2 => spec.priority = 7,
        3 => {
            spec.retry = Retry::Never;
            spec.on_disconnect = OnDisconnect::Keep;
        }
        4 => {
            let on = vec![RetryOn::ExitNonzero, RetryOn::Failed];
            spec.retry = Retry::UpTo { attempts_max: 3, backoff: secs(2), backoff_max: secs(3), on };
            spec.max_wait = Some(secs(40));
        }
        5 => {
            spec.resources.gpu = Some(GpuRequest { kinds: GpuKinds::Any, count: 1, milli: GpuMilli(400) });
            spec.affinity = Some("model".to_owned());
        }
        6 => spec.resources.gpu = Some(GpuRequest { kinds: GpuKinds::Any, count: 2, milli: GPU_WHOLE }),
        7 => spec.on_unplaceable = OnUnplaceable::Fail,
        _ => {}
    }
    spec
}

/// Five names for four places, and a few machines that may come under each name.
pub fn worker(which: u8, machine: u8) -> Worker {
    let slots = 1 + u32::from(machine);
    Worker {
        id: WorkerId::new(&format!("w{}", which % 5)).expect("a good name"),
        pool: PoolName::new(&format!("pool{}", machine % 3)).expect("a good name"),
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: CpuMilli(1000 * u64::from(slots)),
            memory: Bytes(1 << 30),
            slots,
            gpus: vec!["A10G".to_owned(); usize::from(machine % 4)],
        },
        notes: Vec::new(),
    }
}
