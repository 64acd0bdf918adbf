//! `volley serve`: a server, until Ctrl-C or SIGTERM. Workers connect to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::command_error::CommandError;
use crate::fleet::interrupted;
use crate::output::Format;
use crate::server::{RunningServer, ServerFlags};

/// A server.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on; loopback only. Port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7171", value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    listen: SocketAddr,
    /// Folder of the store; one server process each.
    #[arg(long, default_value = ".volley", value_name = "DIR", env = "VOLLEY_DATA")]
    data: PathBuf,
    #[command(flatten)]
    flags: ServerFlags,
}

/// Runs until it is interrupted.
pub async fn serve(serve: &Serve, format: Format) -> Result<(), CommandError> {
    let server = RunningServer::start(serve.listen, serve.data.clone(), &serve.flags).await?;
    server.announce(&serve.data, format)?;
    interrupted().await;
    server.end().await;
    Ok(())
}
