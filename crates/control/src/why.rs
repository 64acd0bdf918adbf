//! Why a container waits, what would have to change for it to start now, when it is expected to, and where the time of one that
//! started went. Reads only.

use volley_engine::{Counterfactual, Question, counterfactuals};
use volley_ledger::{Ahead, Answer, ContainerRecord, NotFound, Query, Scope};
use volley_model::{ContainerId, Expected, Shape, Timestamp, WorkerId};

use crate::there::why_there;
use crate::{Control, ControlError, Spent};

/// All that is known of why a container is where it is.
#[derive(Debug, Clone)]
pub struct Why {
    /// The container.
    pub record: ContainerRecord,
    /// The store's time.
    pub now: Timestamp,
    /// What is in front of it, while it is in a queue.
    pub ahead: Option<Ahead>,
    /// It fits as things are, there.
    pub fits_on: Option<WorkerId>,
    /// The cheapest changes under which it would start now.
    pub changes: Vec<Counterfactual>,
    /// When it is expected to start, while it waits.
    pub expected: Option<Expected>,
    /// Where its time went so far.
    pub spent: Spent,
    /// Why it was placed where it is, while its worker is known.
    pub there: Vec<String>,
}

impl Control {
    /// Explains one container of a scope.
    pub async fn why(&self, id: ContainerId, scope: Scope) -> Result<Why, ControlError> {
        let Answer::Container(Some(record)) = self.read(Query::Container(id, scope)).await? else {
            return Err(NotFound { what: format!("container {id}") }.into());
        };
        let Answer::Overview(overview) = self.read(Query::Overview { ahead_of: Some(id) }).await? else {
            return Err(unanswered());
        };
        let (now, ahead, record) = (overview.now, overview.ahead.clone(), *record);
        let spent = self.spent(&record, now).await?;
        let there = Vec::new();
        let mut why = Why { record, now, ahead, fits_on: None, changes: Vec::new(), expected: None, spent, there };
        if why.record.waiting.is_none() {
            why.there = self.there(&why.record).await?;
            return Ok(why);
        }
        let shape = Shape::of(&why.record.tenant, &why.record.spec);
        // Of no session: parts of servers are no reason to wait.
        let mut view = self.observer.lock().await;
        self.refresh(&mut view).await?;
        if let Some(&Ahead { score, same_shape, .. }) = why.ahead.as_ref() {
            let found = counterfactuals(&view, &Question { shape: &shape, score, ahead: same_shape });
            (why.fits_on, why.changes) = (found.fits_on, found.changes);
        }
        why.expected = Some(self.expected(&why, &shape, &view, &overview).await?);
        Ok(why)
    }

    async fn there(&self, record: &ContainerRecord) -> Result<Vec<String>, ControlError> {
        let Some(worker) = &record.worker else { return Ok(Vec::new()) };
        let mut view = self.observer.lock().await;
        self.refresh(&mut view).await?;
        let Some(found) = view.worker(worker) else { return Ok(Vec::new()) };
        let Answer::Pools(pools) = self.read(Query::Pools).await? else { return Err(unanswered()) };
        let pool = pools.iter().find(|pool| pool.name == found.worker.pool);
        Ok(why_there(&record.spec, &found.worker, pool, &record.gpus))
    }
}

pub(crate) fn unanswered() -> ControlError {
    let reason = "the store answered another question; this is a bug in volley".to_owned();
    volley_store::StoreError::Unavailable { reason }.into()
}
