//! What is given up, case by case.

use std::sync::Arc;

use volley_model::{CpuMilli, Millis, Stage, Timestamp, WorkerStatus};

use super::scene::{IDLE, NOW, Scene, elastic, shape};

const AGO: Timestamp = Timestamp(NOW.0 - IDLE.0);

/// Three registered machines; the first two idle for the whole timeout, the second for longer.
fn idle() -> Scene {
    let scene = Scene::of([elastic("a")]).bought(3, "a", Stage::Registered { at: Timestamp(1) });
    scene.worker(0, |w| w.idle_since = AGO).worker(1, |w| w.idle_since = Timestamp(AGO.0 - 5))
}

#[test]
fn idle_workers_leave_down_to_what_is_kept() {
    assert_eq!(idle().gives_up(), ["a-0 Idle", "a-1 Idle"]);
    assert_eq!(idle().rules(|e| e.min = 2).gives_up(), ["a-1 Idle"], "the one that is idle longest");
    assert_eq!(idle().rules(|e| e.min = 3).gives_up(), [""; 0]);
    assert_eq!(idle().rules(|e| e.min_free.cpu = CpuMilli(20_000)).gives_up(), ["a-1 Idle"]);
}

#[test]
fn busy_and_wanted_workers_stay() {
    assert_eq!(idle().worker(1, |w| w.containers = 1).gives_up(), ["a-0 Idle"]);
    assert_eq!(idle().demand(1, &shape(1000), 1).gives_up(), [""; 0], "the next turn may need them");
    assert_eq!(idle().demand(1, &shape(10_001), 1).gives_up(), ["a-0 Idle", "a-1 Idle"], "it cannot run on them");
    assert_eq!(idle().worker(0, |w| w.status = WorkerStatus::Cordoned).gives_up(), ["a-1 Idle"], "its owner's wish");
}

#[test]
fn what_is_given_up_is_not_bought_again() {
    for min in 0..4 {
        for warm in [0, 5_000, 10_000, 15_000, 30_000] {
            let mut scene = idle().rules(|e| (e.min, e.min_free.cpu) = (min, CpuMilli(warm)));
            let plan = scene.plan();
            let gone = |worker: &volley_model::WorkerId| plan.retirements.iter().any(|(id, _)| id == worker);
            scene.workers.retain(|worker| !gone(&worker.worker.id));
            scene.state.machines.retain(|machine| !gone(&machine.record.worker));
            assert!(scene.plan().is_empty(), "min {min}, warm {warm}: {:?}", scene.plan());
        }
    }
}

#[test]
fn machines_that_came_to_nothing_are_given_up() {
    let mut late = Scene::of([elastic("a")]).bought(2, "a", Stage::Booting);
    Arc::make_mut(&mut late.state.machines[1].record).boot_until = NOW;
    assert_eq!(late.gives_up(), ["a-1 BootLimit"]);
    let lost = |since: Timestamp| {
        idle().worker(2, move |w| (w.status, w.idle_since) = (WorkerStatus::Lost, since)).rules(|e| e.min = 2)
    };
    assert_eq!(lost(Timestamp(NOW.0 - 29_999)).gives_up(), [""; 0]);
    assert_eq!(lost(Timestamp(NOW.0 - 30_000)).gives_up(), ["a-2 Lost"]);
    let mut forgotten = idle().rules(|e| e.min = 3);
    forgotten.state.machines[2].worker = None;
    assert_eq!(forgotten.gives_up(), ["a-2 Lost"]);
}

#[test]
fn drained_and_quarantined_machines_are_given_up() {
    let keep = || idle().rules(|e| e.min = 3);
    assert_eq!(keep().worker(2, |w| w.status = WorkerStatus::Draining).gives_up(), ["a-2 Drained"]);
    let full = keep().worker(2, |w| (w.status, w.containers) = (WorkerStatus::Draining, 1));
    assert_eq!(full.gives_up(), [""; 0]);
    let sick = |since: Timestamp| {
        keep().worker(2, move |w| (w.status, w.quarantined, w.idle_since) = (WorkerStatus::Cordoned, true, since))
    };
    assert_eq!(sick(AGO.after(Millis(1))).gives_up(), [""; 0], "there is time to look at it");
    assert_eq!(sick(AGO).gives_up(), ["a-2 Quarantined"]);
}

#[test]
fn what_is_leaving_is_left_alone() {
    let why = volley_model::RetireCause::Idle;
    let scene = Scene::of([elastic("a")]);
    let scene = scene.bought(1, "a", Stage::Draining { since: AGO, why }).worker(0, |w| w.idle_since = AGO);
    assert_eq!(scene.gives_up(), [""; 0]);
}
