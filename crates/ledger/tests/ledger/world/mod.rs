//! What a random sequence is played against: servers and workers that remember what they were
//! told, and expectations of each reply that are worked out from outside of the ledger.

mod access;
mod clients;
mod commits;
mod drain;
mod machines;
pub mod things;
mod workers;

use std::collections::{BTreeMap, BTreeSet};

use volley_ledger::{
    Claim, CloseSession, EventKind, Heartbeat, Ledger, OpenSession, Operation, RemovePool, Reply, Request, Sweep,
};
use volley_model::{
    Attempt, ClaimNumber, Claimed, CommitNumber, ContainerId, Epoch, GroupId, Millis, Nonce, SessionId, ShapeHash,
    TenantName, Timestamp, Token, TokenId, WorkerId,
};

use crate::cell::{Cell, secs};
use crate::mirror::Mirror;
use crate::steps::{Number, Span, Step};
use crate::world::things::{options, pool_of};

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
    tenants: BTreeMap<TenantName, access::Limited>,
    tokens: BTreeMap<TokenId, Token>,
    last: Option<Operation>,
    numbers: u64,
    /// All machines ever bought, and all sessions and terms that ever led; the newest last.
    machines: Vec<WorkerId>,
    terms: Vec<(SessionId, u64)>,
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
            tenants: BTreeMap::new(),
            tokens: BTreeMap::new(),
            last: None,
            numbers: 100,
            machines: Vec::new(),
            terms: Vec::new(),
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
                EventKind::Token { revoked, .. } => self.count(if revoked { "token revoked" } else { "token" }),
                EventKind::Tenant { removed, .. } => self.count(if removed { "tenant removed" } else { "tenant" }),
            }
        }
    }

    /// The end of a sequence: sweeps come to an end, and a restart changes nothing that is durable.
    pub fn end(&mut self) {
        self.open_quarantined();
        self.end_machines();
        for _ in 0..2_000 {
            if !self.cell.call(Sweep { session: None, items_max: 10 }).more {
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
            Step::CreateToken { which, tenant, role, life } => self.on_create_token(*which, *tenant, *role, *life),
            Step::RevokeToken(which) => self.on_revoke_token(*which),
            Step::ApplyTenant { tenant, backlog, rate } => self.on_apply_tenant(*tenant, *backlog, *rate),
            Step::RemoveTenant(tenant) => self.on_remove_tenant(*tenant),
            Step::ApplyPool(which) => self.on_apply_pool(*which),
            Step::RemovePool(which) => format!("{:?}", self.call(RemovePool { pool: pool_of(*which) })),
            Step::Lead(which) => self.on_lead(*which),
            Step::Provision { truth, machines } => self.on_provision(*truth, machines),
            Step::NoteMachines { truth, notes, jitter } => self.on_note(*truth, notes, *jitter),
            Step::Retire { truth, machines } => self.on_retire(*truth, machines),
            Step::Scale(what) => self.on_scale(*what),
            Step::Register { machine, session, kind } => self.on_register(*machine, *session, *kind),
            Step::Sweep { items_max } => {
                // Some say who they are, and may find that another one sweeps.
                let session = items_max.is_multiple_of(2).then(|| self.session(*items_max)).flatten();
                let reply = self.call(Sweep { session, items_max: u32::from(*items_max) });
                self.count(if reply.left { "left to another" } else { "swept" });
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

    pub fn call<R: Request + Clone>(&mut self, request: R) -> R::Reply {
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
        self.buckets_are_full();
        self.servers.clear();
        self.sessions.clear();
        self.terms.clear();
        self.last = None;
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

    /// Law 7: an operation that is sent twice at once counts once.
    fn on_again(&mut self) -> String {
        let Some(operation) = self.last.clone() else { return String::new() };
        let sweep = matches!(operation, Operation::Sweep(_));
        let before = self.cell.ledger.stored();
        let claimed = self.cell.ledger.audit().claimed;
        let reply = self.cell.apply(operation).0;
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
