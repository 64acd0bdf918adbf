//! The commands that change something: `stop`, `cordon`, `uncordon`, `drain`, `backup`.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format};

/// Stop a container or group.
#[derive(Debug, Args)]
pub struct Stop {
    /// Ids, or the beginnings of some.
    #[arg(required = true)]
    ids: Vec<String>,
    /// Kill at once instead of after the grace.
    #[arg(short, long)]
    force: bool,
}

/// A worker.
#[derive(Debug, Args)]
pub struct Name {
    /// Its name.
    worker: String,
}

/// Write a consistent copy of the store while it runs.
#[derive(Debug, Args)]
pub struct Backup {
    /// A new file, on the server's machine.
    file: PathBuf,
}

fn say(format: Format, words: &str, reply: &Value) -> Result<(), CommandError> {
    match format {
        Format::Table => output::write_line(words)?,
        Format::Json => output::write_json_object(reply)?,
        Format::Quiet => {}
    }
    Ok(())
}

/// `volley stop`.
pub async fn stop(stop: &Stop, client: &Client, format: Format) -> Result<(), CommandError> {
    for id in &stop.ids {
        let path = format!("/v1/containers/{id}?force={}", stop.force);
        let reply = client.json(Method::DELETE, &path, None).await?;
        let (waited, told, before) = (&reply["finished"], &reply["stopping"], &reply["already_finished"]);
        say(format, &format!("{id}: {told} told to stop, {waited} waited and end now, {before} had finished"), &reply)?;
    }
    Ok(())
}

/// `volley cordon`, `uncordon`, `drain`.
pub async fn schedulable(name: &Name, action: &str, client: &Client, format: Format) -> Result<(), CommandError> {
    let reply = client.json(Method::POST, &format!("/v1/workers/{}/{action}", name.worker), None).await?;
    say(format, &format!("{}: {action} done", name.worker), &reply)
}

/// `volley backup`.
pub async fn backup(backup: &Backup, client: &Client, format: Format) -> Result<(), CommandError> {
    let file = std::path::absolute(&backup.file).map_err(|error| CommandError::Usage(error.to_string()))?;
    let reply = client.json(Method::POST, "/v1/backup", Some(&json!({ "file": file }))).await?;
    say(format, &format!("copied to {}", file.display()), &reply)
}
