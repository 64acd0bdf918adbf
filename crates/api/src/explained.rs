//! The JSON of an explanation.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use volley_control::{Part, Why};
use volley_model::{Change, Expected};

use crate::bodies::Container;

/// Why a container is where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explained {
    /// The container, with why it waits.
    container: Container,
    /// The store's time.
    now_ms: u64,
    /// What is in front of it, while it is in a queue.
    ahead: Option<Ahead>,
    /// It fits as things are, on this worker.
    fits_on: Option<String>,
    /// The cheapest changes under which it would start now, the cheapest first; at most three.
    changes: Vec<Changed>,
    /// When it is expected to start, while it waits.
    expected: Option<Start>,
    /// Where its time went so far.
    spent: Vec<Spent>,
    /// Parts that are not told apart, and why.
    unknown: Vec<String>,
    /// Why it was placed where it is: by which of its wishes, by which rule of the pool.
    there: Vec<String>,
    /// What is done about it.
    #[serde(flatten)]
    outlook: Outlook,
}

/// What of the fleet could serve it, and what is bought for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Outlook {
    /// Alike workers of a pool, and what they lack.
    #[schema(value_type = Vec<Object>)]
    pub(crate) classes: Vec<Value>,
    /// What each pool could do about it.
    #[schema(value_type = Vec<Object>)]
    pub(crate) pools: Vec<Value>,
    /// All that wait as it does: how many fit where, and how many have nothing in sight.
    #[schema(value_type = Option<Object>)]
    pub(crate) shape: Option<Value>,
}

/// What is in front of a container.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ahead {
    /// Containers of its shape.
    same_shape: u64,
    /// Containers of other shapes: in Redis at most so many, all of each shape whose first is in front of it.
    other_shapes: u64,
}

/// A change under which it would start now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// What would have to be different.
    #[schema(value_type = Object)]
    change: Change,
    /// The same in words.
    words: String,
    /// Where it would go; null for a worker that is not there.
    worker: Option<String>,
}

/// When it is expected to start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Start {
    /// On what basis: next_turn, not_before, boot, work, rate, unknown.
    #[schema(value_type = Object)]
    basis: Expected,
    /// The same in words.
    words: String,
    /// From now, where that can be said.
    after_ms: Option<u64>,
}

/// A part of its life.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Spent {
    /// waited (to its last turn), claimed (in that turn), delivered (until its worker took it), started (pull and start), ran.
    part: String,
    ms: u64,
}

impl Explained {
    pub(crate) fn of(why: &Why, outlook: Outlook) -> Self {
        let after = |expected: &Expected| match expected {
            Expected::NextTurn { .. } => Some(0),
            Expected::NotBefore { at } => Some(at.since(why.now).0),
            Expected::Rate { after, .. } | Expected::Work { after, .. } | Expected::Boot { after, .. } => Some(after.0),
            Expected::Unknown { .. } => None,
        };
        let part = |part: Part| match part {
            Part::Waited => "waited",
            Part::Claimed => "claimed",
            Part::Delivered => "delivered",
            Part::Started => "started",
            Part::Ran => "ran",
        };
        Self {
            container: Container::from(&why.record),
            now_ms: why.now.0,
            ahead: why.ahead.as_ref().map(|a| Ahead { same_shape: a.same_shape, other_shapes: a.other_shapes }),
            fits_on: why.fits_on.as_ref().map(ToString::to_string),
            changes: why
                .changes
                .iter()
                .map(|found| Changed {
                    change: found.change.clone(),
                    words: found.change.to_string(),
                    worker: found.worker.as_ref().map(ToString::to_string),
                })
                .collect(),
            expected: why.expected.as_ref().map(|expected| Start {
                basis: expected.clone(),
                words: expected.to_string(),
                after_ms: after(expected),
            }),
            unknown: why.spent.unknown.iter().map(|words| (*words).to_owned()).collect(),
            there: why.there.clone(),
            spent: why.spent.parts.iter().map(|(of, ms)| Spent { part: part(*of).to_owned(), ms: ms.0 }).collect(),
            outlook,
        }
    }
}
