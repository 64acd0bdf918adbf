//! Rows of tenants' limits and tokens. Knows nothing of what they let do.

use rusqlite::{Connection, Row, params};
use volley_model::{Tenant, TenantName, Token, TokenId};

use super::{DbError, Done, bits, from_json, json, text};

/// Writes a tenant's limits.
pub(in crate::embedded) fn put_tenant(db: &Connection, tenant: &Tenant) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO tenant (name, body) VALUES (?1, ?2)")?;
    statement.execute([tenant.name.as_str(), &json(tenant)])?;
    Ok(())
}

/// Forgets a tenant's limits.
pub(in crate::embedded) fn remove_tenant(db: &Connection, tenant: &TenantName) -> Done {
    db.prepare_cached("DELETE FROM tenant WHERE name = ?1")?.execute([tenant.as_str()])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_TENANT: &str = "SELECT body FROM tenant ORDER BY name";

/// From [`SELECT_TENANT`].
pub(in crate::embedded) fn tenant_from(row: &Row<'_>) -> Result<Tenant, DbError> {
    from_json("tenant", text("tenant", row, 0)?)
}

/// Writes a token's record.
pub(in crate::embedded) fn put_token(db: &Connection, token: &Token) -> Done {
    let mut statement = db.prepare_cached("INSERT OR REPLACE INTO token (id, body) VALUES (?1, ?2)")?;
    statement.execute(params![bits(token.id.0), json(token)])?;
    Ok(())
}

/// Forgets a token.
pub(in crate::embedded) fn remove_token(db: &Connection, token: TokenId) -> Done {
    db.prepare_cached("DELETE FROM token WHERE id = ?1")?.execute([bits(token.0)])?;
    Ok(())
}

pub(in crate::embedded) const SELECT_TOKEN: &str = "SELECT body FROM token ORDER BY id";

/// From [`SELECT_TOKEN`].
pub(in crate::embedded) fn token_from(row: &Row<'_>) -> Result<Token, DbError> {
    from_json("token", text("token", row, 0)?)
}
