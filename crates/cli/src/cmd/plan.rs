//! `volley plan`: what would become of a submission.

use clap::Args;
use http::Method;
use serde_json::Value;
use volley_wire::client::Client;

use super::run::{Run, body_of};
use crate::command_error::CommandError;
use crate::output::{self, Format, rows, text};
use crate::words;

/// What would become of containers, which are not submitted: the flags of `run`.
#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    run: Run,
}

/// The exit code when something cannot be placed.
const UNPLACED: u8 = 2;

/// `volley plan`.
pub async fn plan(plan: &Plan, client: &Client, format: Format) -> Result<(), CommandError> {
    let reply = client.json(Method::POST, "/v1/plan", Some(&body_of(&plan.run)?)).await?;
    match format {
        Format::Json => output::write_json_object(&reply)?,
        Format::Quiet => {}
        Format::Table => output::write_lines(plan_lines(&reply))?,
    }
    if reply["unplaced"].as_u64() == Some(0) { Ok(()) } else { Err(CommandError::Ended(UNPLACED)) }
}

fn plan_lines(reply: &Value) -> Vec<String> {
    let mut lines: Vec<String> =
        reply["refused"].as_str().map(|why| format!("would be refused: {why}")).into_iter().collect();
    for run in rows(reply, "runs") {
        let count = words::count(run["count"].as_u64().unwrap_or(0), "container", "containers");
        lines.push(format!("{count}:"));
        let parts = [
            ("placed_now", "placed at once"),
            ("on_way", "on machines on their way, or where room comes"),
            ("bought_for", "on machines to be bought"),
            ("unplaced", "nowhere in sight"),
        ];
        for (field, words) in parts.iter().filter(|(field, _)| run[*field].as_u64() != Some(0)) {
            lines.push(format!("  {} {words}", text(&run[*field])));
        }
        let placed =
            |at: &Value| format!("    {} on {} of pool {}", text(&at["count"]), text(&at["worker"]), text(&at["pool"]));
        lines.extend(rows(run, "placed").map(placed));
        lines.extend(rows(run, "words").map(|words| format!("  waits: {}", text(words))));
        if run["unplaced"].as_u64() != Some(0) {
            lines.extend(
                rows(run, "pools").map(|pool| format!("  pool {}: {}", text(&pool["pool"]), text(&pool["prospect"]))),
            );
        }
    }
    for purchase in rows(reply, "purchases") {
        let cost = text(&purchase["cost_per_hour"]);
        lines.push(format!("buy {} of pool {} at {cost} an hour", text(&purchase["count"]), text(&purchase["pool"])));
    }
    lines.push(format!("cost: {} an hour more", text(&reply["cost_per_hour"])));
    lines
}
