//! Clients: submit until they are answered, stop, and send the same again. What they were told
//! is all that the checks hold the system to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use volley_control::ControlError;
use volley_control::ledger::{StopTarget, SubmitRefusal, SubmitReply};
use volley_control::store::StoreError;
use volley_model::{ContainerId, GroupId, Submission, TenantName};

use crate::cluster::Cluster;
use crate::scenario::Order;

/// A client waits so long for an answer, then asks again.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Between two tries.
const RETRY_WAIT: Duration = Duration::from_millis(300);

/// What clients were told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    accepted: BTreeMap<GroupId, Submission>,
    stopped: Vec<GroupId>,
    working: usize,
}

impl Told {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every group that was acknowledged, with what was asked for.
    pub(crate) fn accepted(&self) -> BTreeMap<GroupId, Submission> {
        self.lock().accepted.clone()
    }

    /// Groups of which a stop was asked for, acknowledged or not.
    pub(crate) fn stops_asked(&self) -> Vec<GroupId> {
        self.lock().stopped.clone()
    }

    /// Clients that have not done what they came for.
    pub(crate) fn working(&self) -> usize {
        self.lock().working
    }
}

/// All ids of a group.
pub(crate) fn containers(group: GroupId, submission: &Submission) -> impl Iterator<Item = ContainerId> {
    let count = submission.runs.iter().map(|run| run.count).sum();
    (0..count).map(move |index| ContainerId { group, index })
}

/// One client with one order.
pub(crate) async fn client(cluster: Arc<Cluster>, order: Order, told: Told) {
    told.lock().working += 1;
    sleep(order.after).await;
    if let Some(reply) = submit(&cluster, &order.submission).await {
        let first = told.lock().accepted.insert(reply.group, order.submission.clone()).is_none();
        let count: u32 = order.submission.runs.iter().map(|run| run.count).sum();
        if !first || reply.count != count {
            cluster.record.fail(format!("law 6: {reply:?} is not what was asked for"));
        }
        if let Some((wait, force)) = order.stop_after {
            sleep(wait).await;
            told.lock().stopped.push(reply.group);
            stop(&cluster, reply.group, force).await;
        }
        if let (Some(wait), Some(_)) = (order.again_after, &order.submission.client_key) {
            sleep(wait).await;
            match submit(&cluster, &order.submission).await {
                Some(again) if again.group == reply.group && again.count == count && again.repeated => {}
                again => cluster.record.fail(format!("law 6: {reply:?} and then {again:?} under one key")),
            }
        }
    }
    told.lock().working -= 1;
}

/// Submits until it is answered. Without a key it is asked once only: an unknown end stays unknown (`None`).
async fn submit(cluster: &Cluster, submission: &Submission) -> Option<SubmitReply> {
    loop {
        if let Some(server) = cluster.any_server() {
            let answer = timeout(ANSWER_WAIT, server.control.submit(submission.clone(), submission.digest())).await;
            match answer {
                Ok(Ok(reply)) => {
                    cluster.record.note(format!("a client has group {}", reply.group));
                    return Some(reply);
                }
                // Refused: nothing happened, so even without a key it may be asked again.
                Ok(Err(ControlError::Store(StoreError::Unavailable { .. }))) => {}
                Ok(Err(ControlError::Store(_))) | Err(_) if submission.client_key.is_some() => {}
                Ok(Err(ControlError::Store(_))) | Err(_) => return None,
                Ok(Err(ControlError::Submit(SubmitRefusal::IdTaken))) if submission.client_key.is_none() => {
                    return None;
                }
                Ok(Err(error)) => cluster.record.fail(format!("a good submission is refused: {error}")),
            }
        }
        sleep(RETRY_WAIT).await;
    }
}

async fn stop(cluster: &Cluster, group: GroupId, force: bool) {
    loop {
        if let Some(server) = cluster.any_server() {
            let stopped = server.control.stop(StopTarget::Group(group), Some(TenantName::default()), force);
            match timeout(ANSWER_WAIT, stopped).await {
                Ok(Ok(_)) => return,
                Ok(Err(ControlError::Store(_))) | Err(_) => {}
                Ok(Err(error)) => {
                    cluster.record.fail(format!("law 5: a stop of group {group}, which was accepted: {error}"));
                    return;
                }
            }
        }
        sleep(RETRY_WAIT).await;
    }
}
