//! What to run and with what: immutable and content-addressed. Checked in `submission`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Bytes, CpuMilli, GpuMilli, Millis, PoolName, Sandbox};

/// The address of a spec's content: the first 16 bytes of SHA-256 over its canonical JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SpecHash(pub u128);

impl fmt::Debug for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a container needs of a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU.
    pub cpu: CpuMilli,
    /// Memory.
    pub memory: Bytes,
    /// GPUs, if any.
    pub gpu: Option<GpuRequest>,
}

/// GPUs of one kind: `count` whole devices, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GpuRequest {
    /// Which kinds will do.
    pub kinds: GpuKinds,
    /// How many devices; 1 when `milli` is a part.
    pub count: u16,
    /// Of each device: 1000 is whole.
    pub milli: GpuMilli,
}

/// Which GPU kinds will do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuKinds {
    /// Whatever there is.
    Any,
    /// These, the best first.
    Ordered(Vec<String>),
}

/// Which pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolSelector {
    /// Any.
    #[default]
    Any,
    /// This one if it has room, else any.
    Preferred(PoolName),
    /// This one only.
    Required(PoolName),
}

/// On which ends another attempt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// Exit code other than 0, or a signal.
    ExitNonzero,
    /// It could not be run.
    Failed,
    /// Its worker was lost.
    Lost,
}

/// Whether and how another attempt is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// At most one attempt is ever made.
    Never,
    /// The default, [`Retry::DEFAULT_ATTEMPTS`] when the worker is lost.
    #[default]
    OnLost,
    /// Up to a limit, waiting longer each time.
    UpTo {
        /// All attempts, the first included: 2 to 100.
        attempts_max: u32,
        /// Wait before the second attempt; doubles with each.
        backoff: Millis,
        /// The longest wait.
        backoff_max: Millis,
        /// After which ends.
        on: Vec<RetryOn>,
    },
}

/// What becomes of a container that no pool could ever serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum OnUnplaceable {
    #[default]
    Wait,
    Fail,
}

impl OnUnplaceable {
    /// The default.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        *self == OnUnplaceable::Wait
    }
}

/// What becomes of a running container whose worker loses its lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The worker ends it when its lease ends; another attempt may be made.
    #[default]
    Stop,
    /// It goes on; only with [`Retry::Never`].
    Keep,
}

/// What to run and with what.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spec {
    /// The program; empty for the one that the image names.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment, added to the worker's short default one.
    pub env: BTreeMap<String, String>,
    /// Working directory; the container's own when absent.
    pub working_dir: Option<String>,
    /// What it is made from; without one it is a process of the worker's machine.
    pub image: Option<String>,
    /// How one made from an image is held.
    #[serde(default, skip_serializing_if = "Sandbox::is_default")]
    pub sandbox: Sandbox,
    /// What it needs.
    pub resources: Resources,
    /// Which pool.
    pub pool: PoolSelector,
    /// Labels that the worker must have.
    pub require_labels: BTreeMap<String, String>,
    /// Workers that ran this key lately are preferred.
    pub affinity: Option<String>,
    /// Higher goes first.
    pub priority: i8,
    /// Retries.
    pub retry: Retry,
    /// Longest wait in the queue (per attempt, from when it is ready).
    pub max_wait: Option<Millis>,
    /// When no pool could ever serve it.
    pub on_unplaceable: OnUnplaceable,
    /// When its worker is lost.
    pub on_disconnect: OnDisconnect,
    /// Between SIGTERM and SIGKILL.
    pub stop_grace: Millis,
    /// Captured output kept at most, stdout and stderr together.
    pub log_limit: Bytes,
}

impl Spec {
    /// The default `stop_grace`.
    pub const STOP_GRACE: Millis = Millis::from_secs(10);
    /// The default `log_limit`.
    pub const LOG_LIMIT: Bytes = Bytes(1 << 20);

    /// A spec that runs a command with all else at its default.
    #[must_use]
    pub fn of_command(command: &str, args: &[&str]) -> Self {
        Self {
            command: command.to_owned(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: BTreeMap::new(),
            working_dir: None,
            image: None,
            sandbox: Sandbox::default(),
            resources: Resources::default(),
            pool: PoolSelector::Any,
            require_labels: BTreeMap::new(),
            affinity: None,
            priority: 0,
            retry: Retry::default(),
            max_wait: None,
            on_unplaceable: OnUnplaceable::default(),
            on_disconnect: OnDisconnect::default(),
            stop_grace: Self::STOP_GRACE,
            log_limit: Self::LOG_LIMIT,
        }
    }

    /// Its content's address. Stable: fields in declaration order, maps sorted.
    #[must_use]
    pub fn hash(&self) -> SpecHash {
        let mut hasher = Sha256::new();
        crate::shape::digest_json(&mut hasher, self);
        SpecHash(crate::shape::first_16(&hasher.finalize()))
    }
}

impl Retry {
    /// Attempts under [`Retry::OnLost`].
    pub const DEFAULT_ATTEMPTS: u32 = 5;

    /// The wait before the attempt after number `attempt` (from 1) ended so; `None` when there is no other.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, end: RetryOn) -> Option<Millis> {
        match self {
            Retry::Never => None,
            Retry::OnLost => (end == RetryOn::Lost && attempt < Self::DEFAULT_ATTEMPTS).then_some(Millis(0)),
            Retry::UpTo { attempts_max, backoff, backoff_max, on } => {
                if attempt >= *attempts_max || !on.contains(&end) {
                    return None;
                }
                let doublings = (attempt - 1).min(32);
                Some(Millis(backoff.0.saturating_mul(1 << doublings).min(backoff_max.0)))
            }
        }
    }
}
