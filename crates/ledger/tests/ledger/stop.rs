//! Stop, at every state, of one and of a group.

use volley_ledger::{Order, Progress, StopReply, StopTarget, Verdict};
use volley_model::{ContainerId, ContainerState, Millis, Outcome, StopCause};

use crate::cell::{Cell, DONE, item, secs, spec};

const BY_CLIENT: Outcome = Outcome::Stopped { by: StopCause::Client };

#[test]
fn what_waits_is_finished_at_once() {
    let mut cell = Cell::new();
    let session = cell.session();
    let group = cell.submit(&spec(), 5);
    cell.claim(session, 2);
    let reply = cell.stop(StopTarget::Group(group), false);
    assert_eq!(reply, StopReply { finished: 5, ..StopReply::default() });
    assert_eq!(cell.outcome(ContainerId { group, index: 4 }), Some(BY_CLIENT));
    let reply = cell.stop(StopTarget::Group(group), false);
    assert_eq!(reply, StopReply { already_finished: 5, ..StopReply::default() });
}

#[test]
fn a_bound_one_is_told_and_ends_as_stopped_without_a_retry() {
    for progress in [None, Some(Progress::Accepted), Some(Progress::Running)] {
        let mut cell = Cell::new();
        let session = cell.session();
        let agent = cell.agent(session, "w", 1);
        let what = cell.assign(&agent, &spec(), 1)[0];
        if let Some(progress) = progress {
            assert_eq!(cell.say(&agent, what, progress), Verdict::Keep);
        }
        let target = StopTarget::Container(what.0);
        assert_eq!(cell.stop(target, false).stopping, 1);
        assert_eq!(cell.state(what.0), ContainerState::Stopping);
        let stop = |grace| Order::Stop { container: what.0, attempt: what.1, grace };
        assert_eq!(cell.orders(&agent), [stop(secs(10))], "the start, if it was not taken over, is not sent any more");
        cell.stop(target, false);
        assert_eq!(cell.last.changes, [], "told once");
        cell.stop(target, true);
        assert_eq!(cell.orders(&agent), [stop(Millis(0))], "by force: at once");
        cell.stop(target, false);
        assert_eq!(cell.orders(&agent), [stop(Millis(0))], "a grace does not come back");
        cell.say(&agent, what, Progress::Running);
        assert_eq!(cell.state(what.0), ContainerState::Stopping);
        let killed = Outcome::Exited { code: 137, signal: Some(9) };
        assert_eq!(cell.say(&agent, what, Progress::Ended(killed)), Verdict::Keep);
        assert_eq!(cell.outcome(what.0), Some(BY_CLIENT));
        assert_eq!(cell.orders(&agent), []);
    }
}

#[test]
fn one_of_a_range_is_stopped_alone_and_its_neighbours_still_expire() {
    let mut cell = Cell::new();
    let mut impatient = spec();
    impatient.max_wait = Some(secs(30));
    let group = cell.submit(&impatient, 10);
    assert_eq!(cell.stop(StopTarget::Container(ContainerId { group, index: 4 }), false).finished, 1);
    assert_eq!(cell.ledger.audit().queued, 9);
    cell.later(secs(30));
    assert_eq!(cell.sweep().expired, 9);
}

#[test]
fn a_group_is_stopped_in_all_its_states() {
    let mut cell = Cell::new();
    let session = cell.session();
    let agent = cell.agent(session, "w", 3);
    let group = cell.submit(&spec(), 6);
    let bound = cell.assign_waiting(&agent, 3);
    cell.say(&agent, bound[0], Progress::Ended(DONE));
    cell.claim(session, 1);
    let reply = cell.stop(StopTarget::Group(group), false);
    assert_eq!(reply, StopReply { finished: 3, stopping: 2, already_finished: 1 });
    let record = cell.ledger.group(group, None).unwrap();
    assert_eq!((record.finished, record.succeeded), (4, 1));
}

#[test]
fn there_is_no_such_container() {
    let mut cell = Cell::new();
    let group = cell.submit(&spec(), 2);
    for target in [
        StopTarget::Container(ContainerId { group, index: 2 }),
        StopTarget::Container(ContainerId { group: volley_model::GroupId(404), index: 0 }),
        StopTarget::Group(volley_model::GroupId(404)),
    ] {
        let stop = volley_ledger::Stop { target, tenant: Some(Default::default()), force: false };
        assert!(cell.call(stop).is_err());
    }
}

#[test]
fn a_stop_whose_start_never_arrived_ends_when_the_worker_comes_back_without_it() {
    let mut cell = Cell::new();
    let session = cell.session();
    let mut agent = cell.agent(session, "w", 2);
    let what = cell.assign(&agent, &spec(), 2);
    cell.stop(StopTarget::Container(what[0].0), false);
    cell.attach(&mut agent, Vec::new()).unwrap();
    assert_eq!(cell.outcome(what[0].0), Some(BY_CLIENT));
    assert_eq!(cell.state(what[1].0), ContainerState::Assigned, "this one is handed out again");
    assert_eq!(cell.orders(&agent).len(), 1);
    // Known to the worker, it is the worker that ends it.
    cell.stop(StopTarget::Container(what[1].0), false);
    cell.attach(&mut agent, vec![item(what[1], Progress::Accepted)]).unwrap();
    assert_eq!(cell.state(what[1].0), ContainerState::Stopping);
}
