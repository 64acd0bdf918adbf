//! `volley pools`: list, show, apply with a difference first, remove, and resume after a quarantine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;
use volley_wire::client::{Client, ClientError};
use volley_wire::pool_json::{pool_from, pool_to};

use crate::command_error::CommandError;
use crate::output::{self, Format, in_path, rows, text};

/// Pools of workers.
#[derive(Debug, Args)]
pub struct Pools {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// All pools with their workers and machines.
    List,
    /// One pool: its record, its machines, how it does.
    Show {
        /// Its name.
        name: String,
    },
    /// Create or change a pool: shows what changes, then changes it.
    Apply {
        /// One pool, or several, as JSON or, in a file named *.toml, as TOML with [[pools]] (docs/pools.md).
        file: PathBuf,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
    },
    /// Buy again from a pool that failed, before its wait or quarantine ends.
    Resume {
        /// Its name.
        name: String,
    },
    /// Remove a pool without workers and machines.
    Remove {
        /// Its name.
        name: String,
    },
}

/// `volley pools`.
pub async fn pools(pools: &Pools, client: &Client, format: Format) -> Result<(), CommandError> {
    match &pools.action {
        Action::List => list(client, format).await,
        Action::Show { name } => show(name, client, format).await,
        Action::Apply { file, dry_run } => apply(file, *dry_run, client, format).await,
        Action::Resume { name } => resume(name, client, format).await,
        Action::Remove { name } => {
            let reply = client.json(Method::DELETE, &path(name), None).await?;
            say(format, &format!("pool {name} is removed"), &reply)
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/pools/{}", in_path(name))
}

fn say(format: Format, words: &str, reply: &Value) -> Result<(), CommandError> {
    match format {
        Format::Table => output::write_line(words)?,
        Format::Json => output::write_json_object(reply)?,
        Format::Quiet => {}
    }
    Ok(())
}

/// Whether a pool is well, in a few words.
fn health(pool: &Value) -> String {
    let standing = &pool["standing"];
    match (standing["quarantined"].as_bool(), standing["retry_at_ms"].is_null()) {
        (Some(true), _) => format!("quarantined: {}", text(&standing["last_failure"])),
        (_, false) if !standing.is_null() => format!("waits: {}", text(&standing["last_failure"])),
        _ => "well".to_owned(),
    }
}

async fn list(client: &Client, format: Format) -> Result<(), CommandError> {
    let reply = client.json(Method::GET, "/v1/pools", None).await?;
    let name = |pool: &Value| text(&pool["pool"]["name"]);
    match format {
        Format::Json => output::write_json_object(&reply)?,
        Format::Quiet => output::write_lines(rows(&reply, "pools").map(name))?,
        Format::Table => {
            let header =
                ["pool", "priority", "provisioner", "ready", "booting", "machines", "min", "max", "cost/h", "state"];
            let row = |pool: &Value| {
                let record = &pool["pool"];
                let provisioner = &record["provisioner"];
                let provisioner =
                    if provisioner.is_object() { text(&provisioner["command"]) } else { text(provisioner) };
                let machines = pool["machines"].as_array().map_or(0, Vec::len);
                let ready = pool["workers"]["ready"].as_u64().unwrap_or(0);
                vec![
                    text(&record["name"]),
                    text(&record["priority"]),
                    provisioner,
                    ready.to_string(),
                    text(&pool["in_flight"]),
                    machines.to_string(),
                    text(&record["min"]),
                    text(&record["max"]),
                    text(&pool["cost_per_hour"]),
                    health(pool),
                ]
            };
            output::write_table(&header, rows(&reply, "pools").map(row))?;
        }
    }
    Ok(())
}

async fn show(name: &str, client: &Client, format: Format) -> Result<(), CommandError> {
    let reply = client.json(Method::GET, &path(name), None).await?;
    match format {
        Format::Json => output::write_json_object(&reply)?,
        Format::Quiet => output::write_lines(rows(&reply, "machines").map(|machine| text(&machine["worker"])))?,
        Format::Table => {
            output::write_lines(flat(&reply["pool"]).into_iter().map(|(name, value)| format!("{name} = {value}")))?;
            output::write_line(&format!("\nstate: {}", health(&reply)))?;
            let row = |machine: &Value| {
                ["worker", "machine", "stage", "status", "containers", "why_words"]
                    .map(|field| text(&machine[field]))
                    .to_vec()
            };
            let header = ["worker", "machine", "stage", "status", "containers", "why"];
            output::write_table(&header, rows(&reply, "machines").map(row))?;
        }
    }
    Ok(())
}

/// The fields of a record, one a line, by their path.
fn flat(value: &Value) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    flatten("", value, &mut fields);
    fields
}

fn flatten(path: &str, value: &Value, fields: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        other => fields.push((path.to_owned(), text(other))),
    }
}

/// What differs between two records, as lines that begin with `-` and `+`.
fn difference(old: &Value, new: &Value) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let mut lines = Vec::new();
    for (path, value) in &old {
        if !new.contains(&(path.clone(), value.clone())) {
            lines.push(format!("- {path} = {value}"));
        }
        if let Some((_, changed)) = new.iter().find(|(other, changed)| other == path && changed != value) {
            lines.push(format!("+ {path} = {changed}"));
        }
    }
    let added = new.iter().filter(|(path, _)| old.iter().all(|(other, _)| other != path));
    lines.extend(added.map(|(path, value)| format!("+ {path} = {value}")));
    lines
}

/// The record as it is, and its version; 0 when there is none.
async fn present(name: &str, client: &Client) -> Result<(Value, u64), CommandError> {
    match client.json(Method::GET, &path(name), None).await {
        Ok(reply) => Ok((reply["pool"].clone(), reply["version"].as_u64().unwrap_or(0))),
        Err(ClientError::Problem { status, .. }) if status.as_u16() == 404 => Ok((Value::Null, 0)),
        Err(error) => Err(error.into()),
    }
}

/// The records in a file: one, a list, or the list `pools`; not checked yet.
fn records(text: &str, toml: bool) -> Result<Vec<Value>, String> {
    let value: Value = if toml {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
            format!("{}{}", line.map(|line| format!("line {line}: ")).unwrap_or_default(), error.message())
        })?
    } else {
        serde_json::from_str(text).map_err(|error| error.to_string())?
    };
    match value {
        Value::Array(records) => Ok(records),
        Value::Object(mut fields) if fields.contains_key("pools") => match fields.remove("pools") {
            Some(Value::Array(records)) if fields.is_empty() => Ok(records),
            _ => Err("pools: give a list of pools, and nothing beside it".to_owned()),
        },
        one => Ok(vec![one]),
    }
}

async fn apply(file: &std::path::Path, dry_run: bool, client: &Client, format: Format) -> Result<(), CommandError> {
    let wrong = |problem: String| CommandError::Usage(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let records = records(&text, file.extension().is_some_and(|ending| ending == "toml")).map_err(wrong)?;
    // All are checked before any is changed.
    let pools = records.into_iter().map(pool_from).collect::<Result<Vec<_>, _>>();
    for pool in pools.map_err(|error| wrong(error.to_string()))? {
        let (name, new) = (pool.name.to_string(), pool_to(&pool));
        let (old, version) = present(&name, client).await?;
        let lines =
            if old.is_null() { difference(&Value::Object(Default::default()), &new) } else { difference(&old, &new) };
        let lines: Vec<String> = lines.into_iter().filter(|line| !line.starts_with("-  =")).collect();
        if format == Format::Table {
            let what = if old.is_null() {
                "new"
            } else if lines.is_empty() {
                "unchanged"
            } else {
                "changed"
            };
            output::write_line(&format!("pool {name}: {what}"))?;
            output::write_lines(lines.iter().map(|line| format!("  {line}")))?;
        }
        if dry_run {
            continue;
        }
        // Only what was shown is changed.
        let path = format!("{}?expected={version}&renew=true", path(&name));
        let reply = client.json(Method::PUT, &path, Some(&new)).await?;
        if format == Format::Json {
            output::write_json_line(&reply)?;
        }
    }
    Ok(())
}

async fn resume(name: &str, client: &Client, format: Format) -> Result<(), CommandError> {
    let (record, version) = present(name, client).await?;
    if version == 0 {
        return Err(CommandError::NotFound(format!("there is no pool '{name}'")));
    }
    let path = format!("{}?expected={version}&renew=true", path(name));
    let reply = client.json(Method::PUT, &path, Some(&record)).await?;
    say(format, &format!("pool {name}: its failures are forgotten"), &reply)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn toml_says_the_same_as_json() {
        let pool = json!({
            "name": "a", "max": 3, "cost_per_hour": "0.5", "tenants": ["t"],
            "provisioner": { "command": "/bin/x", "timeout": "5s" }, "machine": { "cpu": "4", "memory": "8Gi" },
        });
        let one = "name = 'a'\nmax = 3\ncost_per_hour = '0.5'\ntenants = ['t']\n\
            provisioner = { command = '/bin/x', timeout = '5s' }\n[machine]\ncpu = '4'\nmemory = '8Gi'\n";
        let several = format!("[[pools]]\n{}\n[[pools]]\nname = 'b'\n", one.replace("[machine]", "[pools.machine]"));
        assert_eq!(records(one, true), Ok(vec![pool.clone()]));
        assert_eq!(records(&several, true), Ok(vec![pool.clone(), json!({ "name": "b" })]));
        assert_eq!(records(&json!({ "pools": [pool] }).to_string(), false), Ok(vec![pool.clone()]));
        assert!(pool_from(pool).is_ok());
        for (text, says) in [
            ("name = 'a'\nmax = = 3", "line 2: "),
            ("pools = 3", "give a list of pools"),
            ("name = 'a'\n[[pools]]\nname = 'b'", "nothing beside it"),
        ] {
            let problem = records(text, true).expect_err(text);
            assert!(problem.contains(says), "{problem}");
        }
    }

    #[test]
    fn a_difference_names_what_changes() {
        let old = json!({ "name": "a", "max": 3, "machine": { "cpu": "1", "labels": {} } });
        let new = json!({ "name": "a", "max": 4, "machine": { "cpu": "1", "labels": { "x": "y" } } });
        let expected = ["- machine.labels = {}", "- max = 3", "+ max = 4", "+ machine.labels.x = y"];
        assert_eq!(difference(&old, &new), expected);
        assert_eq!(difference(&old, &old), Vec::<String>::new());
    }
}
