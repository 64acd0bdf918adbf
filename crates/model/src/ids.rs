//! Identities. Every id is a newtype with a text form; parsing never panics.
//!
//! A container's id is its group's id and its index in the group, so that a group of a hundred
//! thousand identical containers is one range record until it is claimed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind} id: {expected}")]
pub struct IdError {
    /// Which id was expected.
    pub kind: &'static str,
    /// What was given (cut to 64 characters).
    pub text: String,
    /// How it should look.
    pub expected: &'static str,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a [`GroupId`] in text: 13 * 5 bits hold 64.
pub const GROUP_ID_CHARS: usize = 13;

fn id_error(kind: &'static str, text: &str, expected: &'static str) -> IdError {
    IdError { kind, text: text.chars().take(64).collect(), expected }
}

macro_rules! code_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_code(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                const EXPECTED: &str = "13 characters of 0-9 and a-z without i, l, o, u";
                read_code(text).map($name).ok_or_else(|| id_error($kind, text, EXPECTED))
            }
        }
    };
}

fn write_code(mut rest: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [b'0'; GROUP_ID_CHARS];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
}

fn read_code(text: &str) -> Option<u64> {
    if text.len() != GROUP_ID_CHARS {
        return None;
    }
    let mut bits: u128 = 0;
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|a| *a == byte.to_ascii_lowercase())?;
        bits = (bits << 5) | value as u128;
    }
    u64::try_from(bits).ok()
}

code_id!(
    /// A submission's group of containers: 64 random bits, written as 13 characters of Crockford base32.
    GroupId, "group"
);
code_id!(
    /// A token's record: 64 random bits, written as a group's. It is no secret.
    TokenId, "token"
);

/// One container: group and index, written `GROUP-INDEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The group it was submitted in.
    pub group: GroupId,
    /// Its place in the group, from 0.
    pub index: u32,
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.group, self.index)
    }
}

impl FromStr for ContainerId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        const EXPECTED: &str = "a group id, '-', and a number, as in 0123456789abc-7";
        let (group, index) = text.split_once('-').ok_or_else(|| id_error("container", text, EXPECTED))?;
        let group = group.parse().map_err(|_| id_error("container", text, EXPECTED))?;
        let digits =
            !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit()) && (index == "0" || !index.starts_with('0'));
        let index = if digits { index.parse().ok() } else { None };
        Ok(ContainerId { group, index: index.ok_or_else(|| id_error("container", text, EXPECTED))? })
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Checks and takes a name.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
                let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
                let fits = text.len() <= NAME_BYTES_MAX && text.bytes().all(good);
                if fits && edge(text.bytes().next()) && edge(text.bytes().last()) {
                    Ok(Self(text.into()))
                } else {
                    Err(id_error($kind, text, "1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', letter or digit at both ends"))
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Longest name in bytes: a DNS label's.
pub const NAME_BYTES_MAX: usize = 63;

name_id!(
    /// A worker's name: chosen by whoever starts it, stable over its restarts.
    WorkerId, "worker"
);
name_id!(
    /// A pool's name.
    PoolName, "pool"
);
name_id!(
    /// The owner of containers and of tokens. Without tokens everything belongs to `default`.
    TenantName, "tenant"
);

impl Default for TenantName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl Default for PoolName {
    fn default() -> Self {
        Self("default".into())
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Random bits that make an attempt, epoch or stream unforgeable after a rollback; compared for equality.
    Nonce
);
number_id!(
    /// One life of a server process, random.
    SessionId
);
number_id!(
    /// A session's claim, counted from 1.
    ClaimNumber
);
number_id!(
    /// A session's commit, counted from 1.
    CommitNumber
);
number_id!(
    /// A version of the fleet: grows with every change of a worker, pool or blocked shape.
    FleetVersion
);
number_id!(
    /// Grows with every change of a pool's record.
    PoolVersion
);
number_id!(
    /// Grows with every change of what is static about a worker (pool, labels, kinds, status).
    Revision
);
number_id!(
    /// The number of an event in the event record, from 1.
    EventNumber
);
number_id!(
    /// The place of a message in a worker's outbox.
    DeliveryNumber
);
number_id!(
    /// The order of arrival of a submission.
    ArrivalNumber
);

/// One try at running a container: number (from 1) and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Chosen by the committing server.
    pub nonce: Nonce,
}

/// A worker's registration: number (from 1) and nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub number: u32,
    /// Chosen by the server that took the registration.
    pub nonce: Nonce,
}
