//! Report and heartbeat: what workers say, for all workers of a server at once.

use volley_model::ContainerId;

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::{Heartbeat, HeartbeatReply, Progress, Report, StoredPhase, Verdict};

impl Ledger {
    pub(crate) fn report(&mut self, op: Report, out: &mut Effects) -> Vec<Verdict> {
        let _ = self.renew_session(op.session);
        let mut verdicts = Vec::with_capacity(op.messages.len());
        for message in op.messages {
            let bound = self.live.get(&message.container).and_then(|c| c.bound());
            let authoritative = bound.is_some_and(|b| {
                b.worker == message.worker && b.attempt == message.attempt && b.epoch == message.epoch
            });
            if authoritative {
                self.progress(message.container, &message.progress, out);
                verdicts.push(Verdict::Keep);
            } else {
                verdicts.push(Verdict::Kill);
            }
        }
        verdicts
    }

    /// An authoritative attempt went on or ended.
    pub(crate) fn progress(&mut self, id: ContainerId, progress: &Progress, out: &mut Effects) {
        match progress {
            Progress::Accepted => self.advance(id, StoredPhase::Starting, out),
            Progress::Running => self.advance(id, StoredPhase::Running, out),
            Progress::Ended(outcome) => self.end_attempt(id, outcome.clone(), out),
        }
    }

    pub(crate) fn heartbeat(&mut self, op: &Heartbeat) -> HeartbeatReply {
        let session_alive = self.renew_session(op.session).is_ok();
        let mut workers = Vec::with_capacity(op.workers.len());
        for (id, stream, epoch) in &op.workers {
            let entry = self.workers.get(id);
            let valid = entry
                .is_some_and(|w| w.lost_at.is_none() && w.epoch == *epoch && w.stream == Some((op.session, *stream)));
            if valid {
                self.renew_worker(id);
                // It knows its epoch: whoever names the one before is another.
                self.workers.get_mut(id).expect("seen above").previous = None;
            }
            workers.push(valid);
        }
        HeartbeatReply { session_alive, workers }
    }
}
