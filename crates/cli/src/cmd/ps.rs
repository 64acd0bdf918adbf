//! `volley ps`: containers, page by page, and why those that wait do.

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use volley_model::{Millis, Timestamp};
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format, in_path, rows, text};
use crate::words;

/// Most containers of one page of the server.
const PAGE_MAX: usize = 1_000;
/// Commands are cut to so many characters.
const COMMAND_CHARS: usize = 40;

/// List containers, and why those that wait do.
#[derive(Debug, Args)]
pub struct Ps {
    /// Finished ones too.
    #[arg(short, long, conflicts_with = "states")]
    all: bool,
    /// Only in these states, as in queued,running.
    #[arg(long = "state", value_name = "STATES", value_delimiter = ',')]
    states: Vec<String>,
    /// Only this group; the beginning of its id will do.
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// At most this many; 0 for all.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    max: usize,
    /// Go on after this container: where an earlier list ended.
    #[arg(long, value_name = "ID")]
    after: Option<String>,
}

/// Pages until there are enough.
struct Pages {
    containers: Vec<Value>,
    next: Option<String>,
}

/// `volley ps`.
pub async fn ps(ps: &Ps, client: &Client, format: Format) -> Result<(), CommandError> {
    let pages = pages(ps, client).await?;
    match format {
        Format::Json => output::write_json_object(json!({ "containers": pages.containers, "next": pages.next }))?,
        Format::Quiet => output::write_lines(pages.containers.iter().map(|row| text(&row["id"])))?,
        Format::Table => {
            let header = ["id", "state", "attempt", "age", "worker", "command", "why"];
            output::write_table(&header, pages.containers.iter().map(row))?;
        }
    }
    if let Some(next) = pages.next.filter(|_| format != Format::Json) {
        eprintln!("there are more: go on with --after {next}, or list all with --max 0");
    }
    Ok(())
}

async fn pages(ps: &Ps, client: &Client) -> Result<Pages, CommandError> {
    let mut filter = String::new();
    if !ps.all {
        let unfinished = "queued,claimed,assigned,starting,running,stopping".to_owned();
        let states = if ps.states.is_empty() { unfinished } else { ps.states.join(",") };
        filter.push_str(&format!("&state={}", states.split(',').map(in_path).collect::<Vec<_>>().join(",")));
    }
    if let Some(group) = &ps.group {
        filter.push_str(&format!("&group={}", in_path(group)));
    }
    let mut pages = Pages { containers: Vec::new(), next: ps.after.clone() };
    loop {
        let wanted = if ps.max == 0 { PAGE_MAX } else { ps.max - pages.containers.len() };
        let after = pages.next.take().map(|next| format!("&after={}", in_path(&next))).unwrap_or_default();
        let path = format!("/v1/containers?max={}{filter}{after}", wanted.min(PAGE_MAX));
        let mut page = client.json(Method::GET, &path, None).await?;
        pages.next = page["next"].as_str().map(str::to_owned);
        if let Value::Array(containers) = page["containers"].take() {
            pages.containers.extend(containers);
        }
        if pages.next.is_none() || (ps.max > 0 && pages.containers.len() >= ps.max) {
            return Ok(pages);
        }
    }
}

fn row(row: &Value) -> Vec<String> {
    let command: Vec<String> = rows(row, "command").map(text).collect();
    let why = match (&row["waiting"], row["state"].as_str()) {
        (Value::Null, _) if row["detail"].is_string() => text(&row["detail"]),
        (Value::Null, Some("assigned")) => "its worker has not taken it yet".to_owned(),
        (Value::Null, _) => text(&row["outcome_words"]),
        (waiting, _) => waiting_words(waiting),
    };
    let command = command.join(" ").chars().take(COMMAND_CHARS).collect();
    let age = row["submitted_at_ms"].as_u64().map(|at| words::span(words::now().since(Timestamp(at))));
    let (id, state, attempt) = (text(&row["id"]), text(&row["state"]), text(&row["attempt"]));
    vec![id, state, attempt, age.unwrap_or_default(), text(&row["worker"]), command, why]
}

/// Why a container waits.
pub fn waiting_words(waiting: &Value) -> String {
    let why = text(&waiting["words"]);
    match waiting["not_before_ms"].as_u64() {
        None => why,
        Some(at) => {
            let left = Timestamp(at).since(words::now());
            if left > Millis(0) { format!("its retry is due in {}", words::span(left)) } else { why }
        }
    }
}
