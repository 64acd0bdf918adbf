//! Plans of whole bursts against small fleets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use volley_engine::{FleetView, PlanInput, plan};
use volley_model::{
    Bytes, Capacity, ClaimNumber, Claimed, ContainerId, CpuMilli, Epoch, FleetChanges, FleetVersion, GroupId, Millis,
    Nonce, PoolName, Revision, Score, SessionId, Shape, Spec, TenantName, Timestamp, Worker, WorkerId, WorkerStatus,
    WorkerView,
};

fn worker(name: &str, gpus: &[&str]) -> WorkerView {
    let gpus = gpus.iter().map(|kind| (*kind).to_owned()).collect();
    let capacity = Capacity { cpu: CpuMilli(1000), memory: Bytes(10 << 30), slots: 100, gpus };
    WorkerView {
        free: capacity.all_free(),
        worker: Arc::new(Worker {
            id: WorkerId::new(name).unwrap(),
            pool: PoolName::default(),
            labels: BTreeMap::new(),
            capacity,
            notes: Vec::new(),
        }),
        epoch: Epoch { number: 1, nonce: Nonce(7) },
        revision: Revision(1),
        status: WorkerStatus::Ready,
        affinities: Arc::new(Vec::new()),
        hold: None,
    }
}

fn view(workers: Vec<WorkerView>) -> FleetView {
    let mut view = FleetView::new();
    view.apply(&FleetChanges { reload: true, version: FleetVersion(9), workers, ..FleetChanges::default() });
    view
}

fn burst(count: u32, spec: &Spec) -> (Vec<Claimed>, Arc<Shape>) {
    let shape = Arc::new(Shape::of(&TenantName::default(), spec));
    let claimed = |index| Claimed {
        container: ContainerId { group: GroupId(1), index },
        claim: ClaimNumber(1),
        shape: shape.hash(),
        score: Score(1),
        since: Timestamp(0),
        fail_if_unplaceable: false,
    };
    ((0..count).map(claimed).collect(), Arc::clone(&shape))
}

fn planned(view: &FleetView, containers: &[Claimed], shape: &Arc<Shape>) -> volley_engine::Plan {
    let session = SessionId(1);
    let shapes = [(shape.hash(), Arc::clone(shape))];
    plan(
        view,
        &PlanInput {
            containers,
            shapes: &shapes,
            recheck: &[],
            session,
            sessions: &[session],
            now: Timestamp(1),
            hold_after: Millis(1000),
            hold_term: Millis(1000),
            seed: 5,
        },
    )
}

fn of_cpu(cpu: u64) -> Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(cpu);
    spec
}

#[test]
fn a_hundred_containers_of_which_ten_fit_per_worker_land_on_exactly_ten_workers() {
    let view = view((0..40).map(|n| worker(&format!("w{n}"), &[])).collect());
    let (containers, shape) = burst(100, &of_cpu(100));
    let plan = planned(&view, &containers, &shape);
    let workers: BTreeSet<_> = plan.placements.iter().map(|placement| &placement.worker).collect();
    assert_eq!((plan.placements.len(), workers.len()), (100, 10));
    assert_eq!(plan, planned(&view, &containers, &shape), "same input and seed, same plan");
}

#[test]
fn what_does_not_fit_goes_back_and_its_shape_is_blocked_with_the_reason() {
    let view = view(vec![worker("w0", &[])]);
    let (containers, shape) = burst(3, &of_cpu(400));
    let plan = planned(&view, &containers, &shape);
    assert_eq!((plan.placements.len(), plan.returned.len(), plan.blocked.len()), (2, 1, 1));
    assert_eq!(plan.blocked[0].at, FleetVersion(9));
    assert!(!plan.blocked[0].reasons.is_empty());
}

#[test]
fn cpu_work_stays_off_gpu_workers() {
    let view = view(vec![worker("gpu", &["A100"]), worker("plain", &[])]);
    let (containers, shape) = burst(11, &of_cpu(100));
    let plan = planned(&view, &containers, &shape);
    assert_eq!(plan.placements.len(), 10);
    assert!(plan.placements.iter().all(|placement| placement.worker.as_str() == "plain"));
}
