//! `volley watch`: the cell on one screen, refreshed as events come. What is shown is a [`Picture`]; how it
//! looks is [`frame`]'s; the terminal is [`Screen`]'s.

mod activity;
mod frame;
mod screen;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::Value;
use tokio::sync::mpsc;
use volley_wire::client::{Client, ClientError};

use crate::command_error::CommandError;
use crate::fleet::Interrupts;
use crate::output::{self, Format};
use activity::Activity;
use frame::{Picture, Size, frame};
use screen::Screen;

/// Shapes that are asked for: more than any screen has lines for.
const SHAPES_MAX: u32 = 100;
/// Events that are looked back at when it begins, for what came last.
const LOOK_BACK: u64 = 5_000;
/// Between two frames at least, however many events come.
const FRAME_EVERY: Duration = Duration::from_millis(250);
/// And at most: ages and rates go on without events.
const FRAME_AT_LEAST_EVERY: Duration = Duration::from_secs(2);
/// Pages of events that may wait for a frame.
const PAGES_WAITING: usize = 8;
/// Wait between two tries of a server that does not answer, and how long an answer may take.
const TRY_EVERY: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// What is printed where there is no terminal.
const PRINTED: Size = Size { columns: 80, rows: 200 };

/// The cell on one screen, as it changes.
#[derive(Debug, Args)]
pub struct Watch {
    /// Print it once and end, as where there is no terminal.
    #[arg(long)]
    once: bool,
}

/// `volley watch`.
pub async fn watch(watch: &Watch, server: &str, client: &Client, format: Format) -> Result<(), CommandError> {
    let overview = overview(client).await?;
    let last = client.json(Method::GET, &format!("/v1/events?after={}", i64::MAX), None).await?;
    let after = last["last"].as_u64().unwrap_or(0).saturating_sub(LOOK_BACK);
    let mut picture = Picture { server: server.to_owned(), overview, activity: Activity::default(), trouble: None };
    match format {
        Format::Json => return Ok(output::write_json_object(&picture.overview)?),
        Format::Quiet => {
            let pools = output::rows(&picture.overview, "pools").map(|pool| output::text(&pool["pool"]));
            return Ok(output::write_lines(pools)?);
        }
        Format::Table => {}
    }
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    if watch.once || !terminal {
        let _ = catch_up(client, &mut picture.activity, after).await?;
        return Ok(output::write(&frame(&picture, PRINTED))?);
    }
    // Heard from before the terminal is changed: whatever ends this, it is put back.
    let mut interrupts = Interrupts::new();
    let mut screen = Screen::open().map_err(|error| CommandError::Failed(format!("the terminal: {error}")))?;
    let mut keys = screen.keys();
    tokio::select! {
        ended = follow(client, &mut picture, &mut screen, after) => ended,
        () = interrupts.next() => Ok(()),
        () = quit(&mut keys) => Ok(()),
    }
}

async fn overview(client: &Client) -> Result<Value, ClientError> {
    client.json(Method::GET, &format!("/v1/overview?max={SHAPES_MAX}"), None).await
}

/// Reads what has happened up to now; the number to go on after.
async fn catch_up(client: &Client, activity: &mut Activity, mut after: u64) -> Result<u64, ClientError> {
    loop {
        let page = client.json(Method::GET, &format!("/v1/events?max=1000&after={after}"), None).await?;
        activity.on_events(&page);
        let next = page["next"].as_u64().unwrap_or(after);
        if next == after {
            return Ok(after);
        }
        after = next;
    }
}

/// Shows frames until something that no waiting mends.
async fn follow(client: &Client, picture: &mut Picture, screen: &mut Screen, after: u64) -> Result<(), CommandError> {
    let (sender, mut pages) = mpsc::channel(PAGES_WAITING);
    let reader = tokio::spawn(read_events(client.clone(), after, sender));
    // Ends with this future, however that ends.
    let _reader = AbortOnDrop(reader);
    screen.show(|size| frame(picture, size))?;
    let mut shown = Instant::now();
    loop {
        let wait = FRAME_AT_LEAST_EVERY.saturating_sub(shown.elapsed());
        if let Ok(Some(page)) = tokio::time::timeout(wait, pages.recv()).await {
            picture.activity.on_events(&page);
            if shown.elapsed() < FRAME_EVERY {
                // More comes soon; the frame waits for it.
                let until = FRAME_EVERY.saturating_sub(shown.elapsed());
                let more = tokio::time::timeout(until, gather(&mut pages, &mut picture.activity));
                // Ends by time, always.
                let _ = more.await;
            }
        }
        picture.trouble = match tokio::time::timeout(ANSWER_MAX, overview(client)).await {
            Ok(Ok(overview)) => {
                picture.overview = overview;
                None
            }
            Ok(Err(error @ ClientError::Problem { status, .. })) if status.is_client_error() => {
                return Err(error.into());
            }
            Ok(Err(_)) | Err(_) => Some("no answer from the server; trying again".to_owned()),
        };
        screen.show(|size| frame(picture, size))?;
        shown = Instant::now();
    }
}

async fn gather(pages: &mut mpsc::Receiver<Value>, activity: &mut Activity) {
    while let Some(page) = pages.recv().await {
        activity.on_events(&page);
    }
    // The reader has ended: nothing more comes.
    std::future::pending::<()>().await;
}

/// Sends page after page of what happens; silent while nothing does or nobody answers.
async fn read_events(client: Client, mut after: u64, pages: mpsc::Sender<Value>) {
    loop {
        match client.json(Method::GET, &format!("/v1/events?wait=true&max=1000&after={after}"), None).await {
            Ok(page) => {
                after = page["next"].as_u64().unwrap_or(after);
                if pages.send(page).await.is_err() {
                    return;
                }
            }
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Until `q`, Escape, or the end of the input.
async fn quit(keys: &mut mpsc::UnboundedReceiver<u8>) {
    while let Some(key) = keys.recv().await {
        if matches!(key, b'q' | b'Q' | 0x1b) {
            return;
        }
    }
}
