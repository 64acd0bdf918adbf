//! When a container that waits is expected to start, and on what basis: room that is there, a retry's time, a machine on
//! its way, the work in front of it, or the present rate. Reads only; what cannot be told is said.

use volley_engine::{FleetView, plan_scale};
use volley_ledger::{Ahead, Overview};
use volley_model::{Expected, Millis, ScaleState, Shape, ShapeHash, Timestamp, Worker, feasible};

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
        if let Some(expected) = self.expected_by_work(shape, ahead, view, overview).await? {
            return Ok(expected);
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

/// What is in front of a container and waits for the same room: of its own shape, and of those of its lane whose heads
/// are in front of it.
fn in_front(overview: &Overview, ahead: &Ahead, lane: &Lane) -> u64 {
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
