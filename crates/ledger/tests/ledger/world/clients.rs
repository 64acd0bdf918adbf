//! Clients and servers of a random sequence: submissions, claims and stops, and what each must
//! be answered.

use volley_ledger::{Claim, ClaimReply, Stop, StopTarget, Submit, SubmitRefusal};
use volley_model::{ClaimNumber, ContainerId, ContainerState, FleetVersion, GroupId, SessionId, Spec};

use crate::cell::submission;
use crate::steps::{Known, Number};
use crate::world::World;
use crate::world::things::{spec, tenant_of};

impl World {
    pub(super) fn on_submit(
        &mut self,
        runs: &[(u8, u8)],
        key: Option<u8>,
        body: u8,
        tenant: u8,
        reuse_id: bool,
    ) -> String {
        let specs: Vec<(Spec, u32)> = runs.iter().map(|(which, count)| (spec(*which), u32::from(*count))).collect();
        let runs: Vec<(&Spec, u32)> = specs.iter().map(|(spec, count)| (spec, *count)).collect();
        let key = key.map(|key| format!("key{key}"));
        let mut submission = submission(&runs, key.as_deref());
        submission.tenant = tenant_of(tenant);
        let used = self.groups.last().filter(|_| reuse_id).map(|(group, _)| *group);
        let group = used.unwrap_or(GroupId(self.nonce().0));
        let count: u32 = runs.iter().map(|(_, count)| count).sum();
        let taken = self.cell.ledger.group(group, None).is_some();
        let waiting = self.cell.ledger.waiting();
        let known = key.clone().and_then(|key| self.keys.get(&(submission.tenant.clone(), key))).cloned();
        let tenant = submission.tenant.clone();
        // A group id that is used again must not be one that a key still names.
        if used.is_some() && !taken {
            return String::new();
        }
        let backlog = self.backlog_of(&tenant);
        let again = submission.clone();
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
                self.on_admitted(&tenant, backlog, count);
                self.accepted += u64::from(count);
                self.groups.push((group, count));
                if let Some(key) = key {
                    self.keys.insert((tenant, key), (group, count, u128::from(body), now));
                }
            }
            (Err(SubmitRefusal::BacklogFull { .. }), None) => assert!(waiting + u64::from(count) > 200),
            (Err(SubmitRefusal::TenantBacklogFull { limit, .. }), None) => {
                assert!(backlog + u64::from(count) > *limit && self.limit_of(&tenant) == Some(*limit), "law 12");
            }
            (Err(SubmitRefusal::RateExceeded { retry_after, .. }), None) => self.check_wait(again, *retry_after),
            (Err(SubmitRefusal::IdTaken), None) => assert!(taken),
            // Its retention is over and no sweep has come by yet.
            (Err(SubmitRefusal::KeyReused { .. }), None) => {}
        }
        format!("{reply:?}")
    }

    pub(super) fn on_claim(
        &mut self,
        session: u8,
        number: Number,
        (max, changes_max): (u8, u8),
        known: Known,
    ) -> String {
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
    pub(super) fn claim(&mut self, op: Claim) -> Option<ClaimReply> {
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

    pub(super) fn on_stop(&mut self, target: u8, whole: bool, tenant: u8, force: bool) -> String {
        let Some(newest) = self.groups.len().checked_sub(1) else { return String::new() };
        let (group, count) = self.groups[newest - usize::from(target) % (newest + 1).min(8)];
        let id = ContainerId { group, index: u32::from(target) % count };
        let target = if whole { StopTarget::Group(group) } else { StopTarget::Container(id) };
        let tenant = tenant_of(tenant);
        let finished = self.cell.ledger.audit().finished;
        let reply = self.call(Stop { target, tenant: Some(tenant), force });
        if let Ok(reply) = &reply {
            assert_eq!(self.cell.ledger.audit().finished, finished + u64::from(reply.finished));
            let state = self.cell.state(id);
            assert!(matches!(state, ContainerState::Stopping | ContainerState::Finished), "{id} is {state}");
        } else {
            assert_eq!(self.cell.last.events, [], "law 12: nothing of another tenant is touched");
        }
        format!("{reply:?}")
    }
}
