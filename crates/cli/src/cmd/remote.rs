//! `volley run` against a server: submit, pass on what containers print, end with their result.

use std::collections::BTreeSet;
use std::io::Write;

use http::Method;
use serde_json::{Value, json};
use volley_model::Submission;
use volley_wire::client::{Client, ClientError};
use volley_wire::json::spec_to;

use crate::command_error::{CommandError, INTERRUPTED};
use crate::output::{self, Format};

/// Submits and waits.
pub async fn run(submission: &Submission, client: &Client, format: Format) -> Result<(), CommandError> {
    let run = &submission.runs[0];
    let body = json!({ "spec": spec_to(&run.spec), "count": run.count, "name": submission.name });
    let before = client.json(Method::GET, &format!("/v1/events?after={}", i64::MAX), None).await?;
    let reply = client.json(Method::POST, "/v1/containers", Some(&body)).await?;
    let group = reply["group"].as_str().unwrap_or_default().to_owned();
    let mut after = before["last"].as_u64().unwrap_or(0);
    let (mut finished, mut last, mut stops) = (BTreeSet::new(), Value::Null, 0);
    while finished.len() < run.count as usize {
        let path = format!("/v1/events?wait=true&after={after}");
        let page = tokio::select! {
            page = client.json(Method::GET, &path, None) => page?,
            _ = tokio::signal::ctrl_c() => {
                stops += 1;
                stop(client, &group, stops > 1).await?;
                continue;
            }
        };
        for event in page["events"].as_array().into_iter().flatten() {
            after = event["number"].as_u64().unwrap_or(after);
            let container = event["container"].as_object().map(|id| (id["group"].clone(), id["index"].clone()));
            if event["state"] == "finished"
                && let Some((_, index)) = container
                && group_of(event).as_deref() == Some(group.as_str())
                && finished.insert(index.to_string())
            {
                last = event["outcome"].clone();
                pass_on(client, &format!("{group}-{index}"), format).await?;
            }
        }
    }
    let record = client.json(Method::GET, &format!("/v1/groups/{group}"), None).await?;
    let good = record["succeeded"].as_u64().unwrap_or(0);
    match format {
        Format::Quiet => output::write_line(&group)?,
        Format::Json => output::write_json_object(&record)?,
        Format::Table => eprintln!("group {group}: {} finished, {good} with exit code 0", run.count),
    }
    match () {
        () if stops > 0 => Err(CommandError::Ended(INTERRUPTED)),
        () if good == u64::from(run.count) => Ok(()),
        () if run.count == 1 => {
            let code = last["code"].as_i64().and_then(|code| u8::try_from(code).ok());
            Err(CommandError::Ended(code.unwrap_or(1)))
        }
        () => Err(CommandError::Ended(1)),
    }
}

/// The group of an event's container, as people write it.
fn group_of(event: &Value) -> Option<String> {
    event["container"]["group"].as_u64().map(|group| volley_model::GroupId(group).to_string())
}

async fn stop(client: &Client, group: &str, force: bool) -> Result<(), ClientError> {
    client.json(Method::DELETE, &format!("/v1/groups/{group}?force={force}"), None).await.map(drop)
}

async fn pass_on(client: &Client, container: &str, format: Format) -> Result<(), CommandError> {
    let printed = client.bytes(Method::GET, &format!("/v1/containers/{container}/logs"), None).await?;
    if format == Format::Table {
        let mut out = std::io::stdout().lock();
        out.write_all(&printed)?;
        out.flush()?;
    }
    Ok(())
}
