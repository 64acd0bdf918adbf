//! `volley inspect`: all that is known of one container or group.

use clap::Args;
use http::Method;
use serde_json::Value;
use volley_model::{Bytes, Millis, Timestamp};
use volley_wire::client::Client;

use crate::cmd::ps::waiting_words;
use crate::command_error::CommandError;
use crate::output::{self, Format, in_path, rows, text};
use crate::words;

/// One container or group.
#[derive(Debug, Args)]
pub struct Inspect {
    /// An id, or the beginning of one.
    id: String,
}

/// `volley inspect`.
pub async fn inspect(inspect: &Inspect, client: &Client, format: Format) -> Result<(), CommandError> {
    let found = client.json(Method::GET, &format!("/v1/containers/{}", in_path(&inspect.id)), None).await?;
    let mut found = found;
    if found["count"].is_null() && !found["worker"].is_null() {
        // What it uses is its worker's to say; one that is not there says nothing.
        let stats = client.json(Method::GET, &format!("/v1/containers/{}/stats", in_path(&inspect.id)), None).await;
        found["stats"] = stats.unwrap_or_default();
    }
    match format {
        Format::Json => output::write_json_object(&found)?,
        Format::Quiet => output::write_line(&text(&found["id"]))?,
        // Only groups have a count.
        Format::Table if found["count"].is_null() => output::write_fields(container(&found))?,
        Format::Table => output::write_fields(group(&found))?,
    }
    Ok(())
}

fn container(found: &Value) -> Vec<(&'static str, String)> {
    let spec = &found["spec"];
    let command: Vec<String> = rows(found, "command").map(text).collect();
    let gpus: Vec<String> = rows(found, "gpus").map(gpu).collect();
    let submitted = found["submitted_at_ms"].as_u64();
    let since = |name: &str| {
        let at = found[name].as_u64().zip(submitted);
        let words = |(at, from): (u64, u64)| {
            format!("{} (+{})", words::moment(Timestamp(at)), words::span(Millis(at.saturating_sub(from))))
        };
        at.map(words).unwrap_or_default()
    };
    let why = if found["waiting"].is_null() { String::new() } else { waiting_words(&found["waiting"]) };
    vec![
        ("id", text(&found["id"])),
        ("group name", text(&found["name"])),
        ("state", text(&found["state"])),
        ("why", why),
        ("outcome", text(&found["outcome_words"])),
        ("attempt", text(&found["attempt"])),
        ("worker", text(&found["worker"])),
        ("gpus", gpus.join(", ")),
        ("command", command.join(" ")),
        ("env", pairs(&spec["env"])),
        ("working dir", text(&spec["working_dir"])),
        ("image", text(&spec["image"])),
        ("image digest", text(&found["stats"]["image_digest"])),
        ("pull", text(&spec["pull"])),
        ("cpu", text(&spec["resources"]["cpu"])),
        ("memory", text(&spec["resources"]["memory"])),
        ("gpu asked", text(&spec["resources"]["gpu"])),
        ("pool", pool(&spec["pool"])),
        ("labels asked", pairs(&spec["require_labels"])),
        ("affinity", text(&spec["affinity"])),
        ("priority", text(&spec["priority"])),
        ("retry", retry(&spec["retry"])),
        ("max wait", text(&spec["max_wait"])),
        ("unplaceable", text(&spec["on_unplaceable"])),
        ("disconnected", text(&spec["on_disconnect"])),
        ("stop grace", text(&spec["stop_grace"])),
        ("log limit", text(&spec["log_limit"])),
        ("cpu used", found["stats"]["cpu_us"].as_u64().map(|us| words::span(Millis(us / 1000))).unwrap_or_default()),
        ("memory used", bytes(&found["stats"]["memory_bytes"])),
        ("memory peak", bytes(&found["stats"]["memory_peak_bytes"])),
        ("submitted", submitted.map(|at| words::moment(Timestamp(at))).unwrap_or_default()),
        ("assigned", since("assigned_at_ms")),
        ("started", since("started_at_ms")),
        ("finished", since("finished_at_ms")),
    ]
}

fn bytes(value: &Value) -> String {
    value.as_u64().filter(|bytes| *bytes > 0).map(|bytes| Bytes(bytes).to_string()).unwrap_or_default()
}

fn group(found: &Value) -> Vec<(&'static str, String)> {
    vec![
        ("id", text(&found["id"])),
        ("name", text(&found["name"])),
        ("labels", pairs(&found["labels"])),
        ("containers", text(&found["count"])),
        ("finished", text(&found["finished"])),
        ("succeeded", text(&found["succeeded"])),
        ("submitted", found["submitted_at_ms"].as_u64().map(|at| words::moment(Timestamp(at))).unwrap_or_default()),
    ]
}

fn pairs(map: &Value) -> String {
    let pair = |(key, value): (&String, &Value)| format!("{key}={}", text(value));
    map.as_object().into_iter().flatten().map(pair).collect::<Vec<_>>().join(" ")
}

fn gpu(grant: &Value) -> String {
    match grant["milli"].as_u64() {
        Some(1000) | None => format!("device {}", grant["device"]),
        Some(milli) => format!("{}% of device {}", milli / 10, grant["device"]),
    }
}

fn pool(pool: &Value) -> String {
    match (pool["required"].as_str(), pool["preferred"].as_str()) {
        (Some(name), _) => format!("only {name}"),
        (_, Some(name)) => format!("{name} if there is room"),
        _ => text(pool),
    }
}

fn retry(retry: &Value) -> String {
    match retry["attempts_max"].as_u64() {
        None => text(retry),
        Some(attempts) => {
            let on: Vec<String> = rows(retry, "on").map(text).collect();
            let (first, longest) = (text(&retry["backoff"]), text(&retry["backoff_max"]));
            format!("up to {attempts} attempts on {}, after {first} doubling to {longest}", on.join(", "))
        }
    }
}
