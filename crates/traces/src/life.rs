//! A container's life as spans. Pure: moments and ids in, spans out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use volley_control::Turned;
use volley_model::{ContainerId, Outcome, Timestamp, WorkerId};

/// What is known of a container's present attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// When its group was accepted.
    pub(crate) submitted: Timestamp,
    /// The turn that placed it, if this server made it.
    pub(crate) turn: Option<Turned>,
    pub(crate) assigned: Option<Timestamp>,
    pub(crate) accepted: Option<Timestamp>,
    pub(crate) running: Option<Timestamp>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) attempt: u32,
}

/// The trace that a client began: the two ids of its `traceparent`, and whether it samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) sampled: bool,
}

impl Parent {
    /// Reads a W3C `traceparent`; `None` for what is none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let right = version.len() == 2 && version != "ff" && trace.len() == 32 && span.len() == 16 && flags.len() == 2;
        if !right || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = TraceId::from_hex(trace).ok().filter(|trace| *trace != TraceId::INVALID)?;
        let span = SpanId::from_hex(span).ok().filter(|span| *span != SpanId::INVALID)?;
        Some(Self { trace, span, sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1 })
    }
}

fn moment(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.0)
}

/// An id of a span that is the same whenever it is asked for: a server that starts anew gives no second one.
fn span_id(id: ContainerId, number: u64) -> SpanId {
    let mixed = id.group.0.rotate_left(17) ^ (u64::from(id.index) << 8 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    SpanId::from(mixed.max(1))
}

/// Number of the first span of a turn's phases; those of a life are below.
const TURN_SPANS: u64 = 16;

/// The spans of a container that has finished: one for its life, and one for each part of it.
pub(crate) fn spans(
    id: ContainerId,
    life: &Life,
    parent: Option<Parent>,
    finished: Timestamp,
    outcome: &Outcome,
) -> Vec<SpanData> {
    // Without a client's trace a group is one trace.
    let own = TraceId::from(u128::from(id.group.0) << 64 | u128::from(id.group.0) | 1);
    let trace = parent.map_or(own, |parent| parent.trace);
    let whole = span_id(id, 0);
    let scope = InstrumentationScope::builder("volley").with_version(env!("CARGO_PKG_VERSION")).build();
    let span =
        |span: SpanId, parent: SpanId, remote: bool, name: &'static str, from: SystemTime, to: SystemTime| SpanData {
            span_context: SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent,
            parent_span_is_remote: remote,
            span_kind: if name == "container" { SpanKind::Consumer } else { SpanKind::Internal },
            name: name.into(),
            start_time: from,
            end_time: to.max(from),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        };
    let above = parent.map_or(SpanId::INVALID, |parent| parent.span);
    let mut all = vec![span(whole, above, parent.is_some(), "container", moment(life.submitted), moment(finished))];
    all[0].attributes = attributes(id, life, outcome);
    all[0].status = if outcome.is_success() { Status::Ok } else { Status::error(outcome.to_string()) };
    // A turn begins with its claim; of what came meanwhile, with its submission.
    let begun = life.turn.map(|turn| (moment(turn.claimed) - turn.claim).max(moment(life.submitted)));
    let [assigned, accepted, running] = [life.assigned, life.accepted, life.running].map(|at| at.map(moment));
    let ends = [begun, assigned, accepted, running, Some(moment(finished))];
    // Of another server's turn only its end is known.
    let turn = if begun.is_some() { "turn" } else { "wait and turn" };
    let names = ["wait", turn, "deliver", "pull and start", "run"];
    let mut from = moment(life.submitted);
    for (place, name) in names.into_iter().enumerate() {
        // A part that was not told of is in the one after it: what is quick is told of only at its end.
        let Some(to) = ends[place] else { continue };
        let name = if life.assigned.is_none() { "wait and turn" } else { name };
        all.push(span(span_id(id, place as u64 + 1), whole, false, name, from, to));
        from = to;
    }
    if let (Some(turn), Some(begun), Some(assigned)) = (life.turn, begun, assigned) {
        let claimed = moment(turn.claimed).max(begun);
        let planned = (claimed + turn.plan).min(assigned);
        let phases = [("claim", begun, claimed), ("plan", claimed, planned), ("commit", planned, assigned)];
        let within = span_id(id, 2);
        all.extend(
            phases
                .into_iter()
                .zip(TURN_SPANS..)
                .map(|((name, from, to), number)| span(span_id(id, number), within, false, name, from, to)),
        );
    }
    all
}

fn attributes(id: ContainerId, life: &Life, outcome: &Outcome) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("volley.container.id", id.to_string()),
        KeyValue::new("volley.group.id", id.group.to_string()),
        KeyValue::new("volley.attempt", i64::from(life.attempt)),
        KeyValue::new("volley.outcome", outcome.to_string()),
    ];
    if let Some(worker) = &life.worker {
        attributes.push(KeyValue::new("volley.worker", worker.to_string()));
    }
    if let Outcome::Exited { code, .. } = outcome {
        attributes.push(KeyValue::new("process.exit.code", i64::from(*code)));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use volley_model::GroupId;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_read_or_it_is_none() {
        let parent = Parent::read(&format!("00-{TRACE}-00f067aa0ba902b7-01")).expect("a good one");
        assert_eq!((parent.trace.to_string(), parent.sampled), (TRACE.to_owned(), true));
        assert!(!Parent::read(&format!("00-{TRACE}-00f067aa0ba902b7-00")).expect("not sampled").sampled);
        assert!(Parent::read(&format!("01-{TRACE}-00f067aa0ba902b7-01-more")).is_some(), "a later version");
        let bad = [
            String::new(),
            "00".to_owned(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}é-00f067aa0ba902b7-01"),
        ];
        for text in bad {
            assert_eq!(Parent::read(&text), None, "{text}");
        }
    }

    #[test]
    fn the_parts_of_a_life_follow_one_another() {
        let id = ContainerId { group: GroupId(7), index: 3 };
        let at = |ms| Some(Timestamp(ms));
        let mut life =
            Life { submitted: Timestamp(10), assigned: at(20), accepted: at(25), running: at(40), ..Life::default() };
        let done = Outcome::Exited { code: 0, signal: None };
        let all = spans(id, &life, None, Timestamp(90), &done);
        let names = |life: &Life| -> Vec<String> {
            spans(id, life, None, Timestamp(90), &done).iter().map(|span| span.name.to_string()).collect()
        };
        assert_eq!(names(&life), ["container", "wait and turn", "deliver", "pull and start", "run"]);
        let (claim, plan) = (Duration::from_micros(1_500), Duration::from_micros(300));
        life.turn = Some(Turned { claimed: Timestamp(17), committed: Timestamp(20), placed: 1, claim, plan });
        let parts = ["container", "wait", "turn", "deliver", "pull and start", "run", "claim", "plan", "commit"];
        assert_eq!(names(&life), parts);
        let with_turn = spans(id, &life, None, Timestamp(90), &done);
        let (turn, phases) = (&with_turn[2], &with_turn[6..]);
        assert_eq!((phases[0].start_time, phases[2].end_time), (turn.start_time, turn.end_time));
        assert_eq!(phases[1].end_time.duration_since(phases[1].start_time).expect("forward"), plan);
        for phase in phases {
            assert_eq!(phase.parent_span_id, turn.span_context.span_id());
        }
        life.turn = None;
        for pair in all[1..].windows(2) {
            assert_eq!(pair[0].end_time, pair[1].start_time);
        }
        assert!(all[1..].iter().all(|span| span.parent_span_id == all[0].span_context.span_id()));
        assert_eq!(spans(id, &life, None, Timestamp(90), &done), all, "the same ids each time");
        (life.assigned, life.accepted, life.running) = (None, None, None);
        let names: Vec<String> =
            spans(id, &life, None, Timestamp(90), &Outcome::Expired).iter().map(|span| span.name.to_string()).collect();
        assert_eq!(names, ["container", "wait and turn"], "it never had an attempt");
    }
}
