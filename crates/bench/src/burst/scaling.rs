//! A server with a backlog and pools, for `bench scale`: what it is asked, and bursts beside it. Knows nothing of which
//! figures become of it.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use volley_model::Millis;

use super::load::{Load, Seen};
use super::servers::{Running, Stage};
use super::{BurstError, Programs, scene};
use crate::Submit;

/// A burst, its shapes, and the workers onto which it goes: as `bench burst` has them.
const BURST: usize = 100;
const BURST_SHAPES: usize = 16;
const WORKERS: usize = 64;
/// Between two looks at whether all has come to rest.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Nothing more was bought for so long: it has come to rest.
const SETTLED: Duration = Duration::from_secs(3);
/// It has to come to rest in so long.
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// A server whose backlog waits.
pub(crate) struct Scaling {
    running: Running,
    load: Load,
    /// The backlog's groups.
    pub(crate) groups: Vec<String>,
}

impl Scaling {
    /// Starts it, with pools and a backlog as records and bodies of the API, and waits until it buys nothing more.
    /// With `buys` some has to be bought before.
    pub(crate) async fn start(
        (pools, backlog): (&[Value], &[Value]),
        buys: bool,
        dir: &Path,
        programs: &dyn Programs,
    ) -> Result<Self, BurstError> {
        let stage = Stage {
            servers: 1,
            redis: None,
            workers: WORKERS,
            slots: scene::slots(BURST, WORKERS),
            shapes: BURST_SHAPES,
            run_for: Millis(0),
            registered_workers: 0,
            spread: false,
            observed: false,
        };
        let running = Running::start(&stage, dir, programs).await?;
        for pool in pools {
            let path = format!("/v1/pools/{}", pool["name"].as_str().unwrap_or_default());
            running.send(Method::PUT, &path, pool).await?;
        }
        let mut groups = Vec::new();
        for body in backlog {
            let reply = running.send(Method::POST, "/v1/containers", body).await?;
            groups.push(reply["group"].as_str().unwrap_or_default().to_owned());
        }
        let load = Load::connect(&running.urls()).await?;
        let scaling = Self { running, load, groups };
        scaling.settle(buys).await?;
        Ok(scaling)
    }

    /// Until what is bought has been the same for a while, and all of it is on its way; with `buys` something is.
    async fn settle(&self, buys: bool) -> Result<(), BurstError> {
        let begin = std::time::Instant::now();
        let (mut last, mut since) = (None, begin);
        while begin.elapsed() < SETTLE_MAX {
            let pools = self.running.get("/v1/pools").await?;
            let machines = pools["pools"].as_array().into_iter().flatten();
            let machines = machines.flat_map(|pool| pool["machines"].as_array().into_iter().flatten());
            let stages: Vec<&str> = machines.filter_map(|machine| machine["stage"].as_str()).collect();
            let bought = stages.iter().all(|stage| *stage == "booting").then_some(stages.len());
            if last != bought || bought.is_none() {
                (last, since) = (bought, std::time::Instant::now());
            } else if since.elapsed() > SETTLED && (bought > Some(0) || !buys) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(BurstError::Server(format!("what it bought was not all on its way in {} s", SETTLE_MAX.as_secs())))
    }

    pub(crate) fn url(&self) -> String {
        self.running.urls().swap_remove(0)
    }

    /// The time of one request, in milliseconds.
    pub(crate) async fn request_ms(&self, method: Method, path: &str, body: &Value) -> Result<f64, BurstError> {
        let begin = std::time::Instant::now();
        if method == Method::GET {
            self.running.get(path).await?;
        } else {
            self.running.send(method, path, body).await?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    /// From the first submit sent to the last end heard of, in milliseconds.
    pub(crate) async fn burst_ms(&mut self) -> Result<f64, BurstError> {
        let seen = self.load.burst(scene::submissions(BURST, BURST_SHAPES, Submit::Batch)).await?;
        // Told now, or they gather there.
        self.running.workers.deliveries()?;
        wall_ms(&seen).ok_or_else(|| BurstError::Wrong {
            case: format!("a burst of {BURST} beside the backlog"),
            problem: format!("{} of {} ended", seen.ends.len(), seen.sent),
        })
    }

    /// The laws hold, and the whole backlog waits still.
    pub(crate) async fn end(self, backlog: u64) -> Result<(), BurstError> {
        let audit = self.running.get("/v1/audit").await?;
        if audit["ok"] != true || audit["queued"].as_u64() != Some(backlog) {
            let case = "the server with the backlog".to_owned();
            return Err(BurstError::Wrong { case, problem: format!("its audit says: {audit}") });
        }
        let Self { running, load, .. } = self;
        drop(load);
        running.end()
    }
}

fn wall_ms(seen: &Seen) -> Option<f64> {
    let begin = seen.groups.values().map(|sent| sent.at).min()?;
    let end = seen.ends.iter().map(|(_, at)| *at).max()?;
    (seen.ends.len() as u64 == seen.sent).then(|| end.since_ms(begin))
}

/// The body of a submission over HTTP.
pub(crate) fn body(spec: &volley_model::Spec, count: u32) -> Value {
    json!({ "spec": volley_wire::json::spec_to(spec), "count": count })
}
