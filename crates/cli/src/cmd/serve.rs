//! `volley serve`: a server, until Ctrl-C or SIGTERM. Workers connect to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::command_error::CommandError;
use crate::fleet::interrupted;
use crate::output::Format;
use crate::server::{RunningServer, ServerFlags, StoreChoice};

/// A server.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; loopback only. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    listen: SocketAddr,
    /// Folder of the store; one server process each.
    #[arg(long, default_value = ".volley", value_name = "DIR", env = "VOLLEY_DATA")]
    data: PathBuf,
    /// A Redis or Valkey that this server shares with others, as in redis://user:password@host:6379/0 or
    /// redis+unix:///run/redis.sock; instead of a folder.
    #[arg(long, value_name = "URL", env = "VOLLEY_STORE", conflicts_with = "data", hide_env_values = true)]
    store: Option<String>,
    /// Which cell of that Redis: servers of one cell work together.
    #[arg(long, default_value = "default", value_name = "NAME", env = "VOLLEY_CELL", requires = "store")]
    cell: String,
    #[command(flatten)]
    flags: ServerFlags,
}

/// Runs until it is interrupted.
pub async fn serve(serve: &Serve, format: Format) -> Result<(), CommandError> {
    let store = match &serve.store {
        Some(url) => StoreChoice::Redis { url: url.clone(), cell: serve.cell.clone() },
        None => StoreChoice::Folder(serve.data.clone()),
    };
    let name = store.name();
    let server = RunningServer::start(serve.listen, store, &serve.flags).await?;
    server.announce(&name, format)?;
    interrupted().await;
    server.end().await;
    Ok(())
}
