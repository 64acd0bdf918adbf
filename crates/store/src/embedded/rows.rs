//! Records to rows and back: the only place that knows how a record lies in the database.
//! Numbers that are looked at often are columns; what is cold is JSON. Knows nothing of
//! transactions or of when something is written.

use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;
use volley_model::submission::GROUP_CONTAINERS_MAX;
use volley_model::{ArrivalNumber, GpuGrant, Timestamp};

use super::error::DbError;

mod access;
mod container;
mod fleet;
mod group;

pub(super) use access::*;
pub(super) use container::*;
pub(super) use fleet::*;
pub(super) use group::*;

type Done = Result<(), DbError>;

/// A container's place in the tables: its group's arrival and its index in one integer, so that SQLite's fastest
/// kind of table keeps containers in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position(pub(super) u64);

/// Bits of a position that hold the index.
const INDEX_BITS: u32 = 17;
const _: () = assert!(GROUP_CONTAINERS_MAX <= 1 << INDEX_BITS);
/// Arrivals that a position can hold: 2^46, at a million submissions a second two years' worth.
const ARRIVAL_MAX: u64 = (1 << (63 - INDEX_BITS)) - 2;

impl Position {
    /// Where the container with this index of the group with this arrival is.
    pub(super) fn of(arrival: ArrivalNumber, index: u32) -> Self {
        assert!(arrival.0 <= ARRIVAL_MAX, "an arrival number has at most 46 bits");
        assert!(index < 1 << INDEX_BITS, "an index is below the most containers of a group");
        Self(arrival.0 << INDEX_BITS | u64::from(index))
    }

    /// Its group's.
    pub(super) fn arrival(self) -> ArrivalNumber {
        ArrivalNumber(self.0 >> INDEX_BITS)
    }

    /// In its group.
    pub(super) fn index(self) -> u32 {
        (self.0 & ((1 << INDEX_BITS) - 1)) as u32
    }

    /// The bounds of a group as SQLite takes them: from its first place up to but without the next group's.
    pub(super) fn bounds(arrival: ArrivalNumber) -> [i64; 2] {
        [bits(arrival.0 << INDEX_BITS), bits((arrival.0 + 1) << INDEX_BITS)]
    }

    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self(number(row, 0)?))
    }
}

/// As SQLite's signed integer, bit by bit: 64 random bits do not fit otherwise.
fn bits(number: u64) -> i64 {
    number.cast_signed()
}

fn number(row: &Row<'_>, column: usize) -> Result<u64, DbError> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

fn number_maybe(row: &Row<'_>, column: usize) -> Result<Option<u64>, DbError> {
    Ok(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned))
}

fn time_maybe(time: Option<Timestamp>) -> Option<i64> {
    time.map(|time| bits(time.0))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records have string keys only and no failing serialisers")
}

fn from_json<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::record(table, error))
}

fn text<'r>(table: &'static str, row: &'r Row<'_>, column: usize) -> Result<&'r str, DbError> {
    row.get_ref(column)?.as_str().map_err(|error| DbError::record(table, error))
}

fn text_maybe<'r>(table: &'static str, row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, DbError> {
    row.get_ref(column)?.as_str_or_null().map_err(|error| DbError::record(table, error))
}

fn name<T: std::str::FromStr<Err: ToString>>(table: &'static str, text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error: T::Err| DbError::record(table, error))
}

fn gpus_text(gpus: &[GpuGrant]) -> Option<String> {
    (!gpus.is_empty()).then(|| json(&gpus))
}

fn gpus_from(table: &'static str, text: Option<&str>) -> Result<Vec<GpuGrant>, DbError> {
    text.map_or(Ok(Vec::new()), |text| from_json(table, text))
}
