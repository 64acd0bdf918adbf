//! Answers a server's request for a page of a container's output.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use volley_model::ContainerId;
use volley_wire::convert;
use volley_wire::proto::{self, from_worker};

use crate::Runtime;

/// Largest page of each stream, whatever is asked for.
const BYTES_MAX: u32 = 1 << 20;
/// Longest wait for more output, whatever is asked for.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Files are looked at this often while a reader waits for more.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Reads the page in a task of its own and sends it.
pub(crate) fn answer(runtime: &Arc<dyn Runtime>, request: proto::LogRequest, out: mpsc::Sender<proto::FromWorker>) {
    let runtime = Arc::clone(runtime);
    tokio::spawn(async move {
        let number = request.request;
        let chunk = match convert::container_from("container", request.container) {
            Ok(container) => page(runtime, container, request).await,
            Err(error) => failed(number, &error),
        };
        // A stream that broke meanwhile has nobody who waits.
        let _ = out.send(proto::FromWorker { message: Some(from_worker::Message::Log(chunk)) }).await;
    });
}

fn failed(request: u64, error: &dyn std::fmt::Display) -> proto::LogChunk {
    proto::LogChunk { request, error: error.to_string(), ..proto::LogChunk::default() }
}

async fn page(runtime: Arc<dyn Runtime>, container: ContainerId, request: proto::LogRequest) -> proto::LogChunk {
    let wait = Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
    let until = Instant::now() + wait;
    let number = request.request;
    loop {
        let runtime = Arc::clone(&runtime);
        let read = tokio::task::spawn_blocking({
            let request = request.clone();
            move || look(&*runtime, container, &request)
        })
        .await;
        match read {
            Ok(Ok(chunk)) => {
                let empty = chunk.stdout.is_empty() && chunk.stderr.is_empty();
                if !empty || chunk.ended || Instant::now() >= until {
                    return chunk;
                }
            }
            Ok(Err(error)) => return failed(number, &error),
            Err(error) => return failed(number, &error),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look(runtime: &dyn Runtime, container: ContainerId, request: &proto::LogRequest) -> io::Result<proto::LogChunk> {
    // Asked first: what an ended attempt printed is all there.
    let ended = runtime.ended(container, request.attempt);
    let max = request.bytes_max.clamp(1, BYTES_MAX) as usize;
    let stdout = runtime.output(container, request.attempt, false, request.stdout_from, max)?;
    let stderr = runtime.output(container, request.attempt, true, request.stderr_from, max)?;
    Ok(proto::LogChunk {
        request: request.request,
        ended: ended && stdout.bytes.is_empty() && stderr.bytes.is_empty(),
        stdout: stdout.bytes,
        stderr: stderr.bytes,
        stdout_next: stdout.next,
        stderr_next: stderr.next,
        error: String::new(),
    })
}
