//! Operations as arguments of their scripts. What each script expects is said at its head, in
//! `lua/`. Knows nothing of connections and replies.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;
use volley_ledger::{
    Attach, Commit, MachineSaid, Operation, Progress, Report, Schedulable, Stop, StopTarget, Submit, Sweep, TakeFrom,
};
use volley_model::{
    Capacity, Cost, Epoch, Millis, Nonce, Outcome, Placement, Pool, PoolVersion, ProvisionerKind, Rate, RetireCause,
    RetryOn, Role, SessionId, Shape, TenantName, Worker, WorkerId,
};

use super::rows::{Rules, WorkerStatic};
use super::scripts::Name;
use super::words::{NUMBER_MAX, container, hex};

/// Longest failure of a pool that is kept, in characters.
const FAILURE_CHARS_MAX: usize = 500;
/// Longest cause of a worker's quarantine that is kept, in characters.
const QUARANTINE_CHARS_MAX: usize = 300;

fn first_chars(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// A script's arguments, in order.
#[derive(Debug, Default)]
pub(super) struct Arguments(pub(super) Vec<Vec<u8>>);

impl Arguments {
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        self.bytes(text.to_string().into_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: Vec<u8>) -> &mut Self {
        self.0.push(bytes);
        self
    }

    /// A number that Lua holds exactly: what is larger is as good as the largest.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.text(number.min(NUMBER_MAX))
    }

    /// -1 for none.
    pub(super) fn number_maybe(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.text(-1),
        }
    }

    pub(super) fn hex(&mut self, bits: u64) -> &mut Self {
        self.text(hex(bits))
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> &mut Self {
        self.bytes(serde_json::to_vec(value).expect("records are plain data"))
    }
}

/// The script of an operation with its arguments. A stop of a group is several calls, each from an index on.
pub(super) fn of_operation(operation: &Operation, arguments: &mut Arguments) -> Name {
    match operation {
        Operation::Submit(op) => submit(op, arguments),
        Operation::OpenSession(op) => {
            arguments.hex(op.session.0).text(&op.address);
            Name::OpenSession
        }
        Operation::CloseSession(op) => {
            arguments.hex(op.session.0);
            Name::CloseSession
        }
        Operation::Claim(op) => {
            arguments.hex(op.session.0).number(op.number.0).number(op.containers_max.into());
            arguments.number(op.known.0).number(op.changes_max.into());
            Name::Claim
        }
        Operation::Commit(op) => commit(op, arguments),
        Operation::Attach(op) => attach(op, arguments),
        Operation::Heartbeat(op) => {
            heartbeat(op.session, &op.workers, arguments);
            Name::Heartbeat
        }
        Operation::Detach(op) => {
            arguments.hex(op.session.0).text(&op.worker).hex(op.stream.0);
            Name::Detach
        }
        Operation::Report(op) => report(op, arguments),
        Operation::Stop(op) => stop(op, 0, arguments),
        Operation::SetSchedulable(op) => {
            let (status, term) = match op.to {
                Schedulable::Open => ("ready", None),
                Schedulable::Cordoned => ("cordoned", None),
                Schedulable::Drain { deadline } => ("draining", deadline),
            };
            arguments.text(&op.worker).text(status).number_maybe(term.map(|term| term.0));
            Name::SetSchedulable
        }
        Operation::Sweep(op) => {
            sweep(op, -1, 0, arguments);
            Name::Sweep
        }
        Operation::ApplyPool(op) => {
            arguments.text(&op.pool.name).number_maybe(op.expected.map(|version| version.0));
            put_pool(&op.pool, arguments.text(u8::from(op.renew)));
            Name::ApplyPool
        }
        Operation::RemovePool(op) => {
            arguments.text(&op.pool);
            Name::RemovePool
        }
        Operation::CreateToken(op) => {
            let note = op.note.as_ref().map(|note| format!("={note}")).unwrap_or_default();
            arguments.text(op.token).text(op.hash).text(&op.tenant).text(role(op.role)).text(note);
            arguments.number_maybe(op.expires_in.map(|life| life.0));
            Name::CreateToken
        }
        Operation::LeadScaling(op) => {
            arguments.hex(op.session.0);
            Name::LeadScaling
        }
        Operation::Provision(op) => {
            arguments.hex(op.session.0).number(op.term).number(op.machines.len() as u64);
            for new in &op.machines {
                arguments.text(&new.worker).text(&new.pool).number(new.pool_version.0);
            }
            Name::Provision
        }
        Operation::NoteMachines(op) => {
            arguments.hex(op.session.0).number(op.term).number(op.jitter.into()).number(op.notes.len() as u64);
            for (worker, said) in &op.notes {
                arguments.text(worker);
                match said {
                    MachineSaid::Created { handle } => arguments.text("created").text(handle),
                    MachineSaid::Failed { reason } => {
                        arguments.text("failed").text(first_chars(reason, FAILURE_CHARS_MAX))
                    }
                    MachineSaid::Destroyed => arguments.text("destroyed").text(""),
                };
            }
            Name::NoteMachines
        }
        Operation::Retire(op) => {
            arguments.hex(op.session.0).number(op.term).number(op.jitter.into()).number(op.machines.len() as u64);
            for (worker, why) in &op.machines {
                arguments.text(worker).text(cause(*why));
            }
            Name::Retire
        }
        Operation::RevokeToken(op) => {
            arguments.text(op.token);
            Name::RevokeToken
        }
        Operation::ApplyTenant(op) => {
            let rate = op.tenant.rate.unwrap_or(Rate { per_second: 0, burst: 0 });
            arguments.text(&op.tenant.name).json(&op.tenant).number_maybe(op.tenant.backlog_max);
            arguments.number(rate.per_second.into()).number(rate.burst.into());
            Name::ApplyTenant
        }
        Operation::RemoveTenant(op) => {
            arguments.text(&op.tenant);
            Name::RemoveTenant
        }
    }
}

fn submit(op: &Submit, arguments: &mut Arguments) -> Name {
    let submission = &op.submission;
    let key = submission.client_key.as_deref().unwrap_or_default();
    let name = submission.name.as_ref().map(|name| format!("={name}")).unwrap_or_default();
    arguments.text(op.group).text(&submission.tenant).text(key);
    arguments.text(format_args!("{:032x}", op.body_digest)).text(name).json(&submission.labels);
    // Each spec and each shape once, however many runs have it.
    let mut specs = Table::default();
    let mut shapes = Table::default();
    let mut runs = Vec::with_capacity(submission.runs.len());
    for run in &submission.runs {
        let shape = Shape::of(&submission.tenant, &run.spec);
        runs.push((specs.place(run.spec.hash(), &run.spec), shapes.place(shape.hash(), &shape), run));
    }
    arguments.number(specs.rows.len() as u64);
    for (hash, spec) in &specs.rows {
        arguments.text(hash).json(spec).bytes(Rules::of(spec).packed());
    }
    arguments.number(shapes.rows.len() as u64);
    for (hash, shape) in &shapes.rows {
        arguments.text(hash).json(shape);
    }
    arguments.number(runs.len() as u64);
    for (spec, shape, run) in runs {
        let rank = (i64::from(i8::MAX) - i64::from(run.spec.priority)) as u64;
        arguments.number(spec).number(shape).number(run.count.into()).number(rank);
    }
    Name::Submit
}

/// Rows that are named by their place, from 1.
struct Table<K, V> {
    places: BTreeMap<K, u64>,
    rows: Vec<(K, V)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { places: BTreeMap::new(), rows: Vec::new() }
    }
}

impl<K: Ord + Copy, V: Clone> Table<K, V> {
    fn place(&mut self, key: K, value: &V) -> u64 {
        let next = self.rows.len() as u64 + 1;
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.rows.push((key, value.clone()));
        }
        place
    }
}

fn commit(op: &Commit, arguments: &mut Arguments) -> Name {
    arguments.hex(op.session.0).number(op.number.0).number(op.placements.len() as u64);
    for placement in &op.placements {
        put_placement(placement, arguments);
    }
    arguments.number(op.unplaceable.len() as u64);
    for (id, reason) in &op.unplaceable {
        arguments.text(container(*id)).json(&Outcome::Unplaceable { reason: reason.clone() });
    }
    arguments.number(op.unblocked.len() as u64);
    for shape in &op.unblocked {
        arguments.text(shape);
    }
    arguments.number(op.returned.len() as u64);
    for id in &op.returned {
        arguments.text(container(*id));
    }
    arguments.number(op.blocked.len() as u64);
    for mark in &op.blocked {
        arguments.text(mark.shape).number(mark.at.0).json(&mark.reasons);
    }
    arguments.number(op.holds.len() as u64);
    for hold in &op.holds {
        arguments.text(hold.shape).text(&hold.worker).number(hold.term.0);
    }
    Name::Commit
}

fn put_placement(placement: &Placement, arguments: &mut Arguments) {
    arguments.text(container(placement.container)).number(placement.claim.0).text(&placement.worker);
    arguments.number(placement.epoch.number.into()).hex(placement.epoch.nonce.0);
    arguments.number(placement.revision.0).hex(placement.nonce.0).number(placement.gpus.len() as u64);
    for grant in &placement.gpus {
        arguments.number(grant.device.into()).number(grant.milli.0);
    }
}

fn attach(op: &Attach, arguments: &mut Arguments) -> Name {
    let Worker { id, pool, capacity, .. } = &op.worker;
    arguments.hex(op.session.0).hex(op.stream.0);
    match op.replaces {
        Some(stream) => arguments.hex(stream.0),
        None => arguments.text(""),
    };
    match op.epoch {
        // Epochs count from 1, so 0 is none.
        Some(epoch) => arguments.number(epoch.number.into()).hex(epoch.nonce.0),
        None => arguments.number(0).text(""),
    };
    arguments.hex(op.epoch_nonce.0).text(id).text(pool).json(&WorkerStatic::of(&op.worker)).json(capacity);
    arguments.number(capacity.cpu.0).number(capacity.memory.0).number(capacity.slots.into());
    put_pool(&Pool::with_defaults(pool.clone()), arguments.number(capacity.gpus.len() as u64));
    arguments.number(op.inventory.len() as u64);
    for item in &op.inventory {
        arguments.text(container(item.container)).number(item.attempt.number.into()).hex(item.attempt.nonce.0);
        put_progress(&item.progress, arguments);
    }
    arguments.number(op.affinities.len() as u64);
    for key in &op.affinities {
        arguments.text(key);
    }
    Name::Attach
}

fn report(op: &Report, arguments: &mut Arguments) -> Name {
    arguments.hex(op.session.0).number(op.messages.len() as u64);
    for message in &op.messages {
        arguments.text(&message.worker).number(message.epoch.number.into()).hex(message.epoch.nonce.0);
        arguments.text(container(message.container)).number(message.attempt.number.into());
        arguments.hex(message.attempt.nonce.0);
        put_progress(&message.progress, arguments);
    }
    Name::Report
}

/// Progress, the outcome, and how it ended as far as retries and counts ask.
fn put_progress(progress: &Progress, arguments: &mut Arguments) {
    match progress {
        Progress::Accepted => arguments.text("a").text("").text(""),
        Progress::Running => arguments.text("r").text("").text(""),
        Progress::Ended(outcome) => {
            let ended = match outcome {
                Outcome::Exited { code: 0, .. } => "s",
                Outcome::Exited { .. } => "x",
                Outcome::Failed { reason } => &format!("f{}", first_chars(reason, QUARANTINE_CHARS_MAX)),
                Outcome::Lost => "l",
                Outcome::Stopped { .. } | Outcome::Expired | Outcome::Unplaceable { .. } => "",
            };
            arguments.text("e").json(outcome).text(ended)
        }
    };
}

/// A stop, from an index of its group on.
pub(super) fn stop(op: &Stop, from: u32, arguments: &mut Arguments) -> Name {
    let (group, only) = match op.target {
        StopTarget::Container(id) => (id.group, Some(id.index)),
        StopTarget::Group(group) => (group, None),
    };
    let tenant = op.tenant.as_ref().map(TenantName::as_str).unwrap_or_default();
    arguments.text(group).text(tenant).text(u8::from(op.force));
    arguments.number_maybe(only.map(u64::from)).number(from.into());
    Name::Stop
}

/// What each of some streams is asked for.
pub(super) fn heartbeat(session: SessionId, workers: &[(WorkerId, Nonce, Epoch)], arguments: &mut Arguments) {
    arguments.hex(session.0).number(workers.len() as u64);
    for (worker, stream, epoch) in workers {
        arguments.text(worker).hex(stream.0).number(epoch.number.into()).hex(epoch.nonce.0);
    }
}

pub(super) fn sweep(op: &Sweep, renewed_until: i64, stay: u64, arguments: &mut Arguments) {
    match op.session {
        Some(session) => arguments.hex(session.0),
        None => arguments.text(""),
    };
    arguments.number(op.items_max.into()).text(renewed_until).number(stay);
}

pub(super) fn take(asked: &[TakeFrom], deliveries_max: usize, arguments: &mut Arguments) {
    arguments.number(asked.len() as u64);
    for from in asked {
        arguments.text(&from.worker).hex(from.stream.0).number(from.after.0).number(deliveries_max as u64);
    }
}

/// How the scripts write the ends after which a spec is tried again.
pub(super) fn ends(on: &[RetryOn]) -> String {
    let letter = |on: &RetryOn| match on {
        RetryOn::ExitNonzero => 'x',
        RetryOn::Failed => 'f',
        RetryOn::Lost => 'l',
    };
    on.iter().map(letter).collect()
}

/// A pool's record, in the order of `lua/pool.lua`. Its version is the store's.
fn put_pool(pool: &Pool, arguments: &mut Arguments) {
    arguments.json(&Pool { version: PoolVersion(0), ..pool.clone() });
    let Some(elastic) = &pool.elastic else {
        arguments.text("").text("").text(Cost(0).0);
        arguments.number(0).number(0).number(0).number(0).text(Millis(0));
        return put_amounts(
            &Capacity { cpu: Default::default(), memory: Default::default(), slots: 0, gpus: Vec::new() },
            arguments,
        );
    };
    let maker = match &elastic.provisioner {
        ProvisionerKind::Process => "process",
        ProvisionerKind::Command { .. } => "command",
    };
    arguments.text(maker).json(&elastic.machine).text(elastic.cost_per_hour.0);
    arguments.number(elastic.max.into()).number(elastic.in_flight_max.into()).number(elastic.per_minute_max.into());
    arguments.number(elastic.boot_limit.0).text(elastic.boot_limit);
    put_amounts(&elastic.machine.capacity, arguments);
}

fn put_amounts(capacity: &Capacity, arguments: &mut Arguments) {
    arguments.number(capacity.cpu.0).number(capacity.memory.0).number(capacity.slots.into());
    arguments.number(capacity.gpus.len() as u64);
}

/// Why a machine is given up, as it is written everywhere.
pub(super) fn cause(why: RetireCause) -> &'static str {
    match why {
        RetireCause::Idle => "idle",
        RetireCause::BootLimit => "boot_limit",
        RetireCause::Lost => "lost",
        RetireCause::Drained => "drained",
        RetireCause::Quarantined => "quarantined",
    }
}

/// A role as it is written everywhere.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Submit => "submit",
        Role::Read => "read",
        Role::Worker => "worker",
    }
}
