//! `volley serve`: a server, until Ctrl-C or SIGTERM. Workers connect to it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use volley_api::TlsFiles;
use volley_control::pools::Lifetime;
use volley_model::Millis;
use volley_store::redis::RedisTls;
use volley_wire::access::ServerAccess;

use crate::command_error::CommandError;
use crate::fleet::{interrupted, stdin_ended};
use crate::output::Format;
use crate::server::{Guard, RunningServer, ServerFlags, StoreChoice};

/// A server.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on. Port 0 picks a free one. Others than loopback need --tokens and --tls-cert, or --insecure.
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    listen: SocketAddr,
    /// Folder of the store; one server process each.
    #[arg(long, default_value = ".volley", value_name = "DIR", env = "VOLLEY_DATA")]
    data: PathBuf,
    /// A Redis or Valkey that this server shares with others, as in redis://user:password@host:6379/0,
    /// rediss://... (TLS) or redis+unix:///run/redis.sock; instead of a folder.
    #[arg(long, value_name = "URL", env = "VOLLEY_STORE", conflicts_with = "data", hide_env_values = true)]
    store: Option<String>,
    /// Which cell of that Redis: servers of one cell work together.
    #[arg(long, default_value = "default", value_name = "NAME", env = "VOLLEY_CELL", requires = "store")]
    cell: String,
    #[command(flatten)]
    store_tls: StoreTlsFlags,
    /// At the start, a Redis that does not answer is waited for so long.
    #[arg(long, value_name = "TIME", default_value = "60s", env = "VOLLEY_STORE_WAIT", requires = "store")]
    store_wait: Millis,
    /// Where workers and other servers reach this one, as in https://volley1.example:7171 (default: where it listens, unless that is on all addresses).
    #[arg(long, value_name = "URL", env = "VOLLEY_ADVERTISE")]
    advertise: Option<String>,
    /// Every call needs a token. At the first start an admin's is made and written to admin.token in the data folder (with --store: in the current one).
    #[arg(long, env = "VOLLEY_TOKENS")]
    tokens: bool,
    /// The server's certificate (PEM), then those up to its authority's; loaded again when it changes.
    #[arg(long, value_name = "FILE", env = "VOLLEY_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM).
    #[arg(long, value_name = "FILE", env = "VOLLEY_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Certificates (PEM) of who signs the clients'; with it every client and worker must show one.
    #[arg(long, value_name = "FILE", env = "VOLLEY_TLS_CLIENT_CA", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Listen where others can reach it although there are no tokens or no TLS.
    #[arg(long, env = "VOLLEY_INSECURE")]
    insecure: bool,
    /// End when standard input does: for a program that starts this one as its child.
    #[arg(long)]
    end_with_stdin: bool,
    #[command(flatten)]
    flags: ServerFlags,
}

/// For --store rediss://...
#[derive(Debug, Args)]
struct StoreTlsFlags {
    /// With --store rediss://...: certificates (PEM) of who may have signed the store's; by default those of the system.
    #[arg(long, value_name = "FILE", env = "VOLLEY_STORE_CA", requires = "store")]
    store_ca: Option<PathBuf>,
    /// With --store rediss://...: a certificate (PEM) to show to a store that asks for one.
    #[arg(long, value_name = "FILE", env = "VOLLEY_STORE_CERT", requires = "store_key")]
    store_cert: Option<PathBuf>,
    /// The key of --store-cert (PEM).
    #[arg(long, value_name = "FILE", env = "VOLLEY_STORE_KEY", requires = "store_cert")]
    store_key: Option<PathBuf>,
}

impl StoreTlsFlags {
    fn read(&self) -> Result<RedisTls, CommandError> {
        let ca = self.store_ca.as_deref().map(read_file).transpose()?;
        let identity = match (&self.store_cert, &self.store_key) {
            (Some(certificate), Some(key)) => Some((read_file(certificate)?, read_file(key)?)),
            _ => None,
        };
        Ok(RedisTls { ca, identity })
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(file).map_err(|error| CommandError::Usage(format!("cannot read {}: {error}", file.display())))
}

impl Serve {
    fn guard(&self, access: &ServerAccess) -> Result<Guard, CommandError> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = files.map(|(certificate, key)| {
            let client_ca = self.tls_client_ca.clone();
            TlsFiles { certificate, key, client_ca }
        });
        let advertise = self.advertise.as_ref().map(|url| advertised(url, tls.is_some())).transpose()?;
        // Whom its clients are to trust, and how they show who they are, it takes for other servers too; the token is
        // that of whoever asks.
        let peers = ServerAccess { token: None, ..access.clone() };
        Ok(Guard { tokens: self.tokens, tls, insecure: self.insecure, advertise, peers })
    }
}

/// An address that others can use.
fn advertised(url: &str, tls: bool) -> Result<String, CommandError> {
    let scheme = if tls { "https://" } else { "http://" };
    match url.trim_end_matches('/').strip_prefix(scheme) {
        Some(host) if !host.is_empty() && !host.contains(['/', ',', ' ']) => Ok(format!("{scheme}{host}")),
        _ => Err(CommandError::Usage(format!("--advertise: '{url}' is not {scheme}HOST:PORT of this server"))),
    }
}

/// Runs until it is interrupted.
pub async fn serve(serve: &Serve, access: &ServerAccess, format: Format) -> Result<(), CommandError> {
    volley_api::raise_open_files();
    let store = match &serve.store {
        Some(url) => StoreChoice::Redis {
            url: url.clone(),
            cell: serve.cell.clone(),
            tls: serve.store_tls.read()?,
            patience: serve.store_wait.to_duration(),
        },
        None => StoreChoice::Folder(serve.data.clone()),
    };
    let name = store.name();
    let guard = serve.guard(access)?;
    let server = RunningServer::start_guarded(serve.listen, store, &serve.flags, guard, Lifetime::OfMachines);
    let server = server.await?;
    server.announce(&name, format)?;
    tokio::select! {
        () = interrupted() => {}
        () = stdin_ended(serve.end_with_stdin) => {}
    }
    server.end().await;
    Ok(())
}
