//! The commands that only read: `ps`, `inspect`, `logs`, `workers`, `events`, `audit`.

use std::io::Write;

use clap::Args;
use http::Method;
use serde_json::Value;
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format};

/// List containers, and why those that wait do.
#[derive(Debug, Args)]
pub struct Ps {
    /// Finished ones too.
    #[arg(short, long)]
    all: bool,
    /// Only this group.
    #[arg(long)]
    group: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    max: u32,
}

/// One container or group.
#[derive(Debug, Args)]
pub struct Id {
    /// An id, or the beginning of one.
    id: String,
}

/// What a container has printed.
#[derive(Debug, Args)]
pub struct Logs {
    /// A container's id, or the beginning of one.
    id: String,
    /// Wait for more until it has finished.
    #[arg(short, long)]
    follow: bool,
    /// Only this stream.
    #[arg(long, value_parser = ["stdout", "stderr", "both"], default_value = "both")]
    stream: String,
}

/// Every transition, numbered.
#[derive(Debug, Args)]
pub struct Events {
    /// Wait for more.
    #[arg(short, long)]
    follow: bool,
    /// After this number.
    #[arg(long, default_value_t = 0)]
    after: u64,
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// `volley ps`.
pub async fn ps(ps: &Ps, client: &Client, format: Format) -> Result<(), CommandError> {
    let mut path = format!("/v1/containers?max={}", ps.max);
    if !ps.all {
        path.push_str("&state=queued,claimed,assigned,starting,running,stopping");
    }
    if let Some(group) = &ps.group {
        path.push_str(&format!("&group={group}"));
    }
    let page = client.json(Method::GET, &path, None).await?;
    match format {
        Format::Json => output::write_json_object(&page)?,
        Format::Quiet => output::write_lines(rows(&page, "containers").map(|row| text(&row["id"])))?,
        Format::Table => {
            let row = |row: &Value| {
                let command: Vec<String> = row["command"].as_array().into_iter().flatten().map(text).collect();
                let why = if row["waiting"].is_null() { &row["outcome_words"] } else { &row["waiting"]["words"] };
                let command = command.join(" ").chars().take(40).collect();
                vec![text(&row["id"]), text(&row["state"]), text(&row["worker"]), command, text(why)]
            };
            output::write_table(&["id", "state", "worker", "command", "why"], rows(&page, "containers").map(row))?;
        }
    }
    Ok(())
}

/// `volley inspect`.
pub async fn inspect(id: &Id, client: &Client) -> Result<(), CommandError> {
    Ok(output::write_json_object(client.json(Method::GET, &format!("/v1/containers/{}", id.id), None).await?)?)
}

/// `volley logs`.
pub async fn logs(logs: &Logs, client: &Client) -> Result<(), CommandError> {
    let path = format!("/v1/containers/{}/logs?stream={}&follow={}", logs.id, logs.stream, logs.follow);
    let mut written = Ok(());
    let copied = client.stream(&path, |bytes| {
        let mut out = std::io::stdout().lock();
        written = out.write_all(bytes).and_then(|()| out.flush());
        written.is_ok()
    });
    let copied = copied.await;
    written?;
    Ok(copied?)
}

/// `volley workers`.
pub async fn workers(client: &Client, format: Format) -> Result<(), CommandError> {
    let page = client.json(Method::GET, "/v1/workers", None).await?;
    match format {
        Format::Json => output::write_json_object(&page)?,
        Format::Quiet => output::write_lines(rows(&page, "workers").map(|row| text(&row["id"])))?,
        Format::Table => {
            let row = |row: &Value| {
                let cpu = format!("{}/{}", text(&row["free"]["cpu"]), text(&row["capacity"]["cpu"]));
                let slots = format!("{}/{}", text(&row["free"]["slots"]), text(&row["capacity"]["slots"]));
                let notes: Vec<String> = rows(row, "notes").map(text).collect();
                let (id, pool, status) = (text(&row["id"]), text(&row["pool"]), text(&row["status"]));
                vec![id, pool, status, text(&row["containers"]), cpu, slots, notes.join("; ")]
            };
            let header = ["id", "pool", "status", "containers", "cpu free (m)", "slots free", "notes"];
            output::write_table(&header, rows(&page, "workers").map(row))?;
        }
    }
    Ok(())
}

/// `volley events`.
pub async fn events(events: &Events, client: &Client, format: Format) -> Result<(), CommandError> {
    let mut after = events.after;
    loop {
        let page = client.json(Method::GET, &format!("/v1/events?after={after}&wait={}", events.follow), None).await?;
        let found: Vec<&Value> = rows(&page, "events").collect();
        for event in &found {
            after = event["number"].as_u64().unwrap_or(after);
            match format {
                Format::Quiet => output::write_line(&text(&event["number"]))?,
                Format::Table | Format::Json => output::write_line(&event.to_string())?,
            }
        }
        if found.is_empty() && !events.follow {
            return Ok(());
        }
    }
}

/// `volley audit`; a broken law is exit code 1.
pub async fn audit(client: &Client, format: Format) -> Result<(), CommandError> {
    let audit = client.json(Method::GET, "/v1/audit", None).await?;
    match format {
        Format::Json => output::write_json_object(&audit)?,
        Format::Quiet => {}
        Format::Table => {
            let names = ["accepted", "queued", "claimed", "assigned", "starting", "running", "stopping", "finished"];
            let row = |name: &&str| vec![(*name).to_owned(), text(&audit[*name])];
            let laws = if audit["ok"] == true { "all hold".to_owned() } else { text(&audit["violations"]) };
            let more = [vec!["pruned".to_owned(), text(&audit["pruned"])], vec!["laws".to_owned(), laws]];
            output::write_table(&["what", "count"], names.iter().map(row).chain(more))?;
        }
    }
    if audit["ok"] == true { Ok(()) } else { Err(CommandError::Ended(1)) }
}
