//! The truth that plans are held against: every worker's numbers by `model::capacity`, kept
//! apart from the view. A fast plan that is wrong is an error, not a figure. Never timed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use volley_engine::{FleetView, Plan, Planned};
use volley_model::{Claimed, ContainerId, GpuGrant, GpuKinds, Shape, ShapeHash, WorkerId, WorkerView, feasible};

/// The engine made a plan that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongPlan {
    /// A placement that the model's rules do not allow.
    #[error("{container} does not fit on {worker}: {rule}")]
    Placement {
        /// Which.
        container: ContainerId,
        /// Where to.
        worker: WorkerId,
        /// What it breaks.
        rule: String,
    },
    /// A container that was not placed once or returned once.
    #[error("{container} was placed or returned {times} times")]
    Times {
        /// Which.
        container: ContainerId,
        /// 0 or more than 1.
        times: usize,
    },
    /// The view has other numbers than the workers.
    #[error("the view is wrong about {worker}")]
    View {
        /// About which.
        worker: WorkerId,
    },
}

/// A container that was placed and has not ended.
pub(super) struct Live {
    worker: usize,
    gpus: Vec<GpuGrant>,
    pub(super) shape: Arc<Shape>,
}

/// All workers as they are.
pub(super) struct Truth {
    workers: Vec<WorkerView>,
    by_id: HashMap<WorkerId, usize>,
}

impl Truth {
    pub(super) fn new(workers: Vec<WorkerView>) -> Self {
        let by_id = workers.iter().enumerate().map(|(number, view)| (view.worker.id.clone(), number)).collect();
        Self { workers, by_id }
    }

    /// Checks a plan and takes the room of its placements, in order.
    pub(super) fn accept(
        &mut self,
        plan: &Plan,
        batch: &[Claimed],
        shapes: &[(ShapeHash, Arc<Shape>)],
    ) -> Result<Vec<Live>, WrongPlan> {
        let mut times: BTreeMap<ContainerId, usize> = batch.iter().map(|claimed| (claimed.container, 0)).collect();
        let placed = plan.placements.iter().map(|planned| planned.container.container);
        let ended = plan.unplaceable.iter().map(|(container, _)| *container);
        for container in placed.chain(plan.returned.iter().copied()).chain(ended) {
            *times.entry(container).or_insert(1) += 1;
        }
        if let Some((container, times)) = times.into_iter().find(|(_, times)| *times != 1) {
            return Err(WrongPlan::Times { container, times });
        }
        let shapes: HashMap<ShapeHash, &Arc<Shape>> = shapes.iter().map(|(hash, shape)| (*hash, shape)).collect();
        plan.placements.iter().map(|planned| self.place(planned, shapes[&planned.container.shape])).collect()
    }

    fn place(&mut self, planned: &Planned, shape: &Arc<Shape>) -> Result<Live, WrongPlan> {
        let wrong = |rule: String| WrongPlan::Placement {
            container: planned.container.container,
            worker: planned.worker.clone(),
            rule,
        };
        let Some(worker) = self.by_id.get(&planned.worker).copied() else {
            return Err(wrong("there is no such worker".to_owned()));
        };
        let view = &mut self.workers[worker];
        if (view.epoch, view.revision) != (planned.epoch, planned.revision) {
            return Err(wrong("another epoch or revision".to_owned()));
        }
        feasible(shape, &view.worker, false).map_err(|why| wrong(why.to_string()))?;
        let kinds: BTreeSet<&String> =
            planned.gpus.iter().filter_map(|grant| view.worker.capacity.gpus.get(grant.device as usize)).collect();
        let right_kind = match shape.resources.gpu.as_ref().map(|gpu| &gpu.kinds) {
            Some(GpuKinds::Ordered(asked)) => kinds.iter().all(|kind| asked.contains(kind)),
            Some(GpuKinds::Any) | None => true,
        };
        if kinds.len() > 1 || !right_kind {
            return Err(wrong("devices of another kind".to_owned()));
        }
        if !view.free.reserve(&shape.resources, &planned.gpus) {
            return Err(wrong("not enough is free".to_owned()));
        }
        Ok(Live { worker, gpus: planned.gpus.clone(), shape: Arc::clone(shape) })
    }

    /// Gives back what ended, and tells of all workers that changed since the last claim, as the feed would.
    pub(super) fn end(&mut self, placed: &[Live], ended: &[Live]) -> Vec<WorkerView> {
        for Live { worker, gpus, shape } in ended {
            let WorkerView { worker, free, .. } = &mut self.workers[*worker];
            assert!(free.release(&worker.capacity, &shape.resources, gpus), "what ends was reserved");
        }
        let changed: BTreeSet<usize> = placed.iter().chain(ended).map(|live| live.worker).collect();
        changed.into_iter().map(|worker| self.workers[worker].clone()).collect()
    }

    /// The view that was kept by changes is the same as the truth.
    pub(super) fn check_view(&self, view: &FleetView) -> Result<(), WrongPlan> {
        let wrong = self.workers.iter().find(|truth| view.worker(&truth.worker.id) != Some(*truth));
        wrong.map_or(Ok(()), |truth| Err(WrongPlan::View { worker: truth.worker.id.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use volley_engine::plan;
    use volley_model::Strategy;

    use super::*;
    use crate::Submit;
    use crate::engine::{EngineCase, containers, fleet, input};

    type Planned = (Truth, Plan, Vec<Claimed>, Vec<(ShapeHash, Arc<Shape>)>);

    /// One group: what asks for GPUs is placed first.
    fn planned() -> Planned {
        let (workers, shapes) = (fleet::workers(50, 1), fleet::shapes(24));
        let (strategy, submit) = (Strategy::Pack, Submit::Batch);
        let case = EngineCase { workers: 50, containers: 24, shapes: 24, batch: 24, strategy, submit };
        let claimed = containers(case, &shapes);
        let mut view = FleetView::new();
        let (pools, workers_known) = (fleet::pools(strategy), workers.clone());
        let changes = volley_model::FleetChanges { pools, workers: workers_known, ..Default::default() };
        view.apply(&changes);
        let plan = plan(&view, &input(&claimed, &shapes, 1));
        assert_eq!(plan.placements.len(), 24);
        (Truth::new(workers), plan, claimed, shapes)
    }

    fn check(spoil: impl FnOnce(&mut Plan, &mut Truth)) -> Option<WrongPlan> {
        let (mut truth, mut plan, claimed, shapes) = planned();
        spoil(&mut plan, &mut truth);
        truth.accept(&plan, &claimed, &shapes).err()
    }

    #[test]
    fn a_right_plan_is_accepted_and_its_end_leaves_no_trace() {
        let (mut truth, plan, claimed, shapes) = planned();
        let before = truth.workers.clone();
        let placed = truth.accept(&plan, &claimed, &shapes).unwrap();
        assert_ne!(truth.workers, before);
        truth.end(&placed, &placed);
        assert_eq!(truth.workers, before);
    }

    #[test]
    fn wrong_plans_are_found() {
        let placement = |error: Option<WrongPlan>| matches!(error, Some(WrongPlan::Placement { .. }));
        let times = |error: Option<WrongPlan>| matches!(error, Some(WrongPlan::Times { .. }));
        assert!(times(check(|plan, _| plan.placements.truncate(1))), "forgotten");
        assert!(times(check(|plan, _| plan.placements.push(plan.placements[0].clone()))), "placed twice");
        assert!(times(check(|plan, _| plan.returned.push(plan.placements[0].container.container))), "and returned");
        assert!(placement(check(|plan, _| plan.placements[0].gpus.clear())), "no devices");
        assert!(placement(check(|plan, _| plan.placements[0].revision.0 += 1)), "an old revision");
        assert!(
            placement(check(|plan, truth| {
                let worker = truth.by_id[&plan.placements[0].worker];
                truth.workers[worker].free.slots = 0;
            })),
            "a full worker"
        );
        assert!(
            placement(check(|plan, _| {
                let with_devices = plan.placements[0].worker.clone();
                plan.placements.last_mut().unwrap().worker = with_devices;
            })),
            "CPU work on a GPU worker, or another epoch"
        );
    }

    #[test]
    fn a_view_that_missed_a_change_is_found() {
        let (mut truth, ..) = planned();
        let mut view = FleetView::new();
        view.apply(&volley_model::FleetChanges { workers: truth.workers.clone(), ..Default::default() });
        assert_eq!(truth.check_view(&view), Ok(()));
        truth.workers[7].free.slots += 1;
        assert!(matches!(truth.check_view(&view), Err(WrongPlan::View { .. })));
    }
}
