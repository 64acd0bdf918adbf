//! Replies of the scripts as replies of the ledger. What each script answers is said at its head,
//! in `lua/`. Knows nothing of connections and arguments.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use redis::Value;
use serde::de::DeserializeOwned;
use volley_ledger::{
    ApplyPoolRefusal, AttachRefusal, AttachReply, ClaimReply, CommitReply, HeartbeatReply, LedgerOptions, NotFound,
    Operation, ProvisionRefusal, RemovePoolRefusal, Reply, ScaleRefusal, SessionRefusal, SessionReply, StopReply,
    StopTarget, SubmitRefusal, SubmitReply, SweepReply, TenantRefusal, TokenRefusal, Verdict,
};
use volley_model::{
    Attempt, BlockedShape, ClaimNumber, Claimed, Epoch, FleetChanges, FleetVersion, Millis, Nonce, Pool, PoolVersion,
    Refusal, Role, ScaleLead, Score, SessionId, ShapeHash, TenantName, Timestamp, Token, WorkerView,
};

use super::rows::WorkerRow;
use super::words::{container_from, from_hex};

/// An answer that the scripts do not give: another version of Volley or another program wrote there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store answered with {what} that is not understood: {problem}")]
pub(super) struct Malformed {
    what: &'static str,
    problem: String,
}

impl Malformed {
    pub(super) fn new(what: &'static str, problem: impl Display) -> Self {
        Self { what, problem: problem.to_string().chars().take(200).collect() }
    }
}

pub(super) fn json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|error| Malformed::new(what, error))
}

/// The items of an answer, taken one after the other.
pub(super) struct Items(std::vec::IntoIter<Value>);

impl Items {
    pub(super) fn of(value: Value) -> Result<Self, Malformed> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            other => Err(Malformed::new("an answer", format_args!("{other:?} is not a list"))),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Items that are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next items, as they are.
    pub(super) fn first(&mut self, count: usize) -> Result<Vec<Value>, Malformed> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Result<Value, Malformed> {
        self.0.next().ok_or_else(|| Malformed::new("an answer", "it ends too early"))
    }

    pub(super) fn list(&mut self) -> Result<Self, Malformed> {
        Self::of(self.next()?)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.into_bytes()),
            Value::Int(number) => Ok(number.to_string().into_bytes()),
            other => Err(Malformed::new("an answer", format_args!("{other:?} is not a text"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        String::from_utf8(self.bytes()?).map_err(|error| Malformed::new("a text", error))
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self) -> Result<T, Malformed> {
        self.text()?.parse().map_err(|error| Malformed::new("a value", error))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Malformed> {
        match self.next()? {
            Value::Int(number) => Ok(number),
            Value::BulkString(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                text.parse().map_err(|error| Malformed::new("a number", format_args!("'{text}': {error}")))
            }
            other => Err(Malformed::new("an answer", format_args!("{other:?} is not a number"))),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        u64::try_from(self.signed()?).map_err(|error| Malformed::new("a number", error))
    }

    pub(super) fn small(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.signed()?).map_err(|error| Malformed::new("a number", error))
    }

    pub(super) fn flag(&mut self) -> Result<bool, Malformed> {
        Ok(self.signed()? == 1)
    }

    pub(super) fn hex(&mut self) -> Result<u64, Malformed> {
        let text = self.text()?;
        from_hex(&text).ok_or_else(|| Malformed::new("an id", text))
    }

    pub(super) fn container(&mut self) -> Result<volley_model::ContainerId, Malformed> {
        let text = self.text()?;
        container_from(&text).ok_or_else(|| Malformed::new("a container's id", text))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Malformed> {
        json(what, &self.bytes()?)
    }

    /// All that is left, each taken by `take`.
    pub(super) fn rest<T>(mut self, take: impl Fn(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(take(&mut self)?);
        }
        Ok(all)
    }
}

fn time_maybe(at: i64) -> Option<Timestamp> {
    u64::try_from(at).ok().map(Timestamp)
}

/// The reply of an operation.
pub(super) fn of_operation(operation: &Operation, value: Value, options: &LedgerOptions) -> Result<Reply, Malformed> {
    let mut items = Items::of(value)?;
    Ok(match operation {
        Operation::Submit(op) => Reply::Submit(submit(&mut items, &op.submission.tenant, options)?),
        Operation::OpenSession(_) => Reply::OpenSession(SessionReply { lease: Millis(items.number()?) }),
        Operation::CloseSession(_) => Reply::CloseSession(()),
        Operation::Claim(op) => Reply::Claim(match session_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(claim(&mut items, op.number)?),
        }),
        Operation::Commit(_) => Reply::Commit(match session_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(commit(&mut items)?),
        }),
        Operation::Attach(op) => Reply::Attach(match items.text()?.as_str() {
            "ended" => Err(AttachRefusal::SessionEnded),
            "full" => Err(AttachRefusal::TooManyWorkers { limit: options.workers_max }),
            "in_use" => Err(AttachRefusal::NameInUse { worker: op.worker.id.clone() }),
            "superseded" => Err(AttachRefusal::Superseded { worker: op.worker.id.clone() }),
            _ => Ok(attach(&mut items, options)?),
        }),
        Operation::Heartbeat(_) => Reply::Heartbeat(heartbeat(&mut items)?),
        Operation::Detach(_) => Reply::Detach(items.flag()?),
        Operation::Report(_) => Reply::Report(items.rest(verdict)?),
        Operation::Stop(op) => Reply::Stop(stop(&mut items, op.target)?.map(|(reply, _)| reply)),
        Operation::SetSchedulable(op) => {
            let worker = &op.worker;
            Reply::SetSchedulable(match items.signed()? {
                1 => Ok(()),
                2 => Err(NotFound { what: format!("worker {worker} that stays: its machine is given up") }),
                _ => Err(NotFound { what: format!("worker {worker}") }),
            })
        }
        Operation::Sweep(_) => Reply::Sweep(sweep(&mut items)?),
        Operation::ApplyPool(_) => Reply::ApplyPool(match items.text()?.as_str() {
            "changed" => Err(ApplyPoolRefusal::Changed { version: PoolVersion(items.number()?) }),
            "machines" => Err(ApplyPoolRefusal::HasMachines { machines: items.small()? }),
            _ => Ok(PoolVersion(items.number()?)),
        }),
        Operation::LeadScaling(_) => Reply::LeadScaling(match scale_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(lead(&mut items)?),
        }),
        Operation::Provision(_) => Reply::Provision(match scale_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(items.list()?.rest(provisioned)?),
        }),
        Operation::NoteMachines(_) => Reply::NoteMachines(match scale_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(items.list()?.rest(Items::flag)?),
        }),
        Operation::Retire(_) => Reply::Retire(match scale_refusal(&mut items)? {
            Some(refusal) => Err(refusal),
            None => Ok(items.list()?.rest(Items::flag)?),
        }),
        Operation::CreateToken(_) => Reply::CreateToken(match items.text()?.as_str() {
            "taken" => Err(TokenRefusal::IdTaken),
            "full" => Err(TokenRefusal::TooMany { limit: options.tokens_max }),
            _ => Ok(token(&mut items)?),
        }),
        Operation::RevokeToken(op) => Reply::RevokeToken(match items.text()?.as_str() {
            "none" => Err(NotFound { what: format!("token {}", op.token) }),
            _ => Ok(token(&mut items)?),
        }),
        Operation::ApplyTenant(_) => Reply::ApplyTenant(match items.text()?.as_str() {
            "full" => Err(TenantRefusal::TooMany { limit: options.tenants_max }),
            _ => Ok(()),
        }),
        Operation::RemoveTenant(op) => Reply::RemoveTenant(match items.text()?.as_str() {
            "none" => Err(NotFound { what: format!("limits of tenant '{}'", op.tenant) }),
            _ => Ok(()),
        }),
        Operation::RemovePool(_) => Reply::RemovePool(match items.text()?.as_str() {
            "none" => Err(RemovePoolRefusal::NotFound),
            "workers" => Err(RemovePoolRefusal::HasWorkers { workers: items.small()? }),
            "machines" => Err(RemovePoolRefusal::HasMachines { machines: items.small()? }),
            _ => Ok(()),
        }),
    })
}

fn submit(
    items: &mut Items,
    tenant: &TenantName,
    options: &LedgerOptions,
) -> Result<Result<SubmitReply, SubmitRefusal>, Malformed> {
    let tenant = tenant.clone();
    Ok(match items.text()?.as_str() {
        "backlog" => {
            let (waiting, asked) = (items.number()?, items.number()?);
            Err(SubmitRefusal::BacklogFull { waiting, limit: options.backlog_max, asked })
        }
        "tenant_backlog" => {
            let (waiting, limit, asked) = (items.number()?, items.number()?, items.number()?);
            Err(SubmitRefusal::TenantBacklogFull { tenant, waiting, limit, asked })
        }
        "rate" => {
            let (per_second, retry_after) = (items.small()?, Millis(items.number()?));
            Err(SubmitRefusal::RateExceeded { tenant, per_second, retry_after })
        }
        "reused" => Err(SubmitRefusal::KeyReused { group: items.parsed()? }),
        "taken" => Err(SubmitRefusal::IdTaken),
        _ => Ok(SubmitReply { group: items.parsed()?, count: items.small()?, repeated: items.flag()? }),
    })
}

fn session_refusal(items: &mut Items) -> Result<Option<SessionRefusal>, Malformed> {
    Ok(match items.text()?.as_str() {
        "ended" => Some(SessionRefusal::SessionEnded),
        "old" => Some(SessionRefusal::NumberTooOld),
        _ => None,
    })
}

fn claim(items: &mut Items, claim: ClaimNumber) -> Result<ClaimReply, Malformed> {
    let containers = items.list()?.rest(|items| {
        Ok(Claimed {
            container: items.container()?,
            claim,
            shape: ShapeHash(items.hex()?),
            score: Score(items.number()?),
            since: Timestamp(items.number()?),
            fail_if_unplaceable: items.flag()?,
        })
    })?;
    let shapes = items.list()?.rest(|items| Ok((ShapeHash(items.hex()?), Arc::new(items.json("a shape")?))))?;
    let fleet = fleet(&mut items.list()?)?;
    let recheck = items.list()?.rest(|items| items.hex().map(ShapeHash))?;
    let mut sessions = items.list()?.rest(|items| items.hex().map(SessionId))?;
    sessions.sort_unstable();
    let (ready, due, now) = (items.number()?, time_maybe(items.signed()?), Timestamp(items.number()?));
    Ok(ClaimReply { containers, shapes, fleet, recheck, sessions, ready, due, now })
}

pub(super) fn fleet(items: &mut Items) -> Result<FleetChanges, Malformed> {
    Ok(FleetChanges {
        reload: items.flag()?,
        version: FleetVersion(items.number()?),
        more: items.flag()?,
        workers: items.list()?.rest(worker_view)?,
        workers_gone: items.list()?.rest(Items::parsed)?,
        pools: items.list()?.rest(pool)?,
        pools_gone: items.list()?.rest(Items::parsed)?,
        blocked: items.list()?.rest(|items| {
            Ok(BlockedShape {
                hash: ShapeHash(items.hex()?),
                shape: Arc::new(items.json("a shape")?),
                count: items.number()?,
                best: Score(items.number()?),
                since: Timestamp(items.number()?),
                at: FleetVersion(items.number()?),
            })
        })?,
        unblocked: items.list()?.rest(|items| items.hex().map(ShapeHash))?,
    })
}

fn worker_view(items: &mut Items) -> Result<WorkerView, Malformed> {
    let (_, row, of_worker, capacity) = (items.bytes()?, items.bytes()?, items.bytes()?, items.bytes()?);
    WorkerRow::from(&row)?.view(&of_worker, &capacity)
}

fn commit(items: &mut Items) -> Result<CommitReply, Malformed> {
    let placements = items.list()?.rest(|items| {
        let (verdict, nonce) = (items.text()?, Nonce(items.hex()?));
        Ok(match verdict.as_str() {
            "claim_lost" => Err(Refusal::ClaimLost),
            "worker_gone" => Err(Refusal::WorkerGone),
            "revision_changed" => Err(Refusal::RevisionChanged),
            "not_ready" => Err(Refusal::NotReady),
            "no_capacity" => Err(Refusal::NoCapacity),
            "held" => Err(Refusal::Held),
            number => {
                Ok(Attempt { number: number.parse().map_err(|error| Malformed::new("a verdict", error))?, nonce })
            }
        })
    })?;
    let fresh = items.list()?.rest(worker_view)?;
    let wake = items.list()?.rest(|items| Ok((items.parsed()?, SessionId(items.hex()?))))?;
    Ok(CommitReply { placements, fresh, wake, version: FleetVersion(items.number()?), now: Timestamp(items.number()?) })
}

fn verdict(items: &mut Items) -> Result<Verdict, Malformed> {
    Ok(if items.flag()? { Verdict::Keep } else { Verdict::Kill })
}

fn attach(items: &mut Items, options: &LedgerOptions) -> Result<AttachReply, Malformed> {
    let epoch = Epoch { number: items.small()?, nonce: Nonce(items.hex()?) };
    let status = items.parsed()?;
    let inventory = items.list()?.rest(verdict)?;
    Ok(AttachReply { epoch, lease: options.worker_lease, status, inventory })
}

/// The reply of one call of a stop, and the index from which the next one goes on.
pub(super) fn stop(
    items: &mut Items,
    target: StopTarget,
) -> Result<Result<(StopReply, Option<u32>), NotFound>, Malformed> {
    if items.text()? == "none" {
        let what = match target {
            StopTarget::Container(id) => format!("container {id}"),
            StopTarget::Group(id) => format!("group {id}"),
        };
        return Ok(Err(NotFound { what }));
    }
    let (finished, stopping, already_finished) = (items.small()?, items.small()?, items.small()?);
    let next = u32::try_from(items.signed()?).ok();
    Ok(Ok((StopReply { finished, stopping, already_finished }, next)))
}

pub(super) fn heartbeat(items: &mut Items) -> Result<HeartbeatReply, Malformed> {
    Ok(HeartbeatReply { session_alive: items.flag()?, workers: items.list()?.rest(Items::flag)? })
}

pub(super) fn sweep(items: &mut Items) -> Result<SweepReply, Malformed> {
    Ok(SweepReply {
        sessions_ended: items.small()?,
        workers_lost: items.list()?.rest(Items::parsed)?,
        expired: items.small()?,
        ready: items.small()?,
        pruned: items.small()?,
        more: items.flag()?,
        due: time_maybe(items.signed()?),
        work: items.flag()?,
        now: Timestamp(items.number()?),
        left: items.flag()?,
    })
}

/// A pool's version and record.
pub(super) fn pool(items: &mut Items) -> Result<Pool, Malformed> {
    let version = PoolVersion(items.number()?);
    Ok(Pool { version, ..items.json("a pool")? })
}

fn lead(items: &mut Items) -> Result<ScaleLead, Malformed> {
    Ok(ScaleLead { session: SessionId(items.hex()?), term: items.number()?, until: Timestamp(items.number()?) })
}

fn scale_refusal(items: &mut Items) -> Result<Option<ScaleRefusal>, Malformed> {
    Ok(match items.text()?.as_str() {
        "ended" => Some(ScaleRefusal::SessionEnded),
        "not_leading" => Some(ScaleRefusal::NotLeading { lead: lead_maybe(items)? }),
        _ => None,
    })
}

/// Who leads; nobody when the session is empty.
pub(super) fn lead_maybe(items: &mut Items) -> Result<Option<ScaleLead>, Malformed> {
    let session = items.text()?;
    let (term, until) = (items.number()?, Timestamp(items.number()?));
    if session.is_empty() {
        return Ok(None);
    }
    let session = from_hex(&session).map(SessionId).ok_or_else(|| Malformed::new("a session", session))?;
    Ok(Some(ScaleLead { session, term, until }))
}

fn provisioned(items: &mut Items) -> Result<Result<(), ProvisionRefusal>, Malformed> {
    let word = items.text()?;
    let number = items.number()?;
    let small = u32::try_from(number).unwrap_or(u32::MAX);
    Ok(match word.as_str() {
        "none" => Err(ProvisionRefusal::NoSuchPool),
        "changed" => Err(ProvisionRefusal::PoolChanged),
        "taken" => Err(ProvisionRefusal::IdTaken),
        "max" => Err(ProvisionRefusal::AtMax { max: small }),
        "in_flight" => Err(ProvisionRefusal::InFlight { limit: small }),
        "minute" => Err(ProvisionRefusal::MinuteLimit { limit: small }),
        "waits" => Err(ProvisionRefusal::Waits { until: Timestamp(number) }),
        _ => Ok(()),
    })
}

/// A token's id and the fields of its record.
fn token(items: &mut Items) -> Result<Token, Malformed> {
    Ok(Token {
        id: items.parsed()?,
        hash: items.parsed()?,
        tenant: items.parsed()?,
        role: role_from(&items.text()?)?,
        note: items.text()?.strip_prefix('=').map(str::to_owned),
        created_at: Timestamp(items.number()?),
        expires_at: time_maybe(items.signed()?),
        revoked_at: time_maybe(items.signed()?),
    })
}

pub(super) fn role_from(text: &str) -> Result<Role, Malformed> {
    let all = [Role::Admin, Role::Submit, Role::Read, Role::Worker];
    let found = all.into_iter().find(|role| super::arguments::role(*role) == text);
    found.ok_or_else(|| Malformed::new("a role", text))
}
