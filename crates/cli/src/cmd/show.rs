//! The commands that show the whole: `workers` and `audit`.

use http::Method;
use serde_json::{Value, json};
use volley_model::{Bytes, Timestamp};
use volley_wire::client::Client;

use crate::command_error::CommandError;
use crate::output::{self, Format, rows, text};
use crate::words;

/// `volley workers`.
pub async fn workers(client: &Client, format: Format) -> Result<(), CommandError> {
    let mut page = all_pages(client, "/v1/workers", "workers").await?;
    // Machines after workers: one that registers in between is shown twice rather than not at all.
    let pools = client.json(Method::GET, "/v1/pools", None).await?;
    let coming: Vec<Value> = rows(&pools, "pools").flat_map(coming).collect();
    match format {
        Format::Json => {
            page["provisioning"] = coming.into();
            output::write_json_object(&page)?;
        }
        Format::Quiet => output::write_lines(rows(&page, "workers").map(|row| text(&row["id"])))?,
        Format::Table => {
            let header =
                ["id", "pool", "status", "containers", "cpu free", "memory free", "slots free", "gpus free", "notes"];
            output::write_table(&header, rows(&page, "workers").map(worker).chain(coming.iter().map(machine)))?;
        }
    }
    Ok(())
}

/// All records of a path that answers by pages, as one page.
pub async fn all_pages(client: &Client, path: &str, name: &str) -> Result<Value, CommandError> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = client.json(Method::GET, &format!("{path}{after}"), None).await?;
        if let Some(Value::Array(records)) = page.get_mut(name).map(Value::take) {
            all.extend(records);
        }
        match page["next"].as_str() {
            Some(next) => after = format!("?after={next}"),
            None => return Ok(json!({ name: all })),
        }
    }
}

/// A pool's machines on their way: they will be workers of these names.
fn coming(pool: &Value) -> impl Iterator<Item = Value> {
    let on_way = |machine: &&Value| matches!(machine["stage"].as_str(), Some("requested" | "booting"));
    let told = |machine: &Value| {
        json!({
            "id": machine["worker"], "pool": pool["pool"]["name"], "status": "provisioning", "stage": machine["stage"],
            "machine": machine["machine"], "requested_at_ms": machine["requested_at_ms"],
            "capacity": pool["pool"]["machine"],
        })
    };
    rows(pool, "machines").filter(on_way).map(told)
}

/// The line of a machine on its way, under the headings of the workers.
fn machine(row: &Value) -> Vec<String> {
    let offers = |field: &str| format!("0 of {}", text(&row["capacity"][field]));
    let since = row["requested_at_ms"].as_u64().map(|at| words::moment(Timestamp(at))).unwrap_or_default();
    let note = format!("{}; bought at {since}", text(&row["stage"]));
    let (cpu, memory, slots) = (offers("cpu"), offers("memory"), offers("slots"));
    let status = text(&row["status"]);
    vec![text(&row["id"]), text(&row["pool"]), status, "0".to_owned(), cpu, memory, slots, String::new(), note]
}

fn worker(row: &Value) -> Vec<String> {
    let (free, capacity) = (&row["free"], &row["capacity"]);
    let of = |words: fn(u64) -> String, name: &str| {
        let number = |value: &Value| value[name].as_u64().map(words).unwrap_or_default();
        format!("{} of {}", number(free), number(capacity))
    };
    let mut status = text(&row["status"]);
    if row["connected"] != true && matches!(status.as_str(), "ready" | "cordoned" | "draining") {
        status.push_str(", not connected");
    }
    let quarantine = row["quarantine"].as_str().map(|why| format!("in quarantine: {why}; 'volley uncordon' opens it"));
    let notes: Vec<String> = quarantine.into_iter().chain(rows(row, "notes").map(text)).collect();
    vec![
        text(&row["id"]),
        text(&row["pool"]),
        status,
        text(&row["containers"]),
        of(cores, "cpu"),
        of(|bytes| Bytes(bytes).rounded(), "memory"),
        of(|slots| slots.to_string(), "slots"),
        gpus(free, capacity),
        notes.join("; "),
    ]
}

/// Thousandths of a core as `2` or `1.5`.
fn cores(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Free devices by kind, as in `H100 1.5 of 8, T4 0 of 1`.
fn gpus(free: &Value, capacity: &Value) -> String {
    let mut kinds: Vec<(String, u64, u64)> = Vec::new();
    for (kind, free) in rows(capacity, "gpus").zip(rows(free, "gpus")) {
        let (kind, free) = (text(kind), free.as_u64().unwrap_or(0));
        match kinds.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + free, *count + 1),
            None => kinds.push((kind, free, 1)),
        }
    }
    let words = |(kind, free, count): &(String, u64, u64)| format!("{kind} {} of {count}", cores(*free));
    kinds.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// `volley audit`; a broken law is exit code 1.
pub async fn audit(client: &Client, format: Format) -> Result<(), CommandError> {
    let mut audit = client.json(Method::GET, "/v1/audit", None).await?;
    if audit["warnings"].as_array().is_some_and(Vec::is_empty)
        && let Some(fields) = audit.as_object_mut()
    {
        fields.remove("warnings");
    }
    match format {
        Format::Json => output::write_json_object(&audit)?,
        Format::Quiet => {}
        Format::Table => {
            let names = ["accepted", "queued", "claimed", "assigned", "starting", "running", "stopping", "finished"];
            let row = |name: &&str| vec![(*name).to_owned(), text(&audit[*name])];
            let laws = if audit["ok"] == true { "all hold".to_owned() } else { text(&audit["violations"]) };
            let more = [vec!["pruned".to_owned(), text(&audit["pruned"])], vec!["laws".to_owned(), laws]];
            for warning in audit["warnings"].as_array().into_iter().flatten() {
                eprintln!("warning: {}", text(warning));
            }
            output::write_table(&["what", "count"], names.iter().map(row).chain(more))?;
        }
    }
    if audit["ok"] == true { Ok(()) } else { Err(CommandError::Ended(1)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn gpus_are_summed_by_kind() {
        let capacity = json!({ "gpus": ["H100", "T4", "H100"] });
        let free = json!({ "gpus": [1000, 0, 500] });
        assert_eq!(gpus(&free, &capacity), "H100 1.5 of 2, T4 0 of 1");
        assert_eq!(gpus(&json!({ "gpus": [] }), &json!({ "gpus": [] })), "");
    }
}
