//! What a spec says about where it can run, canonical and hashed. A burst of a hundred
//! thousand containers usually has three shapes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{OnUnplaceable, PoolSelector, Resources, Spec, TenantName};

/// The address of a shape's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShapeHash(pub u64);

impl fmt::Debug for ShapeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ShapeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a container can run. Two specs that differ only in what they run have the same shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shape {
    /// Whose it is.
    pub tenant: TenantName,
    /// Needs.
    pub resources: Resources,
    /// Which pool.
    pub pool: PoolSelector,
    /// Labels the worker must have.
    pub require_labels: BTreeMap<String, String>,
    /// Preferred workers.
    pub affinity: Option<String>,
    /// What becomes of it when nothing could ever serve it: what fails must not wait behind what waits.
    #[serde(default, skip_serializing_if = "OnUnplaceable::is_wait")]
    pub on_unplaceable: OnUnplaceable,
}

impl Shape {
    /// The shape of a tenant's spec.
    #[must_use]
    pub fn of(tenant: &TenantName, spec: &Spec) -> Self {
        Self {
            tenant: tenant.clone(),
            resources: spec.resources.clone(),
            pool: spec.pool.clone(),
            require_labels: spec.require_labels.clone(),
            affinity: spec.affinity.clone(),
            on_unplaceable: spec.on_unplaceable,
        }
    }

    /// Its content's address.
    #[must_use]
    pub fn hash(&self) -> ShapeHash {
        let mut hasher = Sha256::new();
        digest_json(&mut hasher, self);
        ShapeHash((first_16(&hasher.finalize()) >> 64) as u64)
    }
}

/// Feeds a value's JSON to a hasher: fields in declaration order, ordered maps only, strings quoted. A field that is
/// added later must leave itself out at its default (`skip_serializing_if`), or every address changes with it.
pub(crate) fn digest_json(hasher: &mut Sha256, value: &impl Serialize) {
    // In one piece: a hasher that is fed token by token costs more than the copy.
    hasher.update(serde_json::to_vec(value).expect("memory takes all bytes, and keys are strings"));
}

pub(crate) fn first_16(digest: &[u8]) -> u128 {
    u128::from_be_bytes(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
}
