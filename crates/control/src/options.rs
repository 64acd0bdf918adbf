//! The settings of the loops. Parsed by `cli`, typed here.

use std::sync::Arc;
use std::time::Duration;

use volley_metrics::ServerMetrics;
use volley_model::Millis;

use crate::{Random, ScaleOptions};

/// When a batch closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 10 ms, 20 containers.
    Latency,
    /// 50 ms, 100 containers.
    Balanced,
    /// 100 ms, 200 containers.
    Throughput,
    /// No fixed wait: what has gathered while the last batch committed, up to 1,000.
    Auto,
}

impl Profile {
    /// Longest wait after a batch's first container.
    #[must_use]
    pub fn window(self) -> Duration {
        Duration::from_millis(match self {
            Profile::Latency => 10,
            Profile::Balanced => 50,
            Profile::Throughput => 100,
            Profile::Auto => 0,
        })
    }

    /// Most containers of a batch.
    #[must_use]
    pub fn max_size(self) -> u32 {
        match self {
            Profile::Latency => 20,
            Profile::Balanced => 100,
            Profile::Throughput => 200,
            Profile::Auto => 1_000,
        }
    }
}

/// The settings of a server's loops.
#[derive(Debug, Clone)]
pub struct Options {
    /// A batch closes this long after its first container at the latest.
    pub window: Duration,
    /// A batch closes when arrivals pause for this long.
    pub pause: Duration,
    /// A batch closes at this many containers; 1 is one-at-a-time scheduling.
    pub max_size: u32,
    /// Where the API answers, for people.
    pub address: String,
    /// The sweep runs at least this often, for leases; and when something is due.
    pub sweep_interval: Duration,
    /// After this wait the best waiting container of a pool gets a hold.
    pub hold_after: Millis,
    /// How long a hold lasts.
    pub hold_term: Millis,
    /// Breaks ties among equal workers.
    pub seed: u64,
    /// Where ids and nonces come from.
    pub random: Random,
    /// How machines are bought; `None`: this server buys none.
    pub scale: Option<ScaleOptions>,
    /// What the loops count.
    pub metrics: Arc<ServerMetrics>,
}

impl Options {
    /// The settings of a profile.
    #[must_use]
    pub fn of_profile(profile: Profile) -> Self {
        Self {
            window: profile.window(),
            pause: profile.window() / 10,
            max_size: profile.max_size(),
            address: String::new(),
            sweep_interval: Duration::from_secs(5),
            hold_after: Millis::from_secs(10),
            hold_term: Millis::from_secs(30),
            seed: 0,
            random: Random::default(),
            scale: None,
            metrics: Arc::default(),
        }
    }
}
