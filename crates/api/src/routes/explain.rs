//! Why a container waits, what would have to change, when it is expected to start; where its time went.

use axum::extract::{Extension, Path, State};
use axum::response::Json;
use http::StatusCode;

use super::Shared;
use super::containers::{Named, resolve};
use super::pools::outlook;
use crate::auth::Caller;
use crate::explained::Explained;
use crate::problem::{Problem, ProblemBody};

/// Why a container waits, the smallest changes under which it would start now, and when it is expected to; of one that started,
/// where its time went.
#[utoipa::path(get, path = "/v1/containers/{id}/explain",
    params(("id" = String, Path, description = "An id or a unique beginning of one.")),
    responses((status = 200, description = "The explanation.", body = Explained),
        (status = 404, description = "There is none, or it is another tenant's.", body = ProblemBody),
        (status = 409, description = "More than one begins so, or it is a group.", body = ProblemBody)))]
pub(super) async fn explain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(text): Path<String>,
) -> Result<Json<Explained>, Problem> {
    let Named::Container(id) = resolve(&shared, &caller, &text).await? else {
        let words = format!("'{text}' is a group; name one of its containers, as in {text}-0");
        return Err(Problem::new(StatusCode::CONFLICT, words));
    };
    let why = shared.control.why(id, caller.scope()).await?;
    let outlook = outlook(&shared.control.explain(id, caller.scope()).await?);
    Ok(Json(Explained::of(&why, outlook)))
}
