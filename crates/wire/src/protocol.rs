//! Which versions of its protocols this program speaks, and how two ends agree on one or part with
//! the reason. Knows nothing of what the protocols carry.

use std::fmt;

use crate::proto;

/// The oldest version of the workers' stream that is spoken.
pub const WORKERS_MIN: u32 = 1;
/// The newest version of the workers' stream that is spoken.
pub const WORKERS_MAX: u32 = 1;
/// The version of the HTTP API: the number in `/v1`, and of every JSON document that the commands print.
pub const HTTP: u32 = 1;
/// The header by which a client says the oldest and newest version of the HTTP API that it speaks, as in `1-2`; and by
/// which a server says which it answers in. A client that says nothing takes what it gets.
pub const HTTP_HEADER: &str = "volley-protocol";

/// No version that both ends speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {who} speaks {theirs} of the {what}, this {me} {ours}: {advice}")]
pub struct Mismatch {
    who: &'static str,
    me: &'static str,
    what: &'static str,
    theirs: Versions,
    ours: Versions,
    advice: String,
}

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    min: u32,
    max: u32,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "version {}", self.min),
            false => write!(f, "versions {} to {}", self.min, self.max),
        }
    }
}

impl Mismatch {
    fn new(who: &'static str, me: &'static str, what: &'static str, theirs: Versions, ours: Versions) -> Self {
        let older = if theirs.max < ours.min { who } else { me };
        let advice = format!("update the {older}");
        Self { who, me, what, theirs, ours, advice }
    }
}

/// The version in which a worker's stream goes on: the newest that both speak.
///
/// # Errors
/// When there is none.
pub fn chosen(hello: &proto::Hello) -> Result<u32, Mismatch> {
    let theirs = Versions { min: hello.protocol_min.max(1), max: hello.protocol_max.max(1) };
    let ours = Versions { min: WORKERS_MIN, max: WORKERS_MAX };
    let best = theirs.max.min(ours.max);
    if best >= theirs.min.max(ours.min) {
        return Ok(best);
    }
    Err(Mismatch::new("worker", "server", "workers' protocol", theirs, ours))
}

/// Whether the version that a server chose is one that this worker speaks.
///
/// # Errors
/// When it is not.
pub fn check_welcome(welcome: &proto::Welcome) -> Result<(), Mismatch> {
    let theirs = Versions { min: welcome.protocol.max(1), max: welcome.protocol.max(1) };
    let ours = Versions { min: WORKERS_MIN, max: WORKERS_MAX };
    if (ours.min..=ours.max).contains(&theirs.min) {
        return Ok(());
    }
    Err(Mismatch::new("server", "worker", "workers' protocol", theirs, ours))
}

/// What a client says in [`HTTP_HEADER`].
#[must_use]
pub fn http_versions() -> String {
    format!("{HTTP}-{HTTP}")
}

/// Whether a server speaks a version of the HTTP API that a client named. `None`: the text is no versions.
#[must_use]
pub fn http_spoken(text: &str) -> Option<Result<(), Mismatch>> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    let theirs = Versions { min: min.trim().parse().ok()?, max: max.trim().parse().ok()? };
    let spoken = (theirs.min..=theirs.max).contains(&HTTP);
    let ours = Versions { min: HTTP, max: HTTP };
    Some(if spoken { Ok(()) } else { Err(Mismatch::new("client", "server", "HTTP API", theirs, ours)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(min: u32, max: u32) -> proto::Hello {
        proto::Hello { protocol_min: min, protocol_max: max, ..proto::Hello::default() }
    }

    #[test]
    fn two_ends_go_on_in_the_newest_version_that_both_speak() {
        assert_eq!(chosen(&hello(0, 0)), Ok(1), "one from before versions were said");
        assert_eq!(chosen(&hello(1, 1)), Ok(1));
        assert_eq!(chosen(&hello(1, 2)), Ok(1), "one version after");
        let refused = chosen(&hello(2, 3)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the worker speaks versions 2 to 3 of the workers' protocol, this server version 1: update the server"
        );
    }

    #[test]
    fn a_worker_parts_from_a_server_that_chose_what_it_does_not_speak() {
        let welcome = |protocol| proto::Welcome { protocol, ..proto::Welcome::default() };
        assert_eq!(check_welcome(&welcome(0)), Ok(()), "a server from before versions were said");
        assert_eq!(check_welcome(&welcome(1)), Ok(()));
        let refused = check_welcome(&welcome(2)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "the server speaks version 2 of the workers' protocol, this worker version 1: update the worker"
        );
    }

    #[test]
    fn a_client_of_another_version_is_told() {
        assert_eq!(http_spoken(&http_versions()), Some(Ok(())));
        assert_eq!(http_spoken("1-2"), Some(Ok(())));
        assert_eq!(http_spoken("1"), Some(Ok(())));
        let refused = http_spoken("2-3").unwrap().unwrap_err().to_string();
        assert!(
            refused.ends_with("versions 2 to 3 of the HTTP API, this server version 1: update the server"),
            "{refused}"
        );
        for nonsense in ["", "x", "1-", "-1", "1-x"] {
            assert_eq!(http_spoken(nonsense), None, "{nonsense:?}");
        }
    }
}
