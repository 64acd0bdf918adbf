//! A server's own part of the fleet: rendezvous hashing of workers over live sessions
//! (Thaler and Ravishankar, 1998), and the deterministic mixing that it and ties use.
//! Knows nothing of capacity.

use volley_model::SessionId;

/// Mixes 64 bits so that every input bit reaches every output bit (the finaliser of splitmix64).
pub(crate) fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A name's hash (FNV-1a, mixed): the same on every server and in every build.
pub(crate) fn hash_name(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(fnv)
}

/// Who shares the fleet, and which of them we are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    session: SessionId,
    sessions: Vec<SessionId>,
}

impl Parts {
    pub(crate) fn new(session: SessionId, sessions: &[SessionId]) -> Self {
        let mut sessions = sessions.to_vec();
        sessions.sort_unstable();
        sessions.dedup();
        Self { session, sessions }
    }

    /// Whether these are the parts of `session` among `sessions`.
    pub(crate) fn are_of(&self, session: SessionId, sessions: &[SessionId]) -> bool {
        if self.alone() {
            return Self::new(session, sessions).alone();
        }
        self.session == session && self.sessions == sessions
    }

    /// With nobody else about (or not being listed ourselves) every worker is our own.
    fn alone(&self) -> bool {
        self.sessions.len() < 2 || !self.sessions.contains(&self.session)
    }

    /// Whether a worker (by its name's hash) belongs to our part.
    pub(crate) fn owns(&self, name: u64) -> bool {
        let weight = |session: &SessionId| (mix(name ^ mix(session.0)), *session);
        self.alone() || self.sessions.iter().max_by_key(|s| weight(s)) == Some(&self.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_belongs_to_exactly_one_session_and_few_move() {
        let three = [SessionId(1), SessionId(2), SessionId(3)];
        let owners = |sessions: &[SessionId], name: u64| -> Vec<SessionId> {
            sessions.iter().copied().filter(|s| Parts::new(*s, sessions).owns(name)).collect()
        };
        let mut counts = [0; 3];
        for worker in 0..3000 {
            let name = hash_name(&format!("worker-{worker}"));
            let of_three = owners(&three, name);
            assert_eq!(of_three.len(), 1, "one owner");
            counts[of_three[0].0 as usize - 1] += 1;
            let of_two = owners(&three[..2], name);
            assert!(of_three == of_two || of_three == [SessionId(3)], "only workers of the session that left move");
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "about a third each: {counts:?}");
    }

    #[test]
    fn alone_or_unlisted_all_is_ours() {
        assert!(Parts::default().owns(7));
        assert!(Parts::new(SessionId(9), &[SessionId(1), SessionId(2)]).owns(7));
        assert!(Parts::default().are_of(SessionId(1), &[SessionId(1)]));
        assert!(!Parts::default().are_of(SessionId(1), &[SessionId(1), SessionId(2)]));
    }
}
