//! Workers: list, cordon, uncordon, drain.

use axum::extract::{Path, State};
use axum::response::Json;
use http::StatusCode;
use volley_control::ledger::{Answer, Query, Schedulable, WorkerRecord};
use volley_model::{Millis, WorkerId};

use super::parameters::Parameters;
use super::{PAGE_MAX, Shared, unexpected};
use crate::bodies;
use crate::problem::{Problem, ProblemBody};

/// Longest deadline of a drain.
const DRAIN_DEADLINE_MAX: Millis = Millis::from_secs(30 * 24 * 3600);

async fn page(shared: &Shared, after: Option<WorkerId>, max: u32) -> Result<(Vec<WorkerRecord>, bool), Problem> {
    match shared.control.read(Query::Workers { after, max }).await? {
        Answer::Workers { workers, more } => Ok((workers, more)),
        _ => Err(unexpected()),
    }
}

/// A page of workers in order of name.
#[utoipa::path(get, path = "/v1/workers",
    params(("after" = Option<String>, Query, description = "The `next` of the page before."),
        ("max" = Option<u32>, Query, description = "At most this many, up to 1,000.")),
    responses((status = 200, description = "A page.", body = bodies::Workers),
        (status = 400, description = "A parameter is wrong.", body = ProblemBody)))]
pub(super) async fn list(
    State(shared): State<Shared>,
    parameters: Parameters,
) -> Result<Json<bodies::Workers>, Problem> {
    let parameters = parameters.known(&["after", "max"])?;
    let (workers, more) = page(&shared, parameters.value("after")?, parameters.max()?).await?;
    let next = workers.last().filter(|_| more).map(|last| last.view.worker.id.to_string());
    Ok(Json(bodies::Workers { workers: workers.iter().map(bodies::Worker::from).collect(), next }))
}

/// The worker of this name, or the only one whose name starts so.
async fn resolve(shared: &Shared, text: &str) -> Result<WorkerId, Problem> {
    let (mut matching, mut after): (Vec<WorkerId>, _) = (Vec::new(), None);
    loop {
        let (workers, more) = page(shared, after, PAGE_MAX).await?;
        let names = workers.iter().map(|record| &record.view.worker.id);
        matching.extend(names.filter(|id| id.as_str().starts_with(text)).cloned());
        // The exact name sorts before all others that start so.
        match workers.last().filter(|_| more && matching.len() < 2) {
            Some(last) => after = Some(last.view.worker.id.clone()),
            None => break,
        }
    }
    match matching.as_slice() {
        [] => Err(Problem::not_found(format!("worker '{text}'; 'volley workers' lists them"))),
        [only] => Ok(only.clone()),
        [first, ..] if first.as_str() == text => Ok(first.clone()),
        [first, second, ..] => {
            let words = format!("'{text}' is ambiguous ({first}, {second}); give more of the name");
            Err(Problem::new(StatusCode::CONFLICT, words))
        }
    }
}

/// Cordons, uncordons or drains a worker.
#[utoipa::path(post, path = "/v1/workers/{id}/{action}",
    params(("id" = String, Path, description = "A name or a unique beginning of one."),
        ("action" = String, Path, description = "cordon, uncordon or drain."),
        ("deadline" = Option<String>, Query, description = "For drain: what still runs is stopped after this, as in 10m.")),
    responses((status = 200, description = "Done.", body = bodies::Scheduled),
        (status = 404, description = "There is no such worker, or no such action.", body = ProblemBody),
        (status = 409, description = "More than one begins so.", body = ProblemBody)))]
pub(super) async fn schedulable(
    State(shared): State<Shared>,
    Path((worker, action)): Path<(String, String)>,
    parameters: Parameters,
) -> Result<Json<bodies::Scheduled>, Problem> {
    let deadline: Option<Millis> = parameters.known(&["deadline"])?.value("deadline")?;
    if deadline.is_some_and(|deadline| deadline > DRAIN_DEADLINE_MAX) {
        return Err(Problem::parameter("deadline", format!("at most {DRAIN_DEADLINE_MAX} is allowed")));
    }
    let to = match action.as_str() {
        "cordon" => Schedulable::Cordoned,
        "uncordon" => Schedulable::Open,
        "drain" => Schedulable::Drain { deadline },
        _ => return Err(Problem::not_found(format!("action '{action}'; there are cordon, uncordon, drain"))),
    };
    if deadline.is_some() && action != "drain" {
        return Err(Problem::parameter("deadline", format!("'{action}' has none; only 'drain' has")));
    }
    let worker = resolve(&shared, &worker).await?;
    shared.control.set_schedulable(worker.clone(), to).await?;
    let deadline_ms = deadline.map(|deadline| deadline.0);
    Ok(Json(bodies::Scheduled { worker: worker.to_string(), action, deadline_ms }))
}
