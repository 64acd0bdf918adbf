//! Why a container waits, what would have to change for it to start now, when it is expected to, and where the time of one that
//! started went. Reads only.

use volley_engine::{Counterfactual, FleetView, Question, counterfactuals};
use volley_ledger::{Ahead, Answer, ContainerRecord, NotFound, Query, Scope};
use volley_model::{ContainerId, Expected, FleetVersion, Millis, Shape, Timestamp, WorkerId};

use crate::{Control, ControlError};

/// Fleet changes of one read.
const CHANGES_MAX: u32 = 10_000;

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
    /// Where its time went so far, part by part.
    pub spent: Vec<(Part, Millis)>,
}

/// A part of a container's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From its submission to its (last) placement, earlier attempts included.
    Waited,
    /// From its placement to its running process: delivery, pull, start.
    Started,
    /// Its process.
    Ran,
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
        let (now, ahead, record) = (overview.now, overview.ahead, *record);
        let spent = spent(&record, now);
        let mut why = Why { record, now, ahead, fits_on: None, changes: Vec::new(), expected: None, spent };
        if why.record.waiting.is_none() {
            return Ok(why);
        }
        let shape = Shape::of(&why.record.tenant, &why.record.spec);
        if let Some(Ahead { score, same_shape, .. }) = ahead {
            let view = self.whole_fleet().await?;
            let found = counterfactuals(&view, &Question { shape: &shape, score, ahead: same_shape });
            (why.fits_on, why.changes) = (found.fits_on, found.changes);
        }
        why.expected = Some(self.expected(&why, &shape));
        Ok(why)
    }

    /// The fleet as the store knows it now, apart from the turn's view.
    async fn whole_fleet(&self) -> Result<FleetView, ControlError> {
        let mut view = FleetView::new();
        let mut known = FleetVersion(0);
        loop {
            let Answer::Fleet(changes) = self.read(Query::Fleet { known, max: CHANGES_MAX }).await? else {
                return Err(unanswered());
            };
            view.apply(&changes);
            known = view.version();
            if view.is_complete() {
                return Ok(view);
            }
        }
    }

    fn expected(&self, why: &Why, shape: &Shape) -> Expected {
        let not_before = why.record.waiting.as_ref().and_then(|waiting| waiting.not_before);
        if let Some(at) = not_before.filter(|at| *at > why.now) {
            return Expected::NotBefore { at };
        }
        if let Some(worker) = &why.fits_on {
            return Expected::NextTurn { worker: worker.clone() };
        }
        let Some(ahead) = why.ahead.map(|ahead| ahead.same_shape) else {
            return Expected::Unknown { because: "it is in a turn right now".to_owned() };
        };
        match self.rates.of(shape.hash(), why.now) {
            Some((placed, over)) => {
                let after = (u128::from(ahead) + 1) * u128::from(over.0) / u128::from(placed);
                let after = Millis(u64::try_from(after).unwrap_or(u64::MAX));
                Expected::Rate { after, ahead, placed, over }
            }
            None => {
                let because = "too little of its shape was placed in the last five minutes to tell a rate from";
                Expected::Unknown { because: because.to_owned() }
            }
        }
    }
}

fn unanswered() -> ControlError {
    let reason = "the store answered another question; this is a bug in volley".to_owned();
    volley_store::StoreError::Unavailable { reason }.into()
}

fn spent(record: &ContainerRecord, now: Timestamp) -> Vec<(Part, Millis)> {
    let end = record.finished_at.unwrap_or(now);
    let mut spent = vec![(Part::Waited, record.assigned_at.unwrap_or(end).since(record.submitted_at))];
    if let Some(assigned) = record.assigned_at {
        spent.push((Part::Started, record.started_at.unwrap_or(end).since(assigned)));
    }
    if let Some(started) = record.started_at {
        spent.push((Part::Ran, end.since(started)));
    }
    spent
}
