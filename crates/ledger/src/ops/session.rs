//! Sessions: opened, renewed by every call, ended by close or sweep. An ended one is fenced for good.

use volley_model::SessionId;

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::state::Session;
use crate::{OpenSession, SessionRefusal, SessionReply};

impl Ledger {
    pub(crate) fn open_session(&mut self, op: OpenSession) -> SessionReply {
        let lease_until = self.counters.now.after(self.options.session_lease);
        let fresh = Session {
            address: op.address.clone(),
            lease_until,
            claimed: Default::default(),
            last_claim: None,
            last_commit: None,
        };
        let session = self.sessions.entry(op.session).or_insert(fresh);
        session.lease_until = lease_until;
        session.address = op.address;
        SessionReply { lease: self.options.session_lease }
    }

    /// Renews a session's lease.
    pub(crate) fn renew_session(&mut self, session: SessionId) -> Result<&mut Session, SessionRefusal> {
        let until = self.counters.now.after(self.options.session_lease);
        let session = self.sessions.get_mut(&session).ok_or(SessionRefusal::SessionEnded)?;
        session.lease_until = session.lease_until.max(until);
        Ok(session)
    }

    /// Ends a session: what it claimed goes back to the queues with its scores.
    pub(crate) fn end_session(&mut self, id: SessionId, out: &mut Effects) {
        let Some(session) = self.sessions.get(&id) else { return };
        for container in session.claimed.clone() {
            self.unclaim(container, out);
        }
        self.sessions.remove(&id);
        self.lead = self.lead.filter(|lead| lead.session != id);
        self.queues.hand_back(id);
    }
}
