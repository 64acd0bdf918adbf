//! Programs that are run in containers, and what containers use: asked of the worker that has
//! them, page by page, so that a slow client holds nothing but its own page.

use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::response::Json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use volley_model::{ContainerId, WorkerId};
use volley_wire::convert;
use volley_wire::proto::{self, call_reply::Reply, call_request::Call};

use super::containers::{Named, record, resolve};
use super::parameters::Parameters;
use super::{Shared, read_body};
use crate::auth::Caller;
use crate::bodies;
use crate::problem::{Problem, ProblemBody};

/// Most words of a command.
const WORDS_MAX: usize = 10_000;
/// One page of each stream in bytes.
const PAGE_BYTES: u32 = 128 << 10;
/// Longest wait for output of one request.
const WAIT_MS_MAX: u32 = 20_000;

fn wrong(problem: &str) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
}

/// A container of the caller's, and where it runs, or ran last.
async fn place(shared: &Shared, caller: &Caller, text: &str) -> Result<(ContainerId, WorkerId, u32), Problem> {
    let conflict = |words: String| Err(Problem::new(StatusCode::CONFLICT, words));
    let Named::Container(id) = resolve(shared, caller, text).await? else {
        return conflict(format!("'{text}' is a group; name one of its containers, as in {text}-0"));
    };
    let record = record(shared, caller, id).await?;
    match (record.worker, record.attempt) {
        (Some(worker), Some(attempt)) => Ok((id, worker, attempt.number)),
        _ => conflict(format!("container {id} is on no worker yet; 'volley ps' says why it waits")),
    }
}

async fn call(shared: &Shared, caller: &Caller, text: &str, call: Call) -> Result<Reply, Problem> {
    let (container, worker, attempt) = place(shared, caller, text).await?;
    let container = Some(convert::container_to(container));
    let request = proto::CallRequest { request: 0, container, attempt, call: Some(call), worker: String::new() };
    Ok(shared.peers.call(caller, &worker, request).await?)
}

fn unexpected() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "the worker answered another question; this is a bug in volley")
}

/// Starts another program in a container that runs.
#[utoipa::path(post, path = "/v1/containers/{id}/exec", request_body = bodies::ExecRequest,
    params(("id" = String, Path, description = "An id or a unique beginning of one.")),
    responses((status = 200, description = "It was started.", body = bodies::ExecStarted),
        (status = 404, description = "There is no such container, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "It does not run, or is no container that can be entered.", body = ProblemBody),
        (status = 422, description = "No command.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn start(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
    body: Bytes,
) -> Result<Json<bodies::ExecStarted>, Problem> {
    let bodies::ExecRequest { args } = read_body(&body)?;
    if args.is_empty() || args.len() > WORDS_MAX || args.iter().any(|arg| arg.contains('\0')) {
        return Err(wrong("args: give the command and its arguments as a list of texts"));
    }
    match call(&shared, &caller, &text, Call::Exec(proto::ExecStart { args })).await? {
        Reply::Started(started) => Ok(Json(bodies::ExecStarted { exec: started.exec })),
        _ => Err(unexpected()),
    }
}

/// What a program printed from two places on, and how it ended.
#[utoipa::path(get, path = "/v1/containers/{id}/exec/{number}",
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("number" = u64, Path, description = "Of the program."),
        ("stdout_from" = Option<u64>, Query, description = "The `stdout_next` of the page before."),
        ("stderr_from" = Option<u64>, Query, description = "The `stderr_next` of the page before."),
        ("wait_ms" = Option<u64>, Query, description = "Wait for more so long.")),
    responses((status = 200, description = "A page.", body = bodies::ExecOutput),
        (status = 404, description = "There is no such container, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "Its worker does not know this program any more.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn output(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((text, exec)): Path<(String, u64)>,
    parameters: Parameters,
) -> Result<Json<bodies::ExecOutput>, Problem> {
    let parameters = parameters.known(&["stdout_from", "stderr_from", "wait_ms"])?;
    let page = proto::ExecPage {
        exec,
        stdout_from: parameters.value("stdout_from")?.unwrap_or(0),
        stderr_from: parameters.value("stderr_from")?.unwrap_or(0),
        bytes_max: PAGE_BYTES,
        wait_ms: parameters.value::<u32>("wait_ms")?.unwrap_or(0).min(WAIT_MS_MAX),
    };
    match call(&shared, &caller, &text, Call::Page(page)).await? {
        Reply::Output(output) => Ok(Json(bodies::ExecOutput {
            stdout: STANDARD.encode(output.stdout),
            stderr: STANDARD.encode(output.stderr),
            stdout_next: output.stdout_next,
            stderr_next: output.stderr_next,
            exit_code: output.exit_code,
        })),
        _ => Err(unexpected()),
    }
}

/// Input for a program.
#[utoipa::path(post, path = "/v1/containers/{id}/exec/{number}/stdin", request_body = bodies::ExecInput,
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("number" = u64, Path, description = "Of the program.")),
    responses((status = 200, description = "It was handed on.", body = bodies::ExecDone),
        (status = 404, description = "There is no such container, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "Its worker does not know this program any more.", body = ProblemBody),
        (status = 422, description = "No base64.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn input(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((text, exec)): Path<(String, u64)>,
    body: Bytes,
) -> Result<Json<bodies::ExecDone>, Problem> {
    let bodies::ExecInput { bytes, end } = read_body(&body)?;
    let bytes = STANDARD.decode(bytes).map_err(|_| wrong("bytes: give base64"))?;
    call(&shared, &caller, &text, Call::Input(proto::ExecInput { exec, bytes, end })).await?;
    Ok(Json(bodies::ExecDone {}))
}

/// Ends a program.
#[utoipa::path(delete, path = "/v1/containers/{id}/exec/{number}",
    params(("id" = String, Path, description = "An id or a unique beginning of one."),
        ("number" = u64, Path, description = "Of the program.")),
    responses((status = 200, description = "It was asked to end.", body = bodies::ExecDone),
        (status = 404, description = "There is no such container, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "Its worker does not know this program any more.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn kill(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path((text, exec)): Path<(String, u64)>,
) -> Result<Json<bodies::ExecDone>, Problem> {
    call(&shared, &caller, &text, Call::Kill(proto::ExecKill { exec })).await?;
    Ok(Json(bodies::ExecDone {}))
}

/// What a container uses, or used in all when it has ended.
#[utoipa::path(get, path = "/v1/containers/{id}/stats",
    params(("id" = String, Path, description = "An id or a unique beginning of one.")),
    responses((status = 200, description = "What it uses.", body = bodies::ContainerStats),
        (status = 404, description = "There is no such container, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "It is on no worker, or nothing is counted there.", body = ProblemBody),
        (status = 503, description = "Its worker is not connected.", body = ProblemBody)))]
pub(super) async fn stats(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<bodies::ContainerStats>, Problem> {
    match call(&shared, &caller, &text, Call::Usage(proto::UsageCall {})).await? {
        Reply::Usage(usage) => Ok(Json(bodies::ContainerStats {
            cpu_us: usage.cpu_us,
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: usage.memory_peak_bytes,
            image_digest: usage.image_digest,
        })),
        _ => Err(unexpected()),
    }
}
