//! How the containers of a burst come. Knows nothing of what is done with them.

use serde::{Deserialize, Serialize};

/// How containers came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Submit {
    /// As one mixed group: one score for all, so that a plan takes shape after shape.
    Batch,
    /// One by one, shapes taking turns: each has a score of its own. Harder to plan.
    Single,
}

impl Submit {
    /// As in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Submit::Batch => "batch",
            Submit::Single => "single",
        }
    }
}
