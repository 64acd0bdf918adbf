//! Stop: one container, or all of a group.

use volley_model::{ContainerId, GroupId, Millis, Outcome, StopCause};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::state::State;
use crate::{NotFound, Stop, StopReply, StopTarget};

impl Ledger {
    pub(crate) fn stop(&mut self, op: &Stop, out: &mut Effects) -> Result<StopReply, NotFound> {
        let mut reply = StopReply::default();
        match op.target {
            StopTarget::Container(id) => {
                let group = self.group_in(id.group, op.tenant.as_ref()).filter(|g| id.index < g.count);
                group.ok_or_else(|| NotFound { what: format!("container {id}") })?;
                self.stop_one(id, op.force, &mut reply, out);
            }
            StopTarget::Group(id) => {
                let group = self.group_in(id, op.tenant.as_ref());
                group.ok_or_else(|| NotFound { what: format!("group {id}") })?;
                self.stop_group(id, op.force, &mut reply, out);
            }
        }
        Ok(reply)
    }

    fn stop_group(&mut self, id: GroupId, force: bool, reply: &mut StopReply, out: &mut Effects) {
        reply.already_finished += self.groups[&id].finished;
        let runs = self.groups[&id].runs.len() as u32;
        for run in 0..runs {
            let end = self.groups[&id].runs[run as usize].end();
            self.take_range(id, run, end);
        }
        let first = ContainerId { group: id, index: 0 };
        let last = ContainerId { group: id, index: u32::MAX };
        let live: Vec<_> = self.live.range(first..=last).map(|(id, _)| *id).collect();
        for container in live {
            self.stop_live(container, force, reply, out);
        }
    }

    fn stop_one(&mut self, id: ContainerId, force: bool, reply: &mut StopReply, out: &mut Effects) {
        let group = &self.groups[&id.group];
        let run = group.run_of(id.index).expect("checked: the index is in the group");
        if id.index >= group.runs[run].next {
            self.take_range(id.group, run as u32, id.index + 1);
        }
        if self.live.contains_key(&id) {
            self.stop_live(id, force, reply, out);
        } else {
            reply.already_finished += 1;
        }
    }

    fn stop_live(&mut self, id: ContainerId, force: bool, reply: &mut StopReply, out: &mut Effects) {
        let container = &self.live[&id];
        let grace = if force { Millis(0) } else { container.spec.stop_grace };
        if let State::Bound(_) = &container.state {
            self.ask_stop(id, StopCause::Client, grace, out);
            reply.stopping += 1;
        } else {
            self.finish(id, Outcome::Stopped { by: StopCause::Client }, out);
            reply.finished += 1;
        }
    }
}
