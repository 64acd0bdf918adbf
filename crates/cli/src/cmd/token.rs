//! `volley token` and `volley tenant`: who may use the server, and how much.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use volley_control::{NewToken, Random};
use volley_model::{Millis, Role, TenantName, Timestamp};
use volley_store::embedded::{EmbeddedOptions, EmbeddedStore};
use volley_wire::client::Client;

use crate::cmd::show::all_pages;
use crate::command_error::CommandError;
use crate::output::{self, Format, rows, text};
use crate::words;

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token; its secret is shown this once.
    Create(Create),
    /// List tokens, ended ones included; never a secret.
    List,
    /// End a token.
    Revoke {
        /// The id of its record.
        id: String,
    },
}

/// A new token.
#[derive(Debug, Args)]
pub struct Create {
    /// admin (everything, of every tenant), submit, read (a tenant's own), or worker.
    #[arg(long)]
    role: Role,
    /// Whose it is.
    #[arg(long, default_value = "default", value_name = "NAME")]
    tenant: TenantName,
    /// What it is for.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// How long it counts, as in 720h (default: until it is revoked).
    #[arg(long, value_name = "TIME")]
    expires_in: Option<Millis>,
    /// Make it in the data folder of a server that does not run, instead of asking one: for who has no token left.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Tenants' limits.
#[derive(Debug, Subcommand)]
pub enum Tenants {
    /// Set a tenant's limits, all of them: what is left out is no limit.
    Set(Limits),
    /// List tenants that have limits or waiting containers.
    List,
    /// Remove a tenant's limits.
    Remove {
        /// The tenant.
        name: TenantName,
    },
}

/// Limits of a tenant.
#[derive(Debug, Args)]
pub struct Limits {
    /// The tenant.
    name: TenantName,
    /// Most of its containers that may wait.
    #[arg(long, value_name = "N")]
    backlog_max: Option<u64>,
    /// Containers per second in the long run.
    #[arg(long, value_name = "N", requires = "burst")]
    rate: Option<u32>,
    /// Containers at once after a pause.
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
}

/// `volley token`.
pub async fn tokens(tokens: &Tokens, client: &Client, format: Format) -> Result<(), CommandError> {
    match tokens {
        Tokens::Create(create) => self::create(create, client, format).await,
        Tokens::List => list_tokens(client, format).await,
        Tokens::Revoke { id } => {
            let token = client.json(Method::DELETE, &format!("/v1/tokens/{}", output::in_path(id)), None).await?;
            match format {
                Format::Json => output::write_json_object(&token)?,
                Format::Quiet => output::write_line(&text(&token["id"]))?,
                Format::Table => output::write_line(&format!("token {} is revoked", text(&token["id"])))?,
            }
            Ok(())
        }
    }
}

async fn create(create: &Create, client: &Client, format: Format) -> Result<(), CommandError> {
    let made = match &create.data {
        Some(dir) => create_offline(create, dir.clone()).await?,
        None => {
            let body = json!({
                "tenant": create.tenant, "role": create.role, "note": create.note,
                "expires_in": create.expires_in.map(|life| life.to_string()),
            });
            client.json(Method::POST, "/v1/tokens", Some(&body)).await?
        }
    };
    match format {
        Format::Json => output::write_json_object(&made)?,
        Format::Quiet => output::write_line(&text(&made["secret"]))?,
        Format::Table => {
            output::write_line(&text(&made["secret"]))?;
            let (id, role, tenant) = (text(&made["id"]), text(&made["role"]), text(&made["tenant"]));
            eprintln!("this is shown once; token {id} has the role {role} for tenant {tenant}");
        }
    }
    Ok(())
}

/// Makes a token where the data are: whoever can write there may do everything anyway.
async fn create_offline(create: &Create, dir: PathBuf) -> Result<Value, CommandError> {
    if !dir.join("volley.db").exists() {
        return Err(CommandError::NotFound(format!("there is no store in {}", dir.display())));
    }
    let store = EmbeddedStore::open(EmbeddedOptions::new(dir));
    let store = store.map_err(|error| CommandError::Unreachable(error.to_string()))?;
    let new = NewToken {
        tenant: create.tenant.clone(),
        role: create.role,
        note: create.note.clone(),
        expires_in: create.expires_in,
    };
    let (token, secret) = volley_control::create_token(&store, &Random::default(), &new).await?;
    Ok(json!({ "id": token.id.to_string(), "tenant": token.tenant, "role": token.role, "secret": secret }))
}

async fn list_tokens(client: &Client, format: Format) -> Result<(), CommandError> {
    let page = all_pages(client, "/v1/tokens", "tokens").await?;
    let time = |value: &Value| value.as_u64().map(|at| words::moment(Timestamp(at))).unwrap_or_default();
    match format {
        Format::Json => output::write_json_object(&page)?,
        Format::Quiet => output::write_lines(rows(&page, "tokens").map(|row| text(&row["id"])))?,
        Format::Table => {
            let header = ["id", "tenant", "role", "created", "expires", "revoked", "note"];
            let row = |row: &Value| {
                vec![
                    text(&row["id"]),
                    text(&row["tenant"]),
                    text(&row["role"]),
                    time(&row["created_at_ms"]),
                    time(&row["expires_at_ms"]),
                    time(&row["revoked_at_ms"]),
                    text(&row["note"]),
                ]
            };
            output::write_table(&header, rows(&page, "tokens").map(row))?;
        }
    }
    Ok(())
}

/// `volley tenant`.
pub async fn tenants(tenants: &Tenants, client: &Client, format: Format) -> Result<(), CommandError> {
    let path = |name: &TenantName| format!("/v1/tenants/{name}");
    match tenants {
        Tenants::Set(limits) => {
            let rate = limits.rate.zip(limits.burst);
            let rate = rate.map(|(per_second, burst)| json!({ "per_second": per_second, "burst": burst }));
            let body = json!({ "backlog_max": limits.backlog_max, "rate": rate });
            client.bytes(Method::PUT, &path(&limits.name), Some(&body)).await?;
            Ok(())
        }
        Tenants::Remove { name } => {
            client.bytes(Method::DELETE, &path(name), None).await?;
            Ok(())
        }
        Tenants::List => {
            let page = all_pages(client, "/v1/tenants", "tenants").await?;
            match format {
                Format::Json => output::write_json_object(&page)?,
                Format::Quiet => output::write_lines(rows(&page, "tenants").map(|row| text(&row["name"])))?,
                Format::Table => {
                    let header = ["name", "waiting", "backlog max", "rate", "burst"];
                    let row = |row: &Value| {
                        let rate = &row["rate"];
                        let numbers = [&row["waiting"], &row["backlog_max"], &rate["per_second"], &rate["burst"]];
                        let mut cells = vec![text(&row["name"])];
                        cells.extend(numbers.into_iter().map(text));
                        cells
                    };
                    output::write_table(&header, rows(&page, "tenants").map(row))?;
                }
            }
            Ok(())
        }
    }
}
