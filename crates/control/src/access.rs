//! Tokens and tenants' limits: what operators ask for. Secrets are made here and kept nowhere.

use volley_ledger::{Answer, ApplyTenant, CreateToken, NotFound, Query, RemoveTenant, RevokeToken, TokenRefusal};
use volley_model::access::{SECRET_BYTES, check_new_token, secret_text};
use volley_model::{Millis, Role, SecretHash, Tenant, TenantName, Token, TokenId};
use volley_store::{Store, StoreError, StoreExt};

use crate::{Control, ControlError, Random};

/// Random ids tried before giving up: one repeat is a chance in 2^64 per token.
const TOKEN_IDS_TRIED: usize = 3;
/// Tokens of one read.
const TOKENS_PAGE: u32 = 1_000;

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Whose.
    pub tenant: TenantName,
    /// What it lets do.
    pub role: Role,
    /// What it is for.
    pub note: Option<String>,
    /// How long it counts; for ever when `None`.
    pub expires_in: Option<Millis>,
}

/// Makes a token in a store; gives its record and its secret, which is nowhere else.
pub async fn create_token(store: &dyn Store, random: &Random, new: &NewToken) -> Result<(Token, String), ControlError> {
    check_new_token(new.note.as_deref(), new.expires_in)?;
    for _ in 0..TOKEN_IDS_TRIED {
        let mut bytes = [0; SECRET_BYTES];
        for part in bytes.chunks_exact_mut(8) {
            part.copy_from_slice(&random.number().to_le_bytes());
        }
        let secret = secret_text(bytes);
        let create = CreateToken {
            token: TokenId(random.number()),
            hash: SecretHash::of(&secret),
            tenant: new.tenant.clone(),
            role: new.role,
            note: new.note.clone(),
            expires_in: new.expires_in,
        };
        match store.call(create).await? {
            Ok(token) => return Ok((token, secret)),
            Err(TokenRefusal::IdTaken) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(TokenRefusal::IdTaken.into())
}

/// Whether a store has an operator's token that nobody revoked.
pub async fn has_admin(store: &dyn Store) -> Result<bool, ControlError> {
    let mut after = None;
    loop {
        let Answer::Tokens { tokens, more } = store.read(Query::Tokens { after, max: TOKENS_PAGE }).await? else {
            return Err(StoreError::Unavailable { reason: "it answered another question".to_owned() }.into());
        };
        if tokens.iter().any(|token| token.role == Role::Admin && token.revoked_at.is_none()) {
            return Ok(true);
        }
        match tokens.last().filter(|_| more) {
            Some(last) => after = Some(last.id),
            None => return Ok(false),
        }
    }
}

impl Control {
    /// Makes a token; gives its record and its secret, which is nowhere else.
    pub async fn create_token(&self, new: &NewToken) -> Result<(Token, String), ControlError> {
        create_token(&*self.store, &self.options.random, new).await
    }

    /// Ends a token at once.
    pub async fn revoke_token(&self, token: TokenId) -> Result<Token, ControlError> {
        Ok(self.store.call(RevokeToken { token }).await??)
    }

    /// Sets a tenant's limits.
    pub async fn apply_tenant(&self, tenant: Tenant) -> Result<(), ControlError> {
        tenant.check()?;
        Ok(self.store.call(ApplyTenant { tenant }).await??)
    }

    /// Removes a tenant's limits.
    pub async fn remove_tenant(&self, tenant: TenantName) -> Result<(), ControlError> {
        Ok(self.store.call(RemoveTenant { tenant }).await??)
    }

    /// One token's record by its id.
    pub async fn token(&self, id: TokenId) -> Result<Token, ControlError> {
        let after = id.0.checked_sub(1).map(TokenId);
        match self.store.read(Query::Tokens { after, max: 1 }).await? {
            Answer::Tokens { mut tokens, .. } if tokens.first().is_some_and(|token| token.id == id) => {
                Ok(tokens.remove(0))
            }
            _ => Err(NotFound { what: format!("token {id}") }.into()),
        }
    }
}
