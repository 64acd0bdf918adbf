//! The turn: gather a batch, claim, plan, commit, wake. Two store calls per turn; nobody
//! polls the backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use volley_engine::{FleetView, Plan, PlanInput, plan};
use volley_ledger::{Claim, ClaimReply, Commit, CommitReply, Request, SessionRefusal};
use volley_model::{ClaimNumber, Claimed, CommitNumber, ContainerId, Placement, Refusal, Shape, ShapeHash, Timestamp};
use volley_store::{StoreError, StoreExt};

use crate::arrivals::Closing;
use crate::control::UNKNOWN_RETRIES;
use crate::counted;
use crate::rates::Lane;
use crate::turn_log::Turned;
use crate::turn_stats::TurnTimes;
use crate::{Control, Options};

/// Most fleet changes of one claim.
const CHANGES_MAX: u32 = 10_000;
/// Wait after the store failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What a session remembers from turn to turn.
#[derive(Default)]
struct Memory {
    view: FleetView,
    claims: ClaimNumber,
    commits: CommitNumber,
    /// Refused at the last commit, still claimed.
    carried: BTreeMap<ContainerId, Claimed>,
    shapes: BTreeMap<ShapeHash, Arc<Shape>>,
    /// The store's time of the present turn's claim.
    claimed_at: Timestamp,
}

/// Why a turn was not finished.
enum Broken {
    Session,
    Store(StoreError),
}

impl Control {
    pub(crate) async fn turn_loop(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut again = false;
        let Options { window, pause, max_size, .. } = self.options;
        let closing = Closing { window, pause, max_size };
        let mut ending = self.ending.subscribe();
        while !*ending.borrow_and_update() {
            if !again {
                let first = tokio::select! {
                    first = self.arrivals.batch(closing) => first,
                    _ = ending.changed() => continue,
                };
                self.options.metrics.turn.phase.observe(["collect"], first.elapsed());
            }
            match self.turn(&mut memory).await {
                Ok(more) => again = more,
                Err(broken) => {
                    self.options.metrics.turn.turns.add_one(["broken"]);
                    if let Broken::Store(error) = broken {
                        tracing::warn!(%error, "a turn was broken off");
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                    // A new session: the old one's claims go back by themselves.
                    self.session.store(self.random(), Ordering::SeqCst);
                    memory = Memory::default();
                    again = self.open_session().await.is_ok();
                    if !again {
                        tokio::time::sleep(AFTER_FAILURE).await;
                        again = true;
                    }
                }
            }
        }
    }

    /// One turn; whether there is more to do at once.
    async fn turn(&self, memory: &mut Memory) -> Result<bool, Broken> {
        let room = self.options.max_size.saturating_sub(memory.carried.len() as u32);
        memory.claims = memory.claims.next();
        let claim = Claim {
            session: self.session(),
            number: memory.claims,
            containers_max: room,
            known: memory.view.version(),
            changes_max: CHANGES_MAX,
        };
        let metrics = &self.options.metrics.turn;
        let started = Instant::now();
        let claimed = self.call_again(claim).await?.map_err(on_session)?;
        let mut times = TurnTimes { claim: started.elapsed(), ..TurnTimes::default() };
        metrics.phase.observe(["claim"], times.claim);
        memory.claimed_at = claimed.now;
        self.turns.on_claim(claimed.fleet.reload);
        counted::on_changes(metrics, &claimed.fleet);
        let started = Instant::now();
        memory.view.apply(&claimed.fleet);
        memory.shapes.extend(claimed.shapes.iter().cloned());
        let mut containers: Vec<Claimed> = std::mem::take(&mut memory.carried).into_values().collect();
        containers.extend(claimed.containers.iter().cloned());
        let shapes: Vec<(ShapeHash, Arc<Shape>)> =
            memory.shapes.iter().map(|(hash, shape)| (*hash, Arc::clone(shape))).collect();
        let plan = self.plan(memory, &claimed, &containers, &shapes);
        (times.plan, times.containers) = (started.elapsed(), containers.len() as u64);
        metrics.phase.observe(["plan"], times.plan);
        if !containers.is_empty() {
            metrics.batch.observe(containers.len() as f64);
        }
        tracing::debug!(claimed = containers.len(), placed = plan.placements.len(), "a turn");
        let more = claimed.ready > 0 || claimed.fleet.more || !plan.unblocked.is_empty();
        if plan == Plan::default() {
            memory.shapes.clear();
            self.turns.on_idle();
            metrics.turns.add_one(["idle"]);
            return Ok(more);
        }
        let refused = self.commit(memory, plan, times).await?;
        memory.shapes.retain(|hash, _| memory.carried.values().any(|claimed| claimed.shape == *hash));
        Ok(more || refused)
    }

    fn plan(
        &self,
        memory: &Memory,
        claimed: &ClaimReply,
        containers: &[Claimed],
        shapes: &[(ShapeHash, Arc<Shape>)],
    ) -> Plan {
        let input = PlanInput {
            containers,
            shapes,
            recheck: &claimed.recheck,
            session: self.session(),
            sessions: &claimed.sessions,
            now: claimed.now,
            hold_after: self.options.hold_after,
            hold_term: self.options.hold_term,
            seed: self.options.seed,
        };
        plan(&memory.view, &input)
    }

    /// Commits a plan and books its verdicts; whether something was refused or given back.
    async fn commit(&self, memory: &mut Memory, plan: Plan, mut times: TurnTimes) -> Result<bool, Broken> {
        memory.commits = memory.commits.next();
        let placements: Vec<Placement> = plan
            .placements
            .iter()
            .map(|planned| Placement {
                container: planned.container.container,
                claim: planned.container.claim,
                worker: planned.worker.clone(),
                epoch: planned.epoch,
                revision: planned.revision,
                gpus: planned.gpus.clone(),
                nonce: self.nonce(),
            })
            .collect();
        let commit = Commit {
            session: self.session(),
            number: memory.commits,
            placements: placements.clone(),
            blocked: plan.blocked.clone(),
            unblocked: plan.unblocked.clone(),
            returned: plan.returned.clone(),
            unplaceable: plan.unplaceable.clone(),
            holds: plan.holds.clone(),
        };
        let blocked = !commit.blocked.is_empty();
        let started = Instant::now();
        let reply: CommitReply = self.call_again(commit).await?.map_err(on_session)?;
        times.commit = started.elapsed();
        let metrics = &self.options.metrics.turn;
        metrics.phase.observe(["commit"], times.commit);
        let mut refused = 0;
        let mut placed_of: BTreeMap<ShapeHash, u64> = BTreeMap::new();
        for ((planned, placement), verdict) in plan.placements.iter().zip(&placements).zip(&reply.placements) {
            let container = &planned.container;
            if let Err(refusal) = verdict {
                metrics.refusals.add_one([counted::refusal(*refusal)]);
            }
            match verdict {
                Ok(_) => {
                    counted::on_placed(metrics, container, reply.now);
                    *placed_of.entry(container.shape).or_default() += 1;
                    if let Some(shape) = memory.shapes.get(&container.shape) {
                        memory.view.reserve_committed(placement, &shape.resources);
                    }
                }
                Err(Refusal::ClaimLost) => refused += 1,
                Err(_) => {
                    refused += 1;
                    memory.carried.insert(container.container, container.clone());
                }
            }
        }
        for worker in &reply.fresh {
            memory.view.put_worker(worker);
        }
        let placed = placements.len() - refused;
        let lanes = placed_of.iter().filter_map(|(hash, count)| Some((Lane::of(memory.shapes.get(hash)?), *count)));
        self.rates.note(reply.now, lanes);
        self.turns.on_commit(placed, refused, times);
        if placed > 0 {
            let (claimed, committed) = (memory.claimed_at, reply.now);
            let (claim, plan) = (times.claim, times.plan);
            self.turn_log.note(Turned { claimed, committed, placed: placed as u32, claim, plan });
        }
        self.drain_rate.placed(placed as u64);
        metrics.turns.add_one([if placed > 0 { "placed" } else { "idle" }]);
        metrics.placements.add(placed as u64);
        metrics.view_fresh.add(reply.fresh.len() as u64);
        metrics.returned.add(plan.returned.len() as u64);
        metrics.unplaceable.add(plan.unplaceable.len() as u64);
        metrics.holds.add(plan.holds.len() as u64);
        metrics.marks.add(["marked"], plan.blocked.len() as u64);
        metrics.marks.add(["unblocked"], plan.unblocked.len() as u64);
        if blocked {
            self.scale.notify_one();
        }
        Ok(refused > 0)
    }

    /// As [`Control::call_known`], in a turn.
    async fn call_again<R: Request + Clone>(&self, request: R) -> Result<R::Reply, Broken>
    where
        R::Reply: Send,
    {
        self.call_known(request).await.map_err(Broken::Store)
    }

    /// Sends a request that can be told from its repeat (by a number, a nonce); "unknown" is resolved by sending the
    /// same again.
    pub(crate) async fn call_known<R: Request + Clone>(&self, request: R) -> Result<R::Reply, StoreError>
    where
        R::Reply: Send,
    {
        let mut last = StoreError::Closed;
        for _ in 0..UNKNOWN_RETRIES {
            match self.store.call(request.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(error @ StoreError::Unknown { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

fn on_session(_: SessionRefusal) -> Broken {
    Broken::Session
}
