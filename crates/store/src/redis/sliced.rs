//! Operations that may be as many calls as their size takes: a stop of a group, a sweep after a gap,
//! a heartbeat of very many workers. Each part is whole by itself and safe to repeat.

use volley_ledger::{Heartbeat, HeartbeatReply, NotFound, Stop, StopReply, Sweep, SweepReply};

use super::RedisStore;
use super::arguments;
use super::replies::{self, Items};
use super::scripts::Name;
use crate::StoreError;

impl RedisStore {
    /// A stop, as many calls as the group's size takes.
    pub(super) async fn stop(&self, op: &Stop) -> Result<Result<StopReply, NotFound>, StoreError> {
        let mut sum = StopReply::default();
        let mut from = 0;
        loop {
            let mut arguments = self.arguments();
            let name = arguments::stop(op, from, &mut arguments);
            let value = self.connection.run(name, &arguments.0).await?;
            let (reply, next) = match replies::stop(&mut Items::of(value).map_err(StoreError::from)?, op.target)? {
                Ok(reply) => reply,
                Err(not_found) => return Ok(Err(not_found)),
            };
            sum.finished += reply.finished;
            sum.stopping += reply.stopping;
            sum.already_finished += reply.already_finished;
            match next {
                Some(next) => from = next,
                None => return Ok(Ok(sum)),
            }
        }
    }

    /// A sweep. After a gap it may find more leases to renew than one call may; then it is called until they are.
    pub(super) async fn sweep(&self, op: &Sweep) -> Result<SweepReply, StoreError> {
        let (mut renewed_until, mut stay) = (-1, 0);
        loop {
            let mut arguments = self.arguments();
            arguments::sweep(op, renewed_until, stay, &mut arguments);
            let mut items = Items::of(self.connection.run(Name::Sweep, &arguments.0).await?)?;
            // As long as there are, the reply is these two numbers.
            if items.len() > 3 {
                return Ok(replies::sweep(&mut items)?);
            }
            items.text()?;
            (renewed_until, stay) = (items.signed()?, items.number()?);
        }
    }

    /// Heartbeats, so many workers in each call.
    pub(super) async fn heartbeat(&self, op: &Heartbeat) -> Result<HeartbeatReply, StoreError> {
        let mut whole = HeartbeatReply { session_alive: false, workers: Vec::with_capacity(op.workers.len()) };
        // Without workers it renews the session.
        let parts = op.workers.chunks(self.items_max() as usize).chain(op.workers.is_empty().then_some(&[][..]));
        for workers in parts {
            let mut arguments = self.arguments();
            arguments::heartbeat(op.session, workers, &mut arguments);
            let value = self.connection.run(Name::Heartbeat, &arguments.0).await?;
            let reply = replies::heartbeat(&mut Items::of(value)?)?;
            whole.session_alive = reply.session_alive;
            whole.workers.extend(reply.workers);
        }
        Ok(whole)
    }
}
