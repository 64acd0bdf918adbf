//! A submission: one spec `count` times, or a list of specs; checked as a whole, with the
//! path of the field in every error, before anything is accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{Spec, SpecHash, TenantName};

pub(crate) mod check;
pub use check::*;

/// Most containers of one submission.
pub const GROUP_CONTAINERS_MAX: u32 = 100_000;
/// Longest client key in bytes.
pub const CLIENT_KEY_BYTES_MAX: usize = 128;

/// What is wrong with a field, where, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ValidationError {
    /// The field's path, as in `specs[3].resources.memory`.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A checked submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Whose.
    pub tenant: TenantName,
    /// The same key gives the same group.
    pub client_key: Option<String>,
    /// Shown in lists.
    pub name: Option<String>,
    /// To filter by.
    pub labels: BTreeMap<String, String>,
    /// Runs of identical specs, in order of index. Not empty; counts sum to at most [`GROUP_CONTAINERS_MAX`].
    pub runs: Vec<Run>,
}

impl Submission {
    /// Tells a repeat of a submission from another one under the same client key: the first 16 bytes of SHA-256 over
    /// all but tenant and key.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut hasher = Sha256::new();
        crate::shape::digest_json(&mut hasher, &(&self.name, &self.labels));
        let mut hashes = SpecHashes::default();
        for run in &self.runs {
            crate::shape::digest_json(&mut hasher, &(hashes.of(&run.spec), run.count));
        }
        crate::shape::first_16(&hasher.finalize())
    }
}

/// Addresses of specs that come again and again, as the few of a list of thousands do: each is computed once.
#[derive(Debug, Default)]
pub struct SpecHashes {
    /// By where the spec lies; kept alive, so that no other can lie there meanwhile.
    known: BTreeMap<usize, (Arc<Spec>, SpecHash)>,
}

impl SpecHashes {
    /// The address of a spec.
    pub fn of(&mut self, spec: &Arc<Spec>) -> SpecHash {
        self.known.entry(Arc::as_ptr(spec).addr()).or_insert_with(|| (Arc::clone(spec), spec.hash())).1
    }
}

/// Neighbours in a group that share one spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Their spec.
    pub spec: Arc<Spec>,
    /// How many, at least 1.
    pub count: u32,
}

/// A submission's containers as the client writes them, before the check.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one per request, moved once")]
pub enum SubmissionBody {
    /// One spec, `count` times.
    Count {
        /// The spec.
        spec: Spec,
        /// 1 to [`GROUP_CONTAINERS_MAX`].
        count: u64,
    },
    /// One container each.
    List(Vec<Spec>),
}
