//! What a call can fail with, by what the caller can do about it.

use std::time::Duration;

use volley_ledger::{
    ApplyPoolRefusal, AttachRefusal, NotFound, RemovePoolRefusal, SubmitRefusal, TenantRefusal, TokenRefusal,
};
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
    Submit(SubmitRefusal),
    /// The submission was refused for now: the same may be accepted later.
    #[error("{refusal}")]
    Busy {
        /// For what.
        refusal: SubmitRefusal,
        /// Worth a try then.
        retry_after: Duration,
    },
    /// The worker was refused.
    #[error(transparent)]
    Attach(#[from] AttachRefusal),
    /// The token was not made.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// The tenant's limits were not set.
    #[error(transparent)]
    Tenant(#[from] TenantRefusal),
    /// The pool was not applied.
    #[error(transparent)]
    ApplyPool(#[from] ApplyPoolRefusal),
    /// The pool was not removed.
    #[error(transparent)]
    RemovePool(#[from] RemovePoolRefusal),
    /// There is no such thing.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The store could not answer, or the outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ControlError {
    /// When the same is worth a try again, as far as that can be computed.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ControlError::Busy { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}
