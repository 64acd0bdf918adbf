//! What a call can fail with, by what the caller can do about it.

use volley_ledger::{AttachRefusal, NotFound, SubmitRefusal};
use volley_model::ValidationError;
use volley_store::StoreError;

/// Why a call failed. Nothing of it happened, unless it says so.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// A field is wrong.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// The submission was refused.
    #[error(transparent)]
    Submit(#[from] SubmitRefusal),
    /// The worker was refused.
    #[error(transparent)]
    Attach(#[from] AttachRefusal),
    /// There is no such thing.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The store could not answer, or the outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}
