//! `volley events`: every transition, from a number on.

use clap::Args;
use http::Method;
use serde_json::Value;
use volley_model::Timestamp;
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format, printable, rows, text};
use crate::words;

/// Every transition, numbered.
#[derive(Debug, Args)]
pub struct Events {
    /// Wait for more.
    #[arg(short, long)]
    follow: bool,
    /// After this number.
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    after: u64,
}

/// `volley events`.
pub async fn events(events: &Events, client: &Client, format: Format) -> Result<(), CommandError> {
    let mut after = events.after;
    let mut titled = format != Format::Table;
    loop {
        let page = client.json(Method::GET, &format!("/v1/events?after={after}&wait={}", events.follow), None).await?;
        if !std::mem::replace(&mut titled, true) {
            output::write_line(&columns("NUMBER", "TIME", "WHAT", "STATE", "MORE"))?;
        }
        let oldest = page["oldest"].as_u64().unwrap_or(0);
        if oldest > after.saturating_add(1) {
            eprintln!("events up to {} are no longer kept", oldest - 1);
        }
        let found: Vec<&Value> = rows(&page, "events").collect();
        for event in &found {
            match format {
                Format::Quiet => output::write_line(&text(&event["number"]))?,
                Format::Json => output::write_json_line(event)?,
                Format::Table => output::write_line(&row(event))?,
            }
        }
        let next = page["next"].as_u64().unwrap_or(after);
        if next == after && !events.follow {
            return Ok(());
        }
        // What is no longer kept is said once.
        after = next.max(oldest.saturating_sub(1));
    }
}

/// The columns of a stream, whose later rows are not known when the first is printed.
fn columns(number: &str, time: &str, what: &str, state: &str, more: &str) -> String {
    format!("{number:>8}  {time:24}  {what:24}  {state:9}  {more}").trim_end().to_owned()
}

fn row(event: &Value) -> String {
    let (what, state, more) = match event["kind"].as_str() {
        Some("group_accepted") => {
            let count = words::count(event["count"].as_u64().unwrap_or(0), "container", "containers");
            (text(&event["group"]), "accepted", count)
        }
        Some("container") => (text(&event["container"]), event["state"].as_str().unwrap_or_default(), attempt(event)),
        Some("worker") => {
            (format!("worker {}", text(&event["worker"])), event["status"].as_str().unwrap_or_default(), String::new())
        }
        Some("pool") => {
            let state = if event["removed"] == true { "removed" } else { "applied" };
            (format!("pool {}", text(&event["pool"])), state, String::new())
        }
        // From a newer server.
        _ => (text(&event["kind"]), "", String::new()),
    };
    let at = words::moment(Timestamp(event["at_ms"].as_u64().unwrap_or(0)));
    columns(&text(&event["number"]), &at, &printable(&what), state, &printable(&more))
}

fn attempt(event: &Value) -> String {
    let mut more = Vec::new();
    if event["attempt"].as_u64().is_some_and(|attempt| attempt > 0) {
        more.push(format!("attempt {}", event["attempt"]));
    }
    if let Some(worker) = event["worker"].as_str() {
        more.push(format!("on {worker}"));
    }
    let outcome = text(&event["outcome_words"]);
    let more = more.join(" ");
    if outcome.is_empty() || more.is_empty() { more + &outcome } else { format!("{more}: {outcome}") }
}
