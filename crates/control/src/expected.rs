//! When a container that waits is expected to start, and on what basis: room that is there, a retry's time, a machine on
//! its way, the work in front of it, or the present rate. Reads only; what cannot be told is said.

use volley_engine::{FleetView, plan_scale};
use volley_ledger::{Ahead, Overview};
use volley_model::{Expected, Millis, ScaleState, Shape, ShapeHash, Timestamp, Worker, feasible};

use crate::foreseen::Asked;
use crate::rates::Lane;
use crate::{Control, ControlError, Why};

impl Control {
    /// When it is expected to start.
    pub(crate) async fn expected(
        &self,
        why: &Why,
        shape: &Shape,
        view: &FleetView,
        overview: &Overview,
    ) -> Result<Expected, ControlError> {
        let not_before = why.record.waiting.as_ref().and_then(|waiting| waiting.not_before);
        if let Some(at) = not_before.filter(|at| *at > why.now) {
            return Ok(Expected::NotBefore { at });
        }
        if let Some(worker) = &why.fits_on {
            return Ok(Expected::NextTurn { worker: worker.clone() });
        }
        let Some(ahead) = &why.ahead else {
            return Ok(Expected::Unknown { because: "it is in a turn right now".to_owned() });
        };
        if let Some(boots) = boots(view, &self.scale_state().await?, shape, ahead.same_shape) {
            return Ok(boots);
        }
        if let Some(observed) = self.observed(running(overview), why.now).await? {
            let foreseen = self.foreseen(&observed, &Asked { why, shape, ahead, view, overview });
            let expected = foreseen.or_else(|| self.expected_by_work(&observed, shape, ahead, view, overview));
            if let Some(expected) = expected {
                return Ok(expected);
            }
        }
        let lane = Lane::of(shape);
        let in_front = in_front(overview, ahead, &lane);
        Ok(match self.rates.of(&lane, why.now) {
            Some((placed, over)) => {
                let after = (u128::from(in_front) + 1) * u128::from(over.0) / u128::from(placed);
                let after = Millis(u64::try_from(after).unwrap_or(u64::MAX));
                Expected::Rate { after, ahead: in_front, placed, over }
            }
            None => {
                let because = "too little like it was placed in the last five minutes to tell a rate from";
                Expected::Unknown { because: because.to_owned() }
            }
        })
    }
}

/// Attempts that hold room.
fn running(overview: &Overview) -> u64 {
    overview.pools.values().map(|pool| pool.containers).sum()
}

/// What is in front of a container and waits for the same room: of its own shape, and of those of its lane whose heads
/// are in front of it.
pub(crate) fn in_front(overview: &Overview, ahead: &Ahead, lane: &Lane) -> u64 {
    let of_lane =
        |hash: &ShapeHash| overview.backlog.iter().any(|other| other.hash == *hash && Lane::of(&other.shape) == *lane);
    let others = ahead.others.iter().filter(|(hash, _)| of_lane(hash)).map(|(_, count)| count);
    ahead.same_shape.saturating_add(others.sum())
}

/// The machine on its way that has room for it, when as many as wait in front of it have room there, too.
fn boots(view: &FleetView, state: &ScaleState, shape: &Shape, ahead: u64) -> Option<Expected> {
    if !state.machines.iter().any(|machine| machine.record.stage.is_in_flight()) {
        return None;
    }
    let hash = shape.hash();
    let outlook = plan_scale(view, state).demand.into_iter().find(|outlook| outlook.shape == hash)?;
    if ahead < outlook.fit_ready || ahead >= outlook.fit_ready + outlook.fit_booting {
        return None;
    }
    let in_flight = state.machines.iter().filter(|machine| machine.record.stage.is_in_flight());
    let (machine, boot_time) = in_flight
        .filter_map(|machine| {
            let pool = view.pools().find(|pool| pool.name == machine.record.pool)?;
            let elastic = pool.elastic.as_ref().filter(|_| pool.admits(shape).is_ok())?;
            let worker = Worker {
                id: machine.record.worker.clone(),
                pool: pool.name.clone(),
                labels: elastic.machine.labels.clone(),
                capacity: elastic.machine.capacity.clone(),
                notes: Vec::new(),
            };
            feasible(shape, &worker, pool.cpu_on_gpu).ok()?;
            let standing = state.standings.iter().find(|standing| standing.pool == pool.name);
            let learnt = standing.and_then(|standing| standing.boot_time);
            Some((machine, learnt.unwrap_or(elastic.boot_time)))
        })
        .min_by_key(|(machine, _)| machine.record.requested_at)?;
    let since: Timestamp = machine.record.requested_at;
    let after = Millis(boot_time.0.saturating_sub(state.now.since(since).0));
    Some(Expected::Boot { after, worker: machine.record.worker.clone(), since, boot_time })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use volley_model::{
        Bytes, Capacity, Cost, CpuMilli, Demand, Elastic, FleetChanges, FleetVersion, Machine, MinFree, Pool, PoolName,
        PoolStanding, PoolVersion, ProvisionedMachine, ProvisionerKind, Provisioning, Score, Spec, Stage, TenantName,
        WorkerId,
    };

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    /// A pool whose machines have room for two, of which one was bought 11 s ago, and three of a shape that wait.
    fn scene() -> (FleetView, ScaleState, Shape) {
        let capacity = Capacity { cpu: CpuMilli(4_000), memory: Bytes(8 << 30), slots: 8, gpus: Vec::new() };
        let machine = Machine { capacity, labels: BTreeMap::new() };
        let mut pool = Pool::with_defaults(PoolName::new("bought").expect("a name"));
        pool.elastic = Some(Elastic {
            provisioner: ProvisionerKind::Process,
            options: BTreeMap::new(),
            machine: machine.clone(),
            min: 0,
            max: 10,
            min_free: MinFree::default(),
            cost_per_hour: Cost::default(),
            boot_time: Millis::from_secs(60),
            boot_limit: Millis::from_secs(600),
            idle_timeout: Millis::from_secs(300),
            fallback_after: Millis::from_secs(30),
            in_flight_max: 10,
            per_minute_max: 10,
        });
        let mut spec = Spec::of_command("true", &[]);
        spec.resources.cpu = CpuMilli(2_000);
        let shape = Shape::of(&TenantName::default(), &spec);
        let record = Provisioning {
            worker: WorkerId::new("w-7").expect("a name"),
            pool: pool.name.clone(),
            pool_version: PoolVersion::default(),
            machine: Arc::new(machine),
            cost_per_hour: Cost::default(),
            requested_at: Timestamp(NOW.0 - 11_000),
            boot_until: Timestamp(NOW.0 + 589_000),
            handle: None,
            stage: Stage::Booting,
        };
        let runs = vec![(Score(1), 3)];
        let demand = Demand { hash: shape.hash(), shape: Arc::new(shape.clone()), since: NOW, runs };
        let state = ScaleState {
            now: NOW,
            at: FleetVersion(1),
            demand: vec![demand],
            machines: vec![ProvisionedMachine { record: Arc::new(record), worker: None }],
            standings: vec![PoolStanding { boot_time: Some(Millis(41_000)), ..PoolStanding::fresh(pool.name.clone()) }],
            ..ScaleState::default()
        };
        let mut view = FleetView::new();
        view.apply(&FleetChanges { version: FleetVersion(1), pools: vec![pool], ..FleetChanges::default() });
        (view, state, shape)
    }

    #[test]
    fn a_machine_on_its_way_is_what_those_wait_for_that_have_room_on_it() {
        let (view, mut state, shape) = scene();
        let words = |state: &ScaleState, ahead| boots(&view, state, &shape, ahead).map(|expected| expected.to_string());
        let learnt = Some("in about 30 s: worker w-7 boots, usually 41 s".to_owned());
        assert_eq!((words(&state, 0), words(&state, 1)), (learnt.clone(), learnt));
        assert_eq!(words(&state, 2), None, "the third has no room on it");
        state.standings.clear();
        let defined = Some("in about 49 s: worker w-7 boots, usually 60 s".to_owned());
        assert_eq!(words(&state, 0), defined, "until it is learnt the pool's definition says it");
        state.now = Timestamp(NOW.0 + 80_000);
        let late = Some("worker w-7 boots, usually 60 s: it takes longer than that".to_owned());
        assert_eq!(words(&state, 0), late);
        Arc::make_mut(&mut state.machines[0].record).stage =
            Stage::Destroying { since: NOW, why: volley_model::RetireCause::BootLimit };
        assert_eq!(words(&state, 0), None, "it is given up");
    }
}
