//! What the API asks about the future: why a container waits and what is done about it, and what would become of a
//! submission that is not made. Reads only.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_engine::explain::{ClassOutlook, explain};
use volley_engine::scale::{PoolProspect, Purchase, ShapeOutlook, prospects};
use volley_engine::{FleetView, Plan, PlanInput, plan, plan_scale};
use volley_ledger::{Answer, NotFound, Query, Scope, SubmitRefusal, score_of};
use volley_model::{
    ArrivalNumber, ClaimNumber, Claimed, ContainerId, Cost, Demand, GroupId, Nonce, Placement, PoolName, Run,
    ScaleState, Score, Shape, ShapeHash, Submission, Timestamp, WaitReason, WorkerId,
};

use crate::{Control, ControlError};

/// Tenants of one read.
const TENANTS_PAGE: u32 = 1_000;

/// What of the fleet could serve a container that waits, and what is done about it. Nothing for one that does not.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The store's time.
    pub now: Timestamp,
    /// How the workers stand to it, by pool and class.
    pub classes: Vec<ClassOutlook>,
    /// What can be hoped of each pool.
    pub pools: Vec<PoolProspect>,
    /// What the next look at the fleet's size would do for its shape; `None` while it was not looked at.
    pub outlook: Option<ShapeOutlook>,
}

/// What would become of a submission.
#[derive(Debug, Clone, Default)]
pub struct DryRun {
    /// Why the store would turn it down now: then nothing is placed and nothing bought.
    pub refused: Option<String>,
    /// Each run of alike containers, in the submission's order.
    pub runs: Vec<RunOutlook>,
    /// What would be bought for it, beyond what is bought anyway.
    pub purchases: Vec<Purchase>,
    /// Of these purchases.
    pub cost_per_hour: Cost,
}

/// What would become of alike containers.
#[derive(Debug, Clone, Default)]
pub struct RunOutlook {
    /// How many.
    pub count: u64,
    /// Placed at once: how many on which worker of which pool.
    pub placed: BTreeMap<(PoolName, WorkerId), u64>,
    /// Would run on machines on their way, or on workers about to have room.
    pub on_way: u64,
    /// Would run on machines bought for them.
    pub bought_for: u64,
    /// Nothing is in sight for them.
    pub unplaced: u64,
    /// Why those wait that are not placed at once.
    pub reasons: Vec<WaitReason>,
    /// What can be hoped of each pool for these.
    pub pools: Vec<PoolProspect>,
}

impl Control {
    /// Why a container waits, or where it is.
    pub async fn explain(&self, id: ContainerId, scope: Scope) -> Result<Explanation, ControlError> {
        let not_found = || NotFound { what: format!("container {id}") };
        let Answer::Container(Some(record)) = self.read(Query::Container(id, scope)).await? else {
            return Err(not_found().into());
        };
        let record = *record;
        let mut view = self.observer.lock().await;
        let (state, _) = self.scale_state_of(&mut view).await?;
        let mut explanation = Explanation { now: state.now, classes: Vec::new(), pools: Vec::new(), outlook: None };
        let Some(waiting) = record.waiting else { return Ok(explanation) };
        let shape = Shape::of(&record.tenant, &record.spec);
        let hash = shape.hash();
        explanation.classes = explain(&view, &shape);
        let demand = state.demand.iter().find(|demand| demand.hash == hash).cloned();
        let alone = || Demand { hash, shape: Arc::new(shape), since: waiting.since, runs: vec![(Score(0), 1)] };
        explanation.pools = prospects(&view, &state, &demand.unwrap_or_else(alone));
        let plan = plan_scale(&view, &state);
        explanation.outlook = plan.demand.into_iter().find(|outlook| outlook.shape == hash);
        Ok(explanation)
    }

    /// What would become of a submission. Changes nothing.
    pub async fn dry_run(&self, submission: &Submission) -> Result<DryRun, ControlError> {
        if let Some(refusal) = self.over_quota(submission).await? {
            let alone =
                |run: &Run| RunOutlook { count: run.count.into(), unplaced: run.count.into(), ..RunOutlook::default() };
            let runs = submission.runs.iter().map(alone).collect();
            return Ok(DryRun { refused: Some(refusal.to_string()), runs, ..DryRun::default() });
        }
        let mut view = self.observer.lock().await;
        let (state, _) = self.scale_state_of(&mut view).await?;
        Ok(Trial::new(&view, &state, submission).outlook(self.options.seed, self.options.hold_after))
    }
}

impl Control {
    /// Why a submission is more than its tenant may have waiting. Its rate only delays it.
    async fn over_quota(&self, submission: &Submission) -> Result<Option<SubmitRefusal>, ControlError> {
        let asked = submission.runs.iter().map(|run| u64::from(run.count)).sum();
        let mut after = None;
        loop {
            let Answer::Tenants { tenants, more } = self.read(Query::Tenants { after, max: TENANTS_PAGE }).await?
            else {
                return Ok(None);
            };
            if let Some(record) = tenants.iter().find(|record| record.tenant.name == submission.tenant) {
                let (tenant, waiting) = (submission.tenant.clone(), record.waiting);
                let limit = record.tenant.backlog_max.filter(|limit| waiting + asked > *limit);
                return Ok(limit.map(|limit| SubmitRefusal::TenantBacklogFull { tenant, waiting, limit, asked }));
            }
            match tenants.last().filter(|_| more) {
                Some(last) => after = Some(last.tenant.name.clone()),
                None => return Ok(None),
            }
        }
    }
}

/// A submission held against a view.
struct Trial<'a> {
    view: &'a FleetView,
    state: &'a ScaleState,
    shapes: Vec<(ShapeHash, Arc<Shape>)>,
    /// Shape and score of each run.
    runs: Vec<(usize, Score, u32)>,
}

impl<'a> Trial<'a> {
    fn new(view: &'a FleetView, state: &'a ScaleState, submission: &Submission) -> Self {
        let mut shapes: Vec<(ShapeHash, Arc<Shape>)> = Vec::new();
        let mut runs = Vec::new();
        for run in &submission.runs {
            let shape = Shape::of(&submission.tenant, &run.spec);
            let hash = shape.hash();
            let place = shapes.iter().position(|(known, _)| *known == hash).unwrap_or_else(|| {
                shapes.push((hash, Arc::new(shape)));
                shapes.len() - 1
            });
            // It would come last of its priority.
            runs.push((place, score_of(run.spec.priority, ArrivalNumber(u64::MAX)), run.count));
        }
        Self { view, state, shapes, runs }
    }

    fn outlook(&self, seed: u64, hold_after: volley_model::Millis) -> DryRun {
        let (claimed, run_of) = self.claimed();
        let me = volley_model::SessionId(0);
        let input = PlanInput {
            containers: &claimed,
            shapes: &self.shapes,
            recheck: &[],
            session: me,
            sessions: &[me],
            now: self.state.now,
            hold_after,
            hold_term: volley_model::Millis(0),
            seed,
        };
        let planned = plan(self.view, &input);
        let runs = self.runs.iter();
        let runs = runs.map(|(.., count)| RunOutlook { count: u64::from(*count), ..RunOutlook::default() }).collect();
        let mut dry = DryRun { runs, ..DryRun::default() };
        for placement in &planned.placements {
            let pool = self.view.worker(&placement.worker).map(|view| view.worker.pool.clone()).unwrap_or_default();
            let run = run_of[placement.container.container.index as usize];
            *dry.runs[run].placed.entry((pool, placement.worker.clone())).or_default() += 1;
        }
        self.scale(&planned, &mut dry);
        dry
    }

    /// Each container as if it were claimed, and its run.
    fn claimed(&self) -> (Vec<Claimed>, Vec<usize>) {
        let (mut claimed, mut run_of) = (Vec::new(), Vec::new());
        for (run, (shape, score, count)) in self.runs.iter().enumerate() {
            for _ in 0..*count {
                claimed.push(Claimed {
                    container: ContainerId { group: GroupId(0), index: claimed.len() as u32 },
                    claim: ClaimNumber(1),
                    shape: self.shapes[*shape].0,
                    score: *score,
                    since: self.state.now,
                    fail_if_unplaceable: false,
                });
                run_of.push(run);
            }
        }
        (claimed, run_of)
    }

    /// What would be bought for what is not placed, beside what is bought anyway.
    fn scale(&self, planned: &Plan, dry: &mut DryRun) {
        let mut view = self.view.clone();
        for placement in &planned.placements {
            let shape = self.shapes.iter().find(|(hash, _)| *hash == placement.container.shape);
            let placed = Placement {
                container: placement.container.container,
                claim: placement.container.claim,
                worker: placement.worker.clone(),
                epoch: placement.epoch,
                revision: placement.revision,
                gpus: placement.gpus.clone(),
                nonce: Nonce(0),
            };
            view.reserve_committed(&placed, &shape.expect("what is placed is of the submission").1.resources);
        }
        let before = plan_scale(&view, self.state);
        let mut state = self.state.clone();
        let mut left = vec![0_u64; self.shapes.len()];
        for (run, (shape, score, count)) in self.runs.iter().enumerate() {
            let placed: u64 = dry.runs[run].placed.values().sum();
            let rest = u64::from(*count) - placed;
            left[*shape] += rest;
            if rest > 0 {
                add_demand(&mut state, &self.shapes[*shape], *score, rest);
            }
        }
        let after = plan_scale(&view, &state);
        let outlook_of = |plan: &volley_engine::ScalePlan, hash: ShapeHash| {
            plan.demand.iter().find(|outlook| outlook.shape == hash).cloned()
        };
        for (place, (hash, _)) in self.shapes.iter().enumerate().filter(|(place, _)| left[*place] > 0) {
            let Some(mut now) = outlook_of(&after, *hash) else { continue };
            if let Some(old) = outlook_of(&before, *hash) {
                now.fit_ready = now.fit_ready.saturating_sub(old.fit_ready);
                now.fit_booting = now.fit_booting.saturating_sub(old.fit_booting);
                now.bought_for = now.bought_for.saturating_sub(old.bought_for);
            }
            self.deal_out(place, &now, dry);
        }
        let demands = &state.demand;
        for (run, (shape, ..)) in self.runs.iter().enumerate() {
            let outlook = &mut dry.runs[run];
            if outlook.placed.values().sum::<u64>() < outlook.count {
                let hash = self.shapes[*shape].0;
                let mark = planned.blocked.iter().find(|mark| mark.shape == hash);
                outlook.reasons = mark.map(|mark| mark.reasons.clone()).unwrap_or_default();
                if let Some(demand) = demands.iter().find(|demand| demand.hash == hash) {
                    outlook.pools = prospects(&view, &state, demand);
                }
            }
        }
        dry.purchases = beyond(&before.purchases, after.purchases);
        let costs = dry.purchases.iter().map(|purchase| purchase.cost_per_hour.times(u64::from(purchase.count)));
        dry.cost_per_hour = costs.fold(Cost(0), Cost::plus);
    }

    /// Deals what is in sight for a shape out to its runs, the first ones first.
    fn deal_out(&self, shape: usize, in_sight: &ShapeOutlook, dry: &mut DryRun) {
        let (mut on_way, mut bought) = (in_sight.fit_ready + in_sight.fit_booting, in_sight.bought_for);
        for (run, _) in self.runs.iter().enumerate().filter(|(_, (of, ..))| *of == shape) {
            let outlook = &mut dry.runs[run];
            let mut rest = outlook.count - outlook.placed.values().sum::<u64>();
            outlook.on_way = rest.min(on_way);
            (on_way, rest) = (on_way - outlook.on_way, rest - outlook.on_way);
            outlook.bought_for = rest.min(bought);
            (bought, rest) = (bought - outlook.bought_for, rest - outlook.bought_for);
            outlook.unplaced = rest;
        }
    }
}

/// As if it had waited long enough for every pool to be allowed.
fn add_demand(state: &mut ScaleState, (hash, shape): &(ShapeHash, Arc<Shape>), score: Score, count: u64) {
    match state.demand.iter_mut().find(|demand| demand.hash == *hash) {
        Some(demand) => {
            demand.since = Timestamp(0);
            demand.runs.push((score, count));
            demand.runs.sort_unstable();
        }
        None => {
            let (shape, runs) = (Arc::clone(shape), vec![(score, count)]);
            state.demand.push(Demand { hash: *hash, shape, since: Timestamp(0), runs });
        }
    }
}

/// What one plan buys beyond another.
fn beyond(before: &[Purchase], after: Vec<Purchase>) -> Vec<Purchase> {
    let more = after.into_iter().map(|mut purchase| {
        let old = before.iter().find(|old| old.pool == purchase.pool);
        purchase.count = purchase.count.saturating_sub(old.map_or(0, |old| old.count));
        purchase.warm = purchase.warm.saturating_sub(old.map_or(0, |old| old.warm));
        purchase
    });
    more.filter(|purchase| purchase.count > 0).collect()
}
