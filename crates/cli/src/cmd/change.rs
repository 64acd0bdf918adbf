//! The commands that change something: `stop`, `cordon`, `uncordon`, `drain`, `backup`.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use volley_model::Millis;
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format, in_path, text};

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
    /// Its name, or the beginning of it.
    worker: String,
}

/// Place nothing new on a worker, and let it go when it is empty.
#[derive(Debug, Args)]
pub struct Drain {
    /// Its name, or the beginning of it.
    worker: String,
    /// What still runs after this is stopped, with its grace (default: it goes on to its end).
    #[arg(long, value_name = "TIME")]
    deadline: Option<Millis>,
}

/// Write a consistent copy of the store while it runs.
#[derive(Debug, Args)]
pub struct Backup {
    /// A new file, on the server's machine.
    file: PathBuf,
}

fn say(format: Format, words: &str, name: &str, reply: &Value) -> Result<(), CommandError> {
    match format {
        Format::Table => output::write_line(words)?,
        Format::Json => output::write_json_object(reply)?,
        Format::Quiet => output::write_line(name)?,
    }
    Ok(())
}

/// `volley stop`. All that are named are tried; the first that cannot be is the error.
pub async fn stop(stop: &Stop, client: &Client, format: Format) -> Result<(), CommandError> {
    let (mut stopped, mut failed) = (Vec::new(), Ok(()));
    for id in &stop.ids {
        let path = format!("/v1/containers/{}?force={}", in_path(id), stop.force);
        match client.json(Method::DELETE, &path, None).await {
            Ok(mut reply) => {
                reply["id"] = id.as_str().into();
                stopped.push(reply);
            }
            Err(error) if failed.is_ok() => failed = Err(error.into()),
            Err(_) => {}
        }
    }
    let words = |reply: &Value| {
        let (waited, told, before) = (&reply["finished"], &reply["stopping"], &reply["already_finished"]);
        format!("{}: {told} told to stop, {waited} waited and end now, {before} had finished", text(&reply["id"]))
    };
    match format {
        Format::Table => output::write_lines(stopped.iter().map(words))?,
        Format::Json => output::write_json_object(json!({ "stopped": stopped }))?,
        Format::Quiet => output::write_lines(stopped.iter().map(|reply| text(&reply["id"])))?,
    }
    failed
}

/// `volley cordon` and `uncordon`.
pub async fn cordon(name: &Name, action: &str, client: &Client, format: Format) -> Result<(), CommandError> {
    let path = format!("/v1/workers/{}/{action}", in_path(&name.worker));
    let reply = client.json(Method::POST, &path, None).await?;
    let worker = text(&reply["worker"]);
    let words = if action == "cordon" { "nothing new is placed on it" } else { "containers are placed on it again" };
    say(format, &format!("{worker}: {words}"), &worker, &reply)
}

/// `volley drain`.
pub async fn drain(drain: &Drain, client: &Client, format: Format) -> Result<(), CommandError> {
    let deadline = drain.deadline.map(|deadline| format!("?deadline={deadline}")).unwrap_or_default();
    let path = format!("/v1/workers/{}/drain{deadline}", in_path(&drain.worker));
    let reply = client.json(Method::POST, &path, None).await?;
    let worker = text(&reply["worker"]);
    let then = match drain.deadline {
        Some(deadline) => format!("what still runs in {deadline} is stopped"),
        None => "what runs there goes on to its end".to_owned(),
    };
    say(format, &format!("{worker}: nothing new is placed on it; {then}"), &worker, &reply)
}

/// `volley backup`.
pub async fn backup(backup: &Backup, client: &Client, format: Format) -> Result<(), CommandError> {
    let file = std::path::absolute(&backup.file).map_err(|error| CommandError::Usage(error.to_string()))?;
    let reply = client.json(Method::POST, "/v1/backup", Some(&json!({ "file": file }))).await?;
    let file = file.display().to_string();
    say(format, &format!("copied to {file}"), &file, &reply)
}
