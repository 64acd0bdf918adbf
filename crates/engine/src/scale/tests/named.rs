//! What is bought, case by case.

use std::sync::Arc;

use volley_model::{
    Bytes, CpuMilli, HoldView, Millis, PoolSelector, Score, Stage, TenantName, Timestamp, WorkerStatus,
};

use super::super::{Prospect, prospects};
use super::scene::{NOW, Scene, elastic, pool_name, shape};

fn bought(pool: &str, count: u32) -> Vec<(String, u32)> {
    vec![(pool.to_owned(), count)]
}

/// A hundred containers, ten to a machine.
fn burst() -> Scene {
    Scene::of([elastic("a")]).demand(100, &shape(1000), 1)
}

#[test]
fn what_is_there_and_what_is_on_its_way_is_not_bought_again() {
    assert_eq!(burst().buys(), bought("a", 10));
    assert_eq!(burst().ready(5, "a").buys(), bought("a", 5), "five ready of ten needed");
    assert_eq!(burst().bought(5, "a", Stage::Booting).buys(), bought("a", 5), "five booting");
    assert_eq!(burst().bought(10, "a", Stage::Requested).buys(), [], "ten on their way");
    assert_eq!(burst().bought(3, "a", Stage::Requested).ready(3, "a").buys(), bought("a", 4));
    assert_eq!(burst().bought(4, "a", Stage::Registered { at: NOW }).buys(), bought("a", 6), "ready by now");
}

#[test]
fn a_machine_that_the_view_knows_is_counted_once() {
    // It registered between the two reads: its record says booting, the view knows its worker.
    let mut scene = burst().bought(10, "a", Stage::Registered { at: NOW });
    for machine in &mut scene.state.machines {
        Arc::make_mut(&mut machine.record).stage = Stage::Booting;
        machine.worker = None;
    }
    assert_eq!(scene.buys(), []);
}

#[test]
fn nothing_is_bought_for_what_no_pool_can_serve() {
    assert_eq!(Scene::of([elastic("a")]).demand(5, &shape(10_001), 1).buys(), []);
    let elsewhere = volley_model::Shape { pool: PoolSelector::Required(pool_name("b")), ..shape(1) };
    assert_eq!(Scene::of([elastic("a")]).demand(5, &elsewhere, 1).buys(), []);
    let mut others = elastic("a");
    others.tenants.insert(TenantName::new("someone").unwrap());
    assert_eq!(Scene::of([others]).demand(5, &shape(1), 1).buys(), []);
}

#[test]
fn a_machine_that_offered_less_than_promised_is_not_bought_for_what_it_lacks() {
    let scene = Scene::of([elastic("a")]).demand(3, &shape(10_000), 1);
    assert_eq!(scene.buys(), bought("a", 3));
    let less = |standing: &mut volley_model::PoolStanding| {
        let mut offered = super::scene::machine().capacity;
        offered.cpu = CpuMilli(9_900);
        standing.offered = Some(offered);
    };
    assert_eq!(scene.standing("a", less).buys(), []);
}

#[test]
fn limits_bound_what_is_bought() {
    assert_eq!(burst().rules(|e| e.max = 4).buys(), bought("a", 4));
    assert_eq!(burst().rules(|e| e.max = 4).ready(3, "a").buys(), bought("a", 1), "workers count, whoever made them");
    assert_eq!(burst().rules(|e| e.in_flight_max = 3).buys(), bought("a", 3));
    assert_eq!(burst().rules(|e| e.in_flight_max = 3).bought(3, "a", Stage::Booting).buys(), []);
    assert_eq!(burst().rules(|e| e.per_minute_max = 2).buys(), bought("a", 2));
    let this_minute = |standing: &mut volley_model::PoolStanding| {
        standing.minute = Timestamp(NOW.0 - 59_000);
        standing.bought = 95;
    };
    assert_eq!(burst().standing("a", this_minute).buys(), bought("a", 5));
}

#[test]
fn the_best_scores_are_bought_for_first() {
    let scene = Scene::of([elastic("a")]).rules(|e| e.max = 1);
    let plan = scene.demand(10, &shape(1000), 9).demand(2, &shape(5000), 3).plan();
    let served: Vec<(u64, u64)> = plan.demand.iter().map(|outlook| (outlook.waiting, outlook.bought_for)).collect();
    assert_eq!(served, [(2, 2), (10, 0)]);
}

#[test]
fn a_lower_priority_takes_over_after_a_while() {
    let preferred = volley_model::Pool { priority: 10, ..elastic("preferred") };
    let scene = |waited: u64| {
        let pools = [preferred.clone(), elastic("other")];
        Scene::of(pools).rules(|e| e.max = 2).demand_since(40, &shape(1000), 1, Timestamp(NOW.0 - waited))
    };
    assert_eq!(scene(29_999).buys(), bought("preferred", 2), "the other pool waits");
    assert_eq!(scene(30_000).buys(), [("other".to_owned(), 2), ("preferred".to_owned(), 2)]);
    let failing = |standing: &mut volley_model::PoolStanding| standing.retry_at = NOW.after(Millis(1));
    assert_eq!(scene(1_000).standing("preferred", failing).buys(), []);
    assert_eq!(scene(30_000).standing("preferred", failing).buys(), bought("other", 4));
}

#[test]
fn the_cheaper_machine_is_bought_and_then_the_fewer() {
    let mut large = elastic("large");
    let rules = large.elastic.as_mut().unwrap();
    rules.machine.capacity.cpu = CpuMilli(40_000);
    rules.machine.capacity.memory = Bytes(40 << 30);
    rules.machine.capacity.slots = 40;
    rules.cost_per_hour = volley_model::Cost(3_000_000);
    let scene = |count| Scene::of([elastic("small"), large.clone()]).demand(count, &shape(1000), 1);
    assert_eq!(scene(10).buys(), bought("small", 1));
    assert_eq!(scene(40).buys(), bought("large", 1));
    assert_eq!(scene(45).buys(), [("large".to_owned(), 1), ("small".to_owned(), 1)]);
}

#[test]
fn a_hold_stands_for_one_container() {
    let mut scene = Scene::of([elastic("a")]).demand(2, &shape(6000), 1).ready(1, "a");
    scene.workers[0].free.cpu = CpuMilli(0);
    assert_eq!(scene.buys(), bought("a", 2));
    let until = NOW.after(Millis(1));
    scene.workers[0].hold = Some(HoldView { shape: shape(6000).hash(), score: Score(1), until });
    assert_eq!(scene.buys(), bought("a", 1));
}

#[test]
fn cordoned_and_lost_workers_are_no_room() {
    for status in [WorkerStatus::Cordoned, WorkerStatus::Lost, WorkerStatus::Draining] {
        let mut scene = Scene::of([elastic("a")]).demand(1, &shape(1000), 1).ready(1, "a");
        scene.workers[0].status = status;
        assert_eq!(scene.buys(), bought("a", 1), "{status:?}");
    }
}

#[test]
fn quarantine_is_tried_with_one_machine() {
    let quarantined = |retry_at: Timestamp| {
        move |standing: &mut volley_model::PoolStanding| {
            (standing.failures, standing.quarantined, standing.retry_at) = (5, true, retry_at);
        }
    };
    assert_eq!(burst().standing("a", quarantined(NOW.after(Millis(1)))).buys(), []);
    assert_eq!(burst().standing("a", quarantined(NOW)).buys(), bought("a", 1));
    assert_eq!(burst().standing("a", quarantined(NOW)).bought(1, "a", Stage::Booting).buys(), []);
}

#[test]
fn every_pool_has_its_least_number_and_room() {
    assert_eq!(Scene::of([elastic("a")]).rules(|e| e.min = 3).buys(), bought("a", 3));
    assert_eq!(Scene::of([elastic("a")]).rules(|e| e.min = 3).ready(1, "a").buys(), bought("a", 2));
    let warm = |e: &mut volley_model::Elastic| e.min_free.cpu = CpuMilli(12_000);
    assert_eq!(Scene::of([elastic("a")]).rules(warm).buys(), bought("a", 2));
    assert_eq!(Scene::of([elastic("a")]).rules(warm).ready(1, "a").buys(), bought("a", 1));
    // What the burst takes is not warm.
    let scene = Scene::of([elastic("a")]).rules(warm).demand(10, &shape(1000), 1);
    assert_eq!(scene.buys(), bought("a", 3));
}

#[test]
fn a_pool_says_why_it_sells_nothing() {
    let scene = burst().rules(|e| e.max = 0);
    let found = prospects(&scene.view(), &scene.state, &scene.state.demand[0]);
    assert_eq!(found[0].prospect, Prospect::AtMax { max: 0 });
    let scene = burst().bought(100, "a", Stage::Booting).rules(|e| e.max = 200);
    let found = prospects(&scene.view(), &scene.state, &scene.state.demand[0]);
    assert_eq!((found[0].in_flight, &found[0].prospect), (100, &Prospect::InFlight { limit: 100 }));
}

#[test]
fn a_plan_for_a_hundred_thousand_is_the_least() {
    // 100,000 containers of 64 shapes; whatever the mix, CPU says how many machines at least.
    let mut scene = Scene::of([elastic("a")]).rules(|e| {
        (e.max, e.in_flight_max, e.per_minute_max) = (100_000, 100_000, 100_000);
        e.machine.capacity.slots = 1000;
    });
    let mut cpu = 0;
    for number in 0..64 {
        let size = 100 + 37 * number;
        cpu += 1562 * size;
        scene = scene.demand(1562, &shape(size), number);
    }
    let [(_, count)] = scene.buys().try_into().expect("one pool");
    let least = cpu.div_ceil(10_000) as u32;
    assert!(count >= least && count <= least + least / 100, "{count} bought, at least {least} are needed");
}

#[test]
fn workers_are_counted_by_what_they_lack() {
    let mut scene = Scene::of([elastic("a")]).ready(6, "a");
    scene.workers[0].free.memory = Bytes(0);
    scene.workers[1].free.memory = Bytes(1 << 29);
    scene.workers[2].status = WorkerStatus::Cordoned;
    scene.workers[3].free.slots = 0;
    scene.workers[4].free.cpu = CpuMilli(500);
    let mut wanted = shape(1000);
    wanted.resources.memory = Bytes(1 << 30);
    let words: Vec<String> = crate::explain::explain(&scene.view(), &wanted).iter().map(ToString::to_string).collect();
    let expected = "6 workers: 1 with room, 1 too little CPU by at most 500m, 2 too little memory by at most 1Gi, \
                    1 without free slots, 1 cordoned";
    assert_eq!(words, [expected]);
    let words: Vec<String> =
        crate::explain::explain(&scene.view(), &shape(20_000)).iter().map(ToString::to_string).collect();
    assert_eq!(words, ["6 workers: can never serve it (too little CPU in all)"]);
}
