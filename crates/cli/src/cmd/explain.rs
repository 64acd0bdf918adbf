//! `volley explain`: why a container waits, what would have to change for it to start now, and when it is
//! expected to; or where the time of one that started went.

use clap::Args;
use http::Method;
use serde_json::Value;
use volley_model::Millis;
use volley_wire::client::Client;

use crate::cmd::ps::waiting_words;
use crate::command_error::CommandError;
use crate::output::{self, Format, in_path, rows, text};
use crate::words;

/// One container.
#[derive(Debug, Args)]
pub struct Explain {
    /// An id, or the beginning of one.
    id: String,
}

/// `volley explain`.
pub async fn explain(explain: &Explain, client: &Client, format: Format) -> Result<(), CommandError> {
    let found = client.json(Method::GET, &format!("/v1/containers/{}/explain", in_path(&explain.id)), None).await?;
    match format {
        Format::Json => output::write_json_object(&found)?,
        Format::Quiet => output::write_line(&text(&found["container"]["id"]))?,
        Format::Table => output::write_fields(fields(&found))?,
    }
    Ok(())
}

fn fields(found: &Value) -> Vec<(&'static str, String)> {
    let container = &found["container"];
    let span = |ms: &Value| words::span(Millis(ms.as_u64().unwrap_or_default()));
    let mut fields = vec![("id", text(&container["id"])), ("state", text(&container["state"]))];
    if container["waiting"].is_null() {
        fields.push(("outcome", text(&container["outcome_words"])));
        fields.push(("worker", text(&container["worker"])));
        fields.extend(rows(found, "there").map(|words| ("why there", text(words))));
    } else {
        fields.push(("why", waiting_words(&container["waiting"])));
        let ahead = &found["ahead"];
        if !ahead.is_null() {
            let (same, others) = (&ahead["same_shape"], &ahead["other_shapes"]);
            fields.push(("ahead", format!("{same} of its shape, up to {others} of others")));
        }
        fields.extend(rows(found, "classes").map(|class| ("workers", in_pool(class, "words"))));
        fields.extend(rows(found, "pools").map(|pool| ("pool", prospect(pool))));
        fields.push(("like it", of_shape(&found["shape"])));
        fields.push(("would start", text(&found["expected"]["words"])));
        fields.extend(rows(found, "changes").map(|change| ("or now", text(&change["words"]))));
    }
    fields.extend(rows(found, "spent").map(|spent| match spent["part"].as_str() {
        Some("waited") => ("waited", span(&spent["ms"])),
        Some("claimed") => ("claimed", format!("{} in its turn, from claim to commit", span(&spent["ms"]))),
        Some("delivered") => ("delivered", format!("{} until its worker took it", span(&spent["ms"]))),
        Some("started") => ("started", format!("{} for pull and start", span(&spent["ms"]))),
        _ => ("ran", span(&spent["ms"])),
    }));
    fields.extend(rows(found, "unknown").map(|words| ("unknown", text(words))));
    fields
}

fn in_pool(of: &Value, words: &str) -> String {
    format!("{}: {}", text(&of["pool"]), text(&of[words]))
}

/// What a pool could do about it.
fn prospect(pool: &Value) -> String {
    let mut line = in_pool(pool, "prospect");
    let on_way = pool["in_flight"].as_u64().unwrap_or(0);
    if on_way > 0 {
        let longest = words::span(Millis(pool["in_flight_for_ms"].as_u64().unwrap_or(0)));
        line += &format!("; {on_way} machines on their way, the first since {longest}");
        line += &format!(" (usually {})", text(&pool["boot_time"]));
    }
    line
}

/// How many of those that wait as it does are provided for.
fn of_shape(shape: &Value) -> String {
    if shape.is_null() {
        return String::new();
    }
    let [waiting, ready, booting, bought, unserved] =
        ["waiting", "fit_ready", "fit_booting", "bought_for", "unserved"].map(|name| text(&shape[name]));
    format!(
        "{waiting} wait: {ready} fit on ready workers, {booting} on machines on their way, {bought} are bought for, \
         {unserved} have nothing in sight"
    )
}
