//! Tokens and tenants' limits of a random sequence: who is known, how long, and how much each
//! tenant may submit, counted from what was accepted.

use volley_ledger::{
    ApplyTenant, CreateToken, RemoveTenant, Request, RevokeToken, Submit, SubmitRefusal, SubmitReply, TenantRefusal,
    TokenRefusal,
};
use volley_model::{
    GroupId, Millis, Rate, Role, SecretHash, Submission, Tenant, TenantName, Timestamp, Token, TokenId,
};

use crate::cell::secs;
use crate::world::World;
use crate::world::things::tenant_of;

/// A tenant's limits and what was accepted under its present rate, since its bucket was last full for sure.
#[derive(Debug, Clone)]
pub struct Limited {
    limits: Tenant,
    accepted: Vec<(Timestamp, u32)>,
}

const ROLES: [Role; 4] = [Role::Admin, Role::Submit, Role::Read, Role::Worker];

fn hash_of(which: u8) -> SecretHash {
    SecretHash::of(&format!("secret {which}"))
}

impl World {
    fn now(&self) -> Timestamp {
        self.cell.ledger.counters().now
    }

    pub(super) fn on_create_token(&mut self, which: u8, tenant: u8, role: u8, life: Option<u8>) -> String {
        let op = CreateToken {
            token: TokenId(u64::from(which)),
            hash: hash_of(which),
            tenant: tenant_of(tenant),
            role: ROLES[usize::from(role)],
            note: None,
            expires_in: life.map(|seconds| secs(u64::from(seconds))),
        };
        self.forget_tokens();
        let reply = self.call(op.clone());
        let known = self.tokens.get(&op.token).cloned();
        match (&reply, known) {
            (Ok(token), Some(known)) => assert_eq!(*token, known, "law 7: the same token again"),
            (Err(TokenRefusal::IdTaken), Some(known)) => {
                assert!((&known.tenant, known.role) != (&op.tenant, op.role), "it is the same token");
            }
            (Ok(token), None) => {
                assert_eq!((token.created_at, token.is_live(self.now())), (self.now(), true));
                self.tokens.insert(token.id, token.clone());
            }
            (Err(TokenRefusal::TooMany { .. }), None) => {
                self.count("TooMany");
                assert_eq!(self.tokens.len(), 3);
            }
            (reply, known) => panic!("{known:?} is known, and the reply is {reply:?}"),
        }
        self.check_tokens();
        format!("{reply:?}")
    }

    pub(super) fn on_revoke_token(&mut self, which: u8) -> String {
        let id = TokenId(u64::from(which));
        self.forget_tokens();
        let reply = self.call(RevokeToken { token: id });
        let now = self.now();
        match (&reply, self.tokens.get_mut(&id)) {
            (Ok(token), Some(known)) => {
                known.revoked_at = known.revoked_at.or(Some(now));
                assert_eq!(token, known);
                assert!(!token.is_live(now), "a revoked token is dead at once");
            }
            (Err(_), None) => {}
            (reply, known) => panic!("{known:?} is known, and the reply is {reply:?}"),
        }
        self.check_tokens();
        format!("{reply:?}")
    }

    /// What the sweeps have forgotten was long over.
    fn forget_tokens(&mut self) {
        let now = self.now();
        let gone: Vec<Token> =
            self.tokens.values().filter(|token| self.cell.ledger.token(&token.hash).is_none()).cloned().collect();
        for token in gone {
            let end = token.ends_at().expect("only what ended is forgotten");
            assert!(end.after(secs(10)) <= now, "{token:?} was forgotten too early");
            self.tokens.remove(&token.id);
            self.count("token forgotten");
        }
    }

    /// A secret finds its token and no other, in the state it is in.
    fn check_tokens(&mut self) {
        for which in 0..6 {
            let found = self.cell.ledger.token(&hash_of(which));
            assert_eq!(found.as_ref(), self.tokens.get(&TokenId(u64::from(which))), "law 12");
            if found.is_some_and(|token| token.revoked_at.is_none() && !token.is_live(self.now())) {
                self.count("token expired");
            }
        }
        let (page, more) = self.cell.ledger.tokens(None, 2);
        let rest = self.cell.ledger.tokens(page.last().map(|token| &token.id), 100).0;
        assert_eq!(more, !rest.is_empty());
        assert!(page.iter().chain(&rest).eq(self.tokens.values()), "pages show each once");
    }

    pub(super) fn on_apply_tenant(&mut self, tenant: u8, backlog: Option<u8>, rate: Option<(u8, u8)>) -> String {
        let limits = Tenant {
            name: tenant_of(tenant),
            backlog_max: backlog.map(u64::from),
            rate: rate.map(|(per_second, burst)| Rate { per_second: u32::from(per_second), burst: u32::from(burst) }),
        };
        let reply = self.call(ApplyTenant { tenant: limits.clone() });
        let fresh = Limited { limits: limits.clone(), accepted: Vec::new() };
        match &reply {
            Ok(()) => {
                let known = self.tenants.entry(limits.name.clone()).or_insert_with(|| fresh.clone());
                if known.limits.rate != limits.rate {
                    *known = fresh;
                }
                known.limits = limits;
            }
            Err(TenantRefusal::TooMany { .. }) => {
                self.count("TooMany");
                assert!(!self.tenants.is_empty() && !self.tenants.contains_key(&limits.name));
            }
        }
        format!("{reply:?}")
    }

    pub(super) fn on_remove_tenant(&mut self, tenant: u8) -> String {
        let tenant = tenant_of(tenant);
        let reply = self.call(RemoveTenant { tenant: tenant.clone() });
        assert_eq!(reply.is_ok(), self.tenants.remove(&tenant).is_some());
        format!("{reply:?}")
    }

    /// After a restart every bucket is full.
    pub(super) fn buckets_are_full(&mut self) {
        for limited in self.tenants.values_mut() {
            limited.accepted.clear();
        }
    }

    pub(super) fn limit_of(&self, tenant: &TenantName) -> Option<u64> {
        self.tenants.get(tenant).and_then(|limited| limited.limits.backlog_max)
    }

    pub(super) fn backlog_of(&self, tenant: &TenantName) -> u64 {
        let found = self.cell.ledger.tenants(None, 100).0;
        found.iter().find(|record| record.tenant.name == *tenant).map_or(0, |record| record.waiting)
    }

    /// Law 12: what was accepted is within the tenant's bound and rate. In no span was more accepted than the burst
    /// and what the span's seconds allow, the last submission aside, which may have left a debt.
    pub(super) fn on_admitted(&mut self, tenant: &TenantName, backlog: u64, count: u32) {
        let now = self.now();
        let Some(limited) = self.tenants.get_mut(tenant) else { return };
        assert!(limited.limits.backlog_max.is_none_or(|max| backlog + u64::from(count) <= max), "law 12: the backlog");
        let Some(rate) = limited.limits.rate else { return };
        let needed = u64::from(count.min(rate.burst));
        let mut before = 0;
        for (at, accepted) in limited.accepted.iter().rev() {
            before += u64::from(*accepted);
            let gained = now.since(*at).0 * u64::from(rate.per_second);
            let allowed = u64::from(rate.burst) * 1000 + gained;
            assert!((before + needed) * 1000 <= allowed, "law 12: {before} and {count} more since {at} at {rate:?}");
        }
        limited.accepted.push((now, count));
        if count > rate.burst {
            self.count("debt");
        }
    }

    /// A computed wait is right to the millisecond: just before it the same is refused, after it not.
    pub(super) fn check_wait(&mut self, submission: Submission, wait: Millis) {
        assert!(wait > Millis(0));
        let at = |span: Millis| {
            let group = GroupId(u64::MAX - 9);
            let submit = Submit { group, submission: submission.clone(), body_digest: 0 };
            let mut copy = self.cell.ledger.clone();
            let reply = copy.apply(self.now().after(span), submit.into_operation()).0;
            Submit::from_reply(reply).expect("its own reply")
        };
        let refused =
            |reply: &Result<SubmitReply, SubmitRefusal>| matches!(reply, Err(SubmitRefusal::RateExceeded { .. }));
        assert!(refused(&at(Millis(wait.0 - 1))), "a shorter wait would do");
        assert!(!refused(&at(wait)), "the wait is too short");
    }
}
