//! Who may do what: tenants with their limits, tokens with their roles. A token's secret is
//! known to its bearer only; what is kept is its SHA-256. Knows nothing of how a request
//! carries it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::submission::check::check_text;
use crate::{IdError, Millis, TenantName, Timestamp, TokenId, ValidationError};

/// Most containers per second, and most of a burst, that a tenant's rate may say: what a cell takes at all.
pub const RATE_MAX: u32 = 1_000_000;
/// Highest bound on a tenant's backlog: far above what a cell holds, and exact in every number format.
pub const TENANT_BACKLOG_MAX: u64 = 1_000_000_000;
/// Longest life of a token: ten years. None at all is allowed too.
pub const TOKEN_LIFE_MAX: Millis = Millis::from_secs(10 * 366 * 24 * 3600);
/// Longest note of a token in bytes.
pub const TOKEN_NOTE_BYTES_MAX: usize = 256;
/// Every secret starts with this, so that people and scanners of repositories recognise one.
pub const SECRET_PREFIX: &str = "volley_";
/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// What a token lets its bearer do. Each role is one kind of caller, not a step of a ladder: a worker cannot submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Anything, of any tenant: operators.
    Admin,
    /// Submit, stop and read what is the tenant's own.
    Submit,
    /// Read what is the tenant's own.
    Read,
    /// Open a worker's stream; nothing else.
    Worker,
}

/// SHA-256 of a secret's text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// Of a secret as it is sent. Secrets have 256 random bits, so that nothing slower than one SHA-256 is needed.
    #[must_use]
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({self})")
    }
}

impl FromStr for SecretHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let bytes = bytes_of_hex(text).ok_or_else(|| IdError {
            kind: "secret hash",
            text: text.chars().take(64).collect(),
            expected: "64 hexadecimal digits",
        })?;
        Ok(Self(bytes))
    }
}

impl Serialize for SecretHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn bytes_of_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// A secret as text: the prefix and 64 hexadecimal digits.
#[must_use]
pub fn secret_text(bytes: [u8; SECRET_BYTES]) -> String {
    format!("{SECRET_PREFIX}{}", SecretHash(bytes))
}

/// Whether a text can be a secret at all.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    text.strip_prefix(SECRET_PREFIX).is_some_and(|digits| bytes_of_hex(digits).is_some())
}

/// A token's record. Never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it in lists and to revoke it.
    pub id: TokenId,
    /// Of the secret.
    pub hash: SecretHash,
    /// Whose bearer it is.
    pub tenant: TenantName,
    /// What it lets do.
    pub role: Role,
    /// What it is for, in its maker's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From then on it counts no more; `None` for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Since then it counts no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// When it ends, or ended; `None` while nothing ends it.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        match (self.expires_at, self.revoked_at) {
            (Some(expires), Some(revoked)) => Some(expires.min(revoked)),
            (expires, revoked) => expires.or(revoked),
        }
    }

    /// Whether it counts.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.ends_at().is_none_or(|end| now < end)
    }
}

/// Checks what a client says of a new token.
pub fn check_new_token(note: Option<&str>, life: Option<Millis>) -> Result<(), ValidationError> {
    if let Some(note) = note {
        check_text("note", note, TOKEN_NOTE_BYTES_MAX)?;
    }
    match life {
        Some(life) if life == Millis(0) || life > TOKEN_LIFE_MAX => {
            let problem = format!("{life} is out of range; give 1ms to {TOKEN_LIFE_MAX}, or none for no end");
            Err(ValidationError { path: "expires_in".to_owned(), problem })
        }
        _ => Ok(()),
    }
}

/// How fast a tenant may submit: a token bucket of containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Containers per second in the long run.
    pub per_second: u32,
    /// Containers at once after a pause. A larger submission waits for a full bucket and leaves a debt.
    pub burst: u32,
}

/// A tenant's record: its limits. A tenant without one has none but the cell's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Most of its containers that may wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog_max: Option<u64>,
    /// How fast it may submit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

impl Tenant {
    /// Checks the limits.
    pub fn check(&self) -> Result<(), ValidationError> {
        let range = |path: &str, value: u64, max: u64| {
            let problem = format!("{value} is out of range; give 1 to {max}, or leave it out for no limit");
            if (1..=max).contains(&value) { Ok(()) } else { Err(ValidationError { path: path.to_owned(), problem }) }
        };
        if let Some(backlog) = self.backlog_max {
            range("backlog_max", backlog, TENANT_BACKLOG_MAX)?;
        }
        if let Some(rate) = self.rate {
            range("rate.per_second", u64::from(rate.per_second), u64::from(RATE_MAX))?;
            range("rate.burst", u64::from(rate.burst), u64::from(RATE_MAX))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_recognised_and_hashed_as_it_is_sent() {
        let secret = secret_text([0xab; SECRET_BYTES]);
        assert_eq!(secret.len(), SECRET_PREFIX.len() + 64);
        assert!(is_secret(&secret));
        for bad in ["", "volley_", &secret[1..], &secret[..70], &format!("{secret}0"), &secret.replace("ab", "zz")] {
            assert!(!is_secret(bad), "{bad}");
        }
        let hash = SecretHash::of(&secret);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert!("é".repeat(32).parse::<SecretHash>().is_err());
    }

    #[test]
    fn a_token_ends_when_it_expires_or_is_revoked_whichever_is_first() {
        let mut token = Token {
            id: TokenId(1),
            hash: SecretHash([0; 32]),
            tenant: TenantName::default(),
            role: Role::Read,
            note: None,
            created_at: Timestamp(0),
            expires_at: None,
            revoked_at: None,
        };
        assert!(token.is_live(Timestamp(u64::MAX)));
        token.expires_at = Some(Timestamp(10));
        assert!(token.is_live(Timestamp(9)) && !token.is_live(Timestamp(10)));
        token.revoked_at = Some(Timestamp(5));
        assert!(token.is_live(Timestamp(4)) && !token.is_live(Timestamp(5)));
    }

    #[test]
    fn limits_out_of_range_name_their_field() {
        let tenant = |backlog_max, per_second, burst| Tenant {
            name: TenantName::default(),
            backlog_max,
            rate: Some(Rate { per_second, burst }),
        };
        assert_eq!(tenant(None, 1, RATE_MAX).check(), Ok(()));
        let path = |tenant: Tenant| tenant.check().map_err(|error| error.path);
        assert_eq!(path(tenant(Some(0), 1, 1)), Err("backlog_max".to_owned()));
        assert_eq!(path(tenant(Some(1), 0, 1)), Err("rate.per_second".to_owned()));
        assert_eq!(path(tenant(Some(1), 1, RATE_MAX + 1)), Err("rate.burst".to_owned()));
        assert!(check_new_token(None, Some(Millis(0))).is_err());
        assert!(check_new_token(Some("ci\n"), None).is_err());
        assert!(check_new_token(Some("ci"), Some(TOKEN_LIFE_MAX)).is_ok());
    }
}
