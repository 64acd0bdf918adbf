//! Follows a group's events to its last end, shows progress, and passes on what its containers
//! print. A server that stops answering is waited for.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use volley_model::Millis;
use volley_wire::client::{Client, ClientError};

use crate::command_error::CommandError;
use crate::fleet::Interrupts;
use crate::output::Format;

/// Wait between two tries of a server that does not answer.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// How it ended.
pub(super) struct Followed {
    /// The user stopped the group.
    pub(super) interrupted: bool,
}

/// The last event so far: what is submitted after this comes after it.
pub(super) async fn last_event(client: &Client) -> Result<u64, CommandError> {
    let page = client.json(Method::GET, &format!("/v1/events?after={}", i64::MAX), None).await?;
    Ok(page["last"].as_u64().unwrap_or(0))
}

struct Follower<'a> {
    client: &'a Client,
    group: &'a str,
    bar: ProgressBar,
    /// One container: its output is passed on as it comes.
    live: bool,
    shown: bool,
    finished: BTreeSet<u64>,
    after: u64,
    stops: u32,
    interrupts: &'a mut Interrupts,
}

/// A group to follow: its `count` containers, and the event before those that are to be heard.
pub(super) struct Accepted {
    pub(super) group: String,
    pub(super) count: u64,
    pub(super) after: u64,
    /// It was there before: ends of its containers may lie before `after`.
    pub(super) repeated: bool,
}

/// Follows a group to its end.
pub(super) async fn follow(
    client: &Client,
    accepted: &Accepted,
    patience: Millis,
    format: Format,
    interrupts: &mut Interrupts,
) -> Result<Followed, CommandError> {
    let Accepted { group, count, after, repeated } = accepted;
    let (count, after) = (*count, *after);
    let target = if format == Format::Table { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(count), target);
    let style = "{elapsed} [{wide_bar}] {pos}/{len} finished {msg}";
    bar.set_style(ProgressStyle::with_template(style).map_err(|error| CommandError::Failed(error.to_string()))?);
    let shown = format == Format::Table;
    let live = shown && count == 1;
    let mut follower =
        Follower { client, group, bar, live, shown, finished: BTreeSet::new(), after, stops: 0, interrupts };
    let printing = async {
        if live {
            let container = format!("{group}-0");
            let printed = futures_util::future::join(
                pass_on(client, &container, "stdout", true),
                pass_on(client, &container, "stderr", true),
            );
            let (stdout, stderr) = printed.await;
            stdout.and(stderr)
        } else {
            Ok(())
        }
    };
    let following = async {
        if *repeated {
            follower.catch_up(count).await?;
        }
        follower.until_all_finished(count, patience).await
    };
    let (ended, printed) = futures_util::future::join(following, printing).await;
    ended?;
    follower.bar.finish_and_clear();
    printed?;
    Ok(Followed { interrupted: follower.stops > 0 })
}

impl Follower<'_> {
    /// Counts what ended before: what is finished, and what is forgotten since.
    async fn catch_up(&mut self, count: u64) -> Result<(), CommandError> {
        let (mut unfinished, mut after) = (BTreeSet::new(), String::new());
        loop {
            let path = format!("/v1/containers?group={}{after}", self.group);
            let page = self.client.json(Method::GET, &path, None).await?;
            for record in page["containers"].as_array().into_iter().flatten() {
                let index = record["id"].as_str().and_then(|id| id.split_once('-')?.1.parse::<u64>().ok());
                let Some(index) = index else { continue };
                if record["state"] == "finished" {
                    self.finish(index, !record["worker"].is_null()).await?;
                } else {
                    unfinished.insert(index);
                }
            }
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        self.finished.extend((0..count).filter(|index| !unfinished.contains(index)));
        Ok(())
    }

    async fn until_all_finished(&mut self, count: u64, patience: Millis) -> Result<(), CommandError> {
        let mut silent_since: Option<Instant> = None;
        while (self.finished.len() as u64) < count {
            let path = format!("/v1/events?wait=true&after={}", self.after);
            let page = tokio::select! {
                page = self.client.json(Method::GET, &path, None) => page,
                () = self.interrupts.next() => {
                    self.stops += 1;
                    self.stop().await?;
                    continue;
                }
            };
            match page {
                Ok(page) => {
                    silent_since = None;
                    self.bar.set_message("");
                    let missed = page["oldest"].as_u64().is_some_and(|oldest| oldest > self.after + 1);
                    self.on_events(&page).await?;
                    if missed {
                        self.catch_up(count).await?;
                    }
                }
                Err(error) if is_silence(&error) => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= patience.to_duration() {
                        return Err(error.into());
                    }
                    self.bar.set_message("(the server does not answer; waiting for it)");
                    tokio::time::sleep(TRY_EVERY).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn on_events(&mut self, page: &Value) -> Result<(), CommandError> {
        self.after = page["next"].as_u64().unwrap_or(self.after);
        for event in page["events"].as_array().into_iter().flatten() {
            let Some((group, index)) = container_of(event).filter(|_| event["state"] == "finished") else { continue };
            if group != self.group {
                continue;
            }
            self.finish(index, !event["worker"].is_null()).await?;
        }
        Ok(())
    }

    /// One that ended, once; what it printed on its worker is passed on.
    async fn finish(&mut self, index: u64, ran: bool) -> Result<(), CommandError> {
        if !self.finished.insert(index) {
            return Ok(());
        }
        self.bar.set_position(self.finished.len() as u64);
        if self.shown && !self.live && ran {
            let container = format!("{}-{index}", self.group);
            self.bar.suspend(|| {});
            pass_on(self.client, &container, "stdout", false).await?;
            pass_on(self.client, &container, "stderr", false).await?;
        }
        Ok(())
    }

    async fn stop(&self) -> Result<(), ClientError> {
        let path = format!("/v1/groups/{}?force={}", self.group, self.stops > 1);
        self.client.json(Method::DELETE, &path, None).await.map(drop)
    }
}

fn is_silence(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Problem { status, .. } => status.as_u16() == 503,
    }
}

/// The group of an event's container, and its index in it.
fn container_of(event: &Value) -> Option<(&str, u64)> {
    let (group, index) = event["container"].as_str()?.split_once('-')?;
    Some((group, index.parse().ok()?))
}

/// Copies one stream of a container's output to ours. What cannot be had is said and is no failure of the run.
async fn pass_on(client: &Client, container: &str, stream: &str, follow: bool) -> Result<(), CommandError> {
    let path = format!("/v1/containers/{container}/logs?stream={stream}&follow={follow}");
    let mut written = Ok(());
    let copied = client
        .stream(&path, |bytes| {
            written = if stream == "stdout" { put(std::io::stdout(), bytes) } else { put(std::io::stderr(), bytes) };
            written.is_ok()
        })
        .await;
    written?;
    if let Err(error) = copied {
        eprintln!("warning: {stream} of {container} is incomplete: {error}");
    }
    Ok(())
}

fn put(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
