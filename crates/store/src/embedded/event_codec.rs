//! Events to bytes and back: a batch of neighbours as one compact text of numbers, with the
//! names and groups that repeat written once. A burst makes four or five events per
//! container, so their size is a good part of all that is written. Knows nothing of rows.

use std::collections::HashMap;

use volley_ledger::{Event, EventKind};
use volley_model::{
    ContainerId, ContainerState, EventNumber, GroupId, Outcome, PoolName, Role, TenantName, Timestamp, TokenId,
    WorkerId, WorkerStatus,
};

/// First byte of every batch: the version of this format.
const FORMAT: u8 = 1;

const TAG_GROUP_ACCEPTED: u8 = 0;
const TAG_CONTAINER: u8 = 1;
const TAG_WORKER: u8 = 2;
const TAG_POOL: u8 = 3;
const TAG_TOKEN: u8 = 4;
const TAG_TENANT: u8 = 5;

const OUTCOME_NONE: u64 = 0;
const OUTCOME_EXITED: u64 = 1;
const OUTCOME_JSON: u64 = 2;

const STATES: [ContainerState; 7] = [
    ContainerState::Queued,
    ContainerState::Claimed,
    ContainerState::Assigned,
    ContainerState::Starting,
    ContainerState::Running,
    ContainerState::Stopping,
    ContainerState::Finished,
];

const ROLES: [Role; 4] = [Role::Admin, Role::Submit, Role::Read, Role::Worker];

const STATUSES: [WorkerStatus; 6] = [
    WorkerStatus::Provisioning,
    WorkerStatus::Ready,
    WorkerStatus::Cordoned,
    WorkerStatus::Draining,
    WorkerStatus::Lost,
    WorkerStatus::Gone,
];

/// Why bytes are not a batch of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("events cannot be read: {0}")]
pub(super) struct CodecError(String);

/// Events as bytes. Their numbers must follow one another.
pub(super) fn encode(events: &[Event]) -> Vec<u8> {
    let mut writer = Writer { bytes: vec![FORMAT], ..Writer::default() };
    writer.put(events.len() as u64);
    let Some(first) = events.first() else { return writer.bytes };
    writer.put(first.number.0);
    writer.put(first.at.0);
    let mut at = first.at.0;
    for (place, event) in events.iter().enumerate() {
        assert_eq!(event.number.0, first.number.0 + place as u64, "events are numbered without gaps");
        // Time never runs backwards in one batch; should it, the difference wraps and is wrapped back.
        writer.put(event.at.0.wrapping_sub(at));
        at = event.at.0;
        writer.event(&event.kind);
    }
    writer.bytes
}

/// Bytes as events.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Event>, CodecError> {
    let mut reader = Reader { bytes, names: Vec::new(), groups: Vec::new() };
    let format = reader.byte()?;
    if format != FORMAT {
        return Err(CodecError(format!("format {format} is not known")));
    }
    let count = reader.get()?;
    let mut events = Vec::new();
    if count > 0 {
        let first = reader.get()?;
        let mut at = reader.get()?;
        for place in 0..count {
            at = at.wrapping_add(reader.get()?);
            let kind = reader.event()?;
            events.push(Event { number: EventNumber(first + place), at: Timestamp(at), kind });
        }
    }
    if reader.bytes.is_empty() { Ok(events) } else { Err(CodecError("there is more than was counted".to_owned())) }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    names: HashMap<String, u64>,
    groups: HashMap<GroupId, u64>,
}

impl Writer {
    /// Seven bits a byte, the low ones first; the high bit says that more follow.
    fn put(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn put_text(&mut self, text: &str) {
        self.put(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The place of a name in the batch's list of names; a new one is written out behind it.
    fn put_name(&mut self, name: &str) {
        if let Some(place) = self.names.get(name) {
            return self.put(*place);
        }
        let place = self.names.len() as u64;
        self.names.insert(name.to_owned(), place);
        self.put(place);
        self.put_text(name);
    }

    fn put_group(&mut self, group: GroupId) {
        if let Some(place) = self.groups.get(&group) {
            return self.put(*place);
        }
        let place = self.groups.len() as u64;
        self.groups.insert(group, place);
        self.put(place);
        self.bytes.extend_from_slice(&group.0.to_be_bytes());
    }

    fn event(&mut self, kind: &EventKind) {
        match kind {
            EventKind::GroupAccepted { group, tenant, count } => {
                self.bytes.push(TAG_GROUP_ACCEPTED);
                self.put_group(*group);
                self.put_name(tenant.as_str());
                self.put(u64::from(*count));
            }
            EventKind::Container { container, state, attempt, worker, outcome } => {
                self.bytes.push(TAG_CONTAINER);
                self.put_group(container.group);
                self.put(u64::from(container.index));
                self.bytes.push(place_of(&STATES, state));
                self.put(u64::from(*attempt));
                match worker {
                    None => self.bytes.push(0),
                    Some(worker) => {
                        self.bytes.push(1);
                        self.put_name(worker.as_str());
                    }
                }
                self.outcome(outcome.as_ref());
            }
            EventKind::Worker { worker, status } => {
                self.bytes.push(TAG_WORKER);
                self.put_name(worker.as_str());
                self.bytes.push(place_of(&STATUSES, status));
            }
            EventKind::Pool { pool, removed } => {
                self.bytes.push(TAG_POOL);
                self.put_name(pool.as_str());
                self.bytes.push(u8::from(*removed));
            }
            EventKind::Token { token, tenant, role, revoked } => {
                self.bytes.push(TAG_TOKEN);
                self.bytes.extend_from_slice(&token.0.to_be_bytes());
                self.put_name(tenant.as_str());
                self.bytes.extend_from_slice(&[place_of(&ROLES, role), u8::from(*revoked)]);
            }
            EventKind::Tenant { tenant, removed } => {
                self.bytes.push(TAG_TENANT);
                self.put_name(tenant.as_str());
                self.bytes.push(u8::from(*removed));
            }
        }
    }

    fn outcome(&mut self, outcome: Option<&Outcome>) {
        match outcome {
            None => self.put(OUTCOME_NONE),
            Some(Outcome::Exited { code, signal: None }) => {
                self.put(OUTCOME_EXITED);
                self.put(u64::from(code.cast_unsigned()));
            }
            Some(other) => {
                self.put(OUTCOME_JSON);
                self.put_text(&serde_json::to_string(other).expect("an outcome is plain data"));
            }
        }
    }
}

fn place_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).expect("the list has every variant") as u8
}

struct Reader<'b> {
    bytes: &'b [u8],
    names: Vec<&'b str>,
    groups: Vec<GroupId>,
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], CodecError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or_else(|| CodecError("they are cut off".into()))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.take(1)?[0])
    }

    fn get(&mut self) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CodecError("a number is too long".into()))
    }

    fn get_small(&mut self) -> Result<u32, CodecError> {
        u32::try_from(self.get()?).map_err(|_| CodecError("a number is too large".into()))
    }

    fn get_text(&mut self) -> Result<&'b str, CodecError> {
        let length = self.get_small()? as usize;
        std::str::from_utf8(self.take(length)?).map_err(|error| CodecError(error.to_string()))
    }

    fn get_name<T: std::str::FromStr<Err: ToString>>(&mut self) -> Result<T, CodecError> {
        let place = self.get_small()? as usize;
        if place == self.names.len() {
            let name = self.get_text()?;
            self.names.push(name);
        }
        let name = self.names.get(place).ok_or_else(|| CodecError("a name is missing".into()))?;
        name.parse().map_err(|error: T::Err| CodecError(error.to_string()))
    }

    fn get_group(&mut self) -> Result<GroupId, CodecError> {
        let place = self.get_small()? as usize;
        if place == self.groups.len() {
            let id = self.take(8)?.try_into().expect("8 bytes were taken");
            self.groups.push(GroupId(u64::from_be_bytes(id)));
        }
        self.groups.get(place).copied().ok_or_else(|| CodecError("a group is missing".into()))
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, CodecError> {
        let place = self.byte()?;
        all.get(place as usize).copied().ok_or_else(|| CodecError(format!("{place} is not known")))
    }

    fn event(&mut self) -> Result<EventKind, CodecError> {
        match self.byte()? {
            TAG_GROUP_ACCEPTED => Ok(EventKind::GroupAccepted {
                group: self.get_group()?,
                tenant: self.get_name::<TenantName>()?,
                count: self.get_small()?,
            }),
            TAG_CONTAINER => Ok(EventKind::Container {
                container: ContainerId { group: self.get_group()?, index: self.get_small()? },
                state: self.one_of(&STATES)?,
                attempt: self.get_small()?,
                worker: if self.one_of(&[false, true])? { Some(self.get_name::<WorkerId>()?) } else { None },
                outcome: self.outcome()?,
            }),
            TAG_WORKER => Ok(EventKind::Worker { worker: self.get_name()?, status: self.one_of(&STATUSES)? }),
            TAG_POOL => {
                Ok(EventKind::Pool { pool: self.get_name::<PoolName>()?, removed: self.one_of(&[false, true])? })
            }
            TAG_TOKEN => Ok(EventKind::Token {
                token: TokenId(u64::from_be_bytes(self.take(8)?.try_into().expect("8 bytes were taken"))),
                tenant: self.get_name::<TenantName>()?,
                role: self.one_of(&ROLES)?,
                revoked: self.one_of(&[false, true])?,
            }),
            TAG_TENANT => {
                Ok(EventKind::Tenant { tenant: self.get_name::<TenantName>()?, removed: self.one_of(&[false, true])? })
            }
            tag => Err(CodecError(format!("kind {tag} is not known"))),
        }
    }

    fn outcome(&mut self) -> Result<Option<Outcome>, CodecError> {
        match self.get()? {
            OUTCOME_NONE => Ok(None),
            OUTCOME_EXITED => Ok(Some(Outcome::Exited { code: self.get_small()?.cast_signed(), signal: None })),
            OUTCOME_JSON => {
                serde_json::from_str(self.get_text()?).map(Some).map_err(|error| CodecError(error.to_string()))
            }
            tag => Err(CodecError(format!("outcome {tag} is not known"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use volley_model::StopCause;

    use super::*;

    fn outcomes() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            any::<i32>().prop_map(|code| Outcome::Exited { code, signal: None }),
            any::<i32>().prop_map(|signal| Outcome::Exited { code: 128, signal: Some(signal) }),
            Just(Outcome::Stopped { by: StopCause::Client }),
            Just(Outcome::Expired),
            "\\PC{0,40}".prop_map(|reason| Outcome::Failed { reason }),
        ]
    }

    fn kinds() -> impl Strategy<Value = EventKind> {
        let worker = || (0..5u32).prop_map(|n| WorkerId::new(&format!("w-{n}")).unwrap());
        let group = || prop_oneof![(0..3u64).prop_map(GroupId), any::<u64>().prop_map(GroupId)];
        prop_oneof![
            (group(), any::<u32>()).prop_map(|(group, count)| EventKind::GroupAccepted {
                group,
                tenant: TenantName::default(),
                count
            }),
            (
                group(),
                any::<u32>(),
                0..STATES.len(),
                any::<u32>(),
                proptest::option::of(worker()),
                proptest::option::of(outcomes())
            )
                .prop_map(|(group, index, state, attempt, worker, outcome)| EventKind::Container {
                    container: ContainerId { group, index },
                    state: STATES[state],
                    attempt,
                    worker,
                    outcome
                }),
            (worker(), 0..STATUSES.len())
                .prop_map(|(worker, status)| EventKind::Worker { worker, status: STATUSES[status] }),
            any::<bool>().prop_map(|removed| EventKind::Pool { pool: PoolName::default(), removed }),
            any::<bool>().prop_map(|removed| EventKind::Tenant { tenant: TenantName::default(), removed }),
            (any::<u64>(), 0..ROLES.len(), any::<bool>()).prop_map(|(token, role, revoked)| EventKind::Token {
                token: TokenId(token),
                tenant: TenantName::default(),
                role: ROLES[role],
                revoked
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            first in 1..1u64 << 60,
            parts in proptest::collection::vec((any::<u64>(), kinds()), 0..20),
        ) {
            let event = |(place, (at, kind))| Event { number: EventNumber(first + place as u64), at: Timestamp(at), kind };
            let events: Vec<Event> = parts.into_iter().enumerate().map(event).collect();
            prop_assert_eq!(decode(&encode(&events)), Ok(events));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[&[FORMAT, 3][..], &bytes].concat());
        }
    }

    #[test]
    fn an_event_of_a_burst_takes_a_dozen_bytes() {
        let event = |number: u64| Event {
            number: EventNumber(number),
            at: Timestamp(1_800_000_000_000),
            kind: EventKind::Container {
                container: ContainerId { group: GroupId(u64::MAX), index: number as u32 },
                state: ContainerState::Finished,
                attempt: 1,
                worker: Some(WorkerId::new("worker-of-some-length").unwrap()),
                outcome: Some(Outcome::Exited { code: 0, signal: None }),
            },
        };
        let events: Vec<_> = (1..=1000).map(event).collect();
        assert!(encode(&events).len() <= 12 * events.len());
    }
}
