//! A cloud in this process: it makes machines by id, once for each, and loses an answer now and then. Knows nothing of
//! records and servers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use volley_control::pools::{Listed, Order, ProvisionError, ProvisionFuture, Provisioner};
use volley_model::{PoolName, Worker, WorkerId};

use crate::server::{Doom, Moment};

/// What there is.
#[derive(Default)]
struct State {
    machines: BTreeMap<WorkerId, Vec<String>>,
    /// Machines ever made, those destroyed included.
    made: Vec<WorkerId>,
    destroyed: Vec<(WorkerId, String)>,
    /// Workers that are to register.
    boots: VecDeque<Worker>,
    calls: u64,
}

/// The cloud, as all servers see it.
pub struct Cloud {
    state: Mutex<State>,
    /// One in so many answers is lost.
    lost_answers: u64,
    /// It breaks its contract: a machine is made twice.
    doubles: bool,
}

impl Cloud {
    pub fn new(lost_answers: u64) -> Self {
        Self { state: Mutex::default(), lost_answers, doubles: false }
    }

    /// Makes two machines for each id, and names the first.
    pub fn that_doubles() -> Self {
        Self { doubles: true, ..Self::new(0) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker that is to register, if any is.
    pub fn next_boot(&self) -> Option<Worker> {
        self.state().boots.pop_front()
    }

    /// It could not register yet.
    pub fn boot_later(&self, worker: Worker) {
        self.state().boots.push_back(worker);
    }

    /// Machines ever made, and those destroyed.
    pub fn made_and_destroyed(&self) -> (Vec<WorkerId>, Vec<(WorkerId, String)>) {
        let state = self.state();
        (state.made.clone(), state.destroyed.clone())
    }

    fn make(&self, order: &Order) -> Result<String, ProvisionError> {
        let mut state = self.state();
        state.calls += 1;
        let lost = self.lost_answers > 0 && state.calls.is_multiple_of(self.lost_answers);
        let handle = match state.machines.get(&order.worker) {
            Some(handles) => handles[0].clone(),
            None => {
                let handle = format!("i-{}", state.made.len());
                let mut handles = vec![handle.clone()];
                handles.extend(self.doubles.then(|| format!("{handle}-again")));
                state.machines.insert(order.worker.clone(), handles);
                state.made.push(order.worker.clone());
                let (capacity, labels) = (order.machine.capacity.clone(), order.machine.labels.clone());
                let (id, pool) = (order.worker.clone(), order.pool.clone());
                state.boots.push_back(Worker { id, pool, labels, capacity, notes: Vec::new() });
                handle
            }
        };
        if lost { Err(ProvisionError::Unknown { reason: "the answer is lost".to_owned() }) } else { Ok(handle) }
    }
}

/// The cloud as one life of a server calls it.
pub struct CloudOf {
    pub cloud: Arc<Cloud>,
    pub doom: Arc<Doom>,
}

impl Provisioner for CloudOf {
    fn create<'a>(&'a self, order: &'a Order) -> ProvisionFuture<'a, String> {
        Box::pin(async move {
            self.doom.at(Moment::BeforeMade).await;
            let made = self.cloud.make(order);
            self.doom.at(Moment::AfterMade).await;
            made
        })
    }

    fn destroy<'a>(&'a self, order: &'a Order, handle: Option<&'a str>) -> ProvisionFuture<'a, ()> {
        let mut state = self.cloud.state();
        let state = &mut *state;
        if let Some(handles) = state.machines.get_mut(&order.worker) {
            let goes = |known: &mut String| handle.is_none_or(|handle| handle == *known);
            state.destroyed.extend(handles.extract_if(.., goes).map(|handle| (order.worker.clone(), handle)));
        }
        state.machines.retain(|_, handles| !handles.is_empty());
        Box::pin(async { Ok(()) })
    }

    fn list<'a>(&'a self, _: &'a PoolName, _: &'a BTreeMap<String, String>) -> ProvisionFuture<'a, Vec<Listed>> {
        let state = self.cloud.state();
        let each =
            state.machines.iter().flat_map(|(worker, handles)| handles.iter().map(move |handle| (worker, handle)));
        let listed = each.map(|(worker, handle)| Listed { worker: worker.clone(), handle: handle.clone() }).collect();
        Box::pin(async { Ok(listed) })
    }
}
