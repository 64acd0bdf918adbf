//! Tokens and tenants' limits.

use volley_model::{Tenant, TenantName, Token, TokenId};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::{Change, CreateToken, EventKind, NotFound, TenantRefusal, TokenRefusal};

impl Ledger {
    pub(crate) fn create_token(&mut self, op: CreateToken, out: &mut Effects) -> Result<Token, TokenRefusal> {
        if let Some(known) = self.tokens.get(&op.token) {
            let same = (known.hash, &known.tenant, known.role) == (op.hash, &op.tenant, op.role);
            return if same { Ok(known.clone()) } else { Err(TokenRefusal::IdTaken) };
        }
        if self.tokens_by_hash.contains_key(&op.hash) {
            return Err(TokenRefusal::IdTaken);
        }
        let limit = self.options.tokens_max;
        if self.tokens.len() >= limit as usize {
            return Err(TokenRefusal::TooMany { limit });
        }
        let now = self.counters.now;
        let token = Token {
            id: op.token,
            hash: op.hash,
            tenant: op.tenant,
            role: op.role,
            note: op.note,
            created_at: now,
            expires_at: op.expires_in.map(|life| now.after(life)),
            revoked_at: None,
        };
        self.keep_token(token.clone());
        self.token_event(&token, out);
        Ok(token)
    }

    pub(crate) fn revoke_token(&mut self, id: TokenId, out: &mut Effects) -> Result<Token, NotFound> {
        let known = self.tokens.get(&id).ok_or_else(|| NotFound { what: format!("token {id}") })?;
        if known.revoked_at.is_some() {
            return Ok(known.clone());
        }
        let token = Token { revoked_at: Some(self.counters.now), ..known.clone() };
        self.forget_token(id);
        self.keep_token(token.clone());
        self.token_event(&token, out);
        Ok(token)
    }

    fn token_event(&mut self, token: &Token, out: &mut Effects) {
        out.change(Change::PutToken(token.clone()));
        let (tenant, role, revoked) = (token.tenant.clone(), token.role, token.revoked_at.is_some());
        out.event(&mut self.counters, EventKind::Token { token: token.id, tenant, role, revoked });
    }

    /// Takes a token into the lists.
    pub(crate) fn keep_token(&mut self, token: Token) {
        if let Some(end) = token.ends_at() {
            self.tokens_until.insert((end.after(self.options.token_record_age_max), token.id));
        }
        self.tokens_by_hash.insert(token.hash, token.id);
        self.tokens.insert(token.id, token);
    }

    fn forget_token(&mut self, id: TokenId) {
        let Some(token) = self.tokens.remove(&id) else { return };
        self.tokens_by_hash.remove(&token.hash);
        if let Some(end) = token.ends_at() {
            self.tokens_until.remove(&(end.after(self.options.token_record_age_max), id));
        }
    }

    /// Tokens that ended long ago.
    pub(crate) fn sweep_tokens(&mut self, max: u32, out: &mut Effects) {
        for _ in 0..max {
            let due = self.tokens_until.first().filter(|(until, _)| *until <= self.counters.now);
            let Some((_, id)) = due.copied() else { break };
            self.forget_token(id);
            out.change(Change::RemoveToken(id));
        }
    }

    pub(crate) fn apply_tenant(&mut self, tenant: Tenant, out: &mut Effects) -> Result<(), TenantRefusal> {
        let before = self.tenants.get(&tenant.name).and_then(|entry| entry.limits.as_ref());
        if before == Some(&tenant) {
            return Ok(());
        }
        let limit = self.options.tenants_max;
        let limited = self.tenants.values().filter(|entry| entry.limits.is_some()).count();
        if before.is_none() && limited >= limit as usize {
            return Err(TenantRefusal::TooMany { limit });
        }
        out.change(Change::PutTenant(tenant.clone()));
        out.event(&mut self.counters, EventKind::Tenant { tenant: tenant.name.clone(), removed: false });
        self.set_limits(tenant);
        Ok(())
    }

    pub(crate) fn remove_tenant(&mut self, name: &TenantName, out: &mut Effects) -> Result<(), NotFound> {
        if self.tenants.get(name).is_none_or(|entry| entry.limits.is_none()) {
            return Err(NotFound { what: format!("limits of tenant '{name}'") });
        }
        self.drop_limits(name);
        out.change(Change::RemoveTenant(name.clone()));
        out.event(&mut self.counters, EventKind::Tenant { tenant: name.clone(), removed: true });
        Ok(())
    }
}
