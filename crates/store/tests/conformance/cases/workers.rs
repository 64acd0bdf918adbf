//! Workers: epochs, streams, inventories, reports, drains; and pools.

use volley_ledger::{
    ApplyPool, ApplyPoolRefusal, AttachRefusal, Detach, Heartbeat, LedgerOptions, Order, Progress, RemovePool,
    RemovePoolRefusal, Report, Schedulable, SetSchedulable, Verdict, WorkerMessage,
};
use volley_model::{
    ContainerState, Nonce, OnDisconnect, Outcome, Pool, PoolName, PoolVersion, Retry, RetryOn, WorkerId, WorkerStatus,
};

use super::{Open, bench};
use crate::bench::Bench;
use crate::cell::{DONE, item, secs, spec, worker};

pub fn keeps_an_epoch_within_its_lease(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 2));
    let first = agent.epoch;
    bench.later(secs(10));
    assert_eq!(bench.attach(&mut agent, Vec::new()).epoch, first);
    let mut stranger = agent.clone();
    let refused = bench.attach_with(&mut stranger, None, Vec::new());
    match refused {
        Err(refusal) => assert!(
            matches!(refusal, AttachRefusal::NameInUse { .. } | AttachRefusal::SessionEnded),
            "another machine under its name: {refusal}"
        ),
        // The stream ended with the store's process, so nobody is connected under the name.
        Ok(reply) => assert_ne!(reply.epoch, first),
    }
}

pub fn fences_an_older_stream(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 2));
    let older = agent.clone();
    bench.attach(&mut agent, Vec::new());
    assert!(!bench.heartbeat(&older), "a newer stream fences it");
    bench.assign(&agent, &spec(), 1);
    assert_eq!(bench.orders(&older, 0), []);
    let fenced = Detach { session: older.session, worker: older.worker.id.clone(), stream: older.stream };
    assert!(!bench.call(fenced), "it has no say");
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Ready);
}

pub fn refuses_a_stream_that_comes_late(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 2));
    // Opened now, and on its way for longer than the worker waits for it.
    let late = bench.attach_op(&agent, Some(agent.epoch), Vec::new());
    let run = bench.assign(&agent, &spec(), 1);
    bench.attach(&mut agent, vec![item(run[0], Progress::Running)]);
    let refused = bench.call(late.clone()).expect_err("the worker is on a newer stream");
    // In a store that lost its session with a restart it is the session that is missed first.
    let expected =
        |refusal: &AttachRefusal| matches!(refusal, AttachRefusal::Superseded { .. } | AttachRefusal::SessionEnded);
    assert!(expected(&refused), "{refused}");
    if matches!(refused, AttachRefusal::Superseded { .. }) {
        assert!(bench.heartbeat(&agent), "the newer stream is not fenced");
    }
    assert_eq!(bench.state(run[0].0), ContainerState::Running, "and what runs is not lost");
    // A call that is sent again because its reply was lost is the same stream.
    agent.session = bench.session();
    let again = bench.attach_op(&agent, Some(agent.epoch), vec![item(run[0], Progress::Running)]);
    let first = bench.call(again.clone()).expect("nothing speaks against it");
    agent.stream = again.stream;
    if bench.heartbeat(&agent) {
        assert_eq!(bench.call(again).expect("law 7").epoch, first.epoch);
    }
    let mut unknown = bench.attach_op(&agent, None, Vec::new());
    unknown.worker = worker("other", 1);
    unknown.replaces = Some(Nonce(4242));
    let refused = bench.call(unknown).expect_err("it had a stream when this one was opened, and is forgotten since");
    assert!(expected(&refused), "{refused}");
}

pub fn goes_through_an_inventory(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 4));
    let run = bench.assign(&agent, &spec(), 4);
    bench.say(&agent, run[0], Progress::Running);
    bench.say(&agent, run[1], Progress::Running);
    bench.say(&agent, run[2], Progress::Running);
    let mut forged = run[3];
    forged.1.nonce = Nonce(4242);
    let held =
        vec![item(run[0], Progress::Running), item(run[1], Progress::Ended(DONE)), item(forged, Progress::Running)];
    let reply = bench.attach(&mut agent, held);
    assert_eq!(reply.inventory, [Verdict::Keep, Verdict::Keep, Verdict::Kill]);
    assert_eq!(bench.state(run[0].0), ContainerState::Running);
    assert_eq!(bench.outcome(run[1].0), Some(DONE));
    assert_eq!(bench.state(run[2].0), ContainerState::Queued, "what it should hold and does not is lost");
    assert_eq!(bench.state(run[3].0), ContainerState::Assigned, "what it never accepted is handed out again");
    let orders = bench.orders(&agent, 0);
    if let Some((_, Order::Start { container, .. })) = orders.first() {
        assert_eq!(*container, run[3].0);
    }
    assert_eq!(bench.worker(&agent).containers, 2);
}

pub fn judges_each_report(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let run = bench.assign(&agent, &spec(), 3);
    for (progress, state) in
        [(Progress::Accepted, ContainerState::Starting), (Progress::Running, ContainerState::Running)]
    {
        assert_eq!(bench.say(&agent, run[0], progress), Verdict::Keep);
        assert_eq!(bench.state(run[0].0), state);
    }
    assert_eq!(bench.say(&agent, run[0], Progress::Accepted), Verdict::Keep, "going back is ignored");
    assert_eq!(bench.state(run[0].0), ContainerState::Running);
    assert_eq!(bench.say(&agent, run[0], Progress::Ended(DONE)), Verdict::Keep);
    assert_eq!(bench.say(&agent, run[0], Progress::Ended(DONE)), Verdict::Kill, "it ended once");
    let message = |what: (_, volley_model::Attempt), nonce: u64| WorkerMessage {
        worker: agent.worker.id.clone(),
        epoch: volley_model::Epoch { nonce: Nonce(agent.epoch.nonce.0 + nonce), ..agent.epoch },
        container: what.0,
        attempt: what.1,
        progress: Progress::Running,
    };
    let mut other = message(run[1], 0);
    other.worker = WorkerId::new("other").unwrap();
    let messages = vec![message(run[1], 0), message(run[2], 1), other];
    let verdicts = bench.call(Report { session: agent.session, messages });
    assert_eq!(verdicts, [Verdict::Keep, Verdict::Kill, Verdict::Kill]);
    let record = bench.container(run[0].0).unwrap();
    assert_eq!((record.attempt, record.worker), (Some(run[0].1), Some(agent.worker.id.clone())));
    assert_eq!(bench.worker(&agent).finished, 1);
}

pub fn retries_with_backoff(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let mut stubborn = spec();
    let on = vec![RetryOn::ExitNonzero];
    stubborn.retry = Retry::UpTo { attempts_max: 3, backoff: secs(2), backoff_max: secs(3), on };
    let failed = Outcome::Exited { code: 3, signal: None };
    let mut run = bench.assign(&agent, &stubborn, 1)[0];
    for wait in [2, 3] {
        bench.say(&agent, run, Progress::Ended(failed.clone()));
        let waiting = bench.container(run.0).unwrap().waiting.unwrap();
        assert_eq!(waiting.not_before, Some(bench.now.after(secs(wait))));
        assert_eq!(bench.place(&agent, 1), [], "its time has not come");
        bench.later(secs(wait));
        let placed = bench.place(&agent, 1);
        run = (placed[0].0, placed[0].1.unwrap());
    }
    assert_eq!(run.1.number, 3);
    bench.say(&agent, run, Progress::Ended(failed.clone()));
    assert_eq!(bench.outcome(run.0), Some(failed), "the last attempt's end is the container's");
}

pub fn drains_a_worker(open: Open) {
    let mut bench = bench(open);
    let agent = bench.agent(worker("w", 4));
    let run = bench.assign(&agent, &spec(), 1)[0];
    bench.say(&agent, run, Progress::Running);
    let id = agent.worker.id.clone();
    let drain = SetSchedulable { worker: id.clone(), to: Schedulable::Drain { deadline: Some(secs(5)) } };
    bench.twice(drain).unwrap();
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Draining);
    bench.submit(&spec(), 1);
    assert_eq!(bench.place(&agent, 1)[0].1, Err(volley_model::Refusal::NotReady));
    bench.pass(secs(6), &[&agent]);
    assert_eq!(bench.state(run.0), ContainerState::Stopping);
    bench.say(&agent, run, Progress::Ended(DONE));
    bench.call(SetSchedulable { worker: id, to: Schedulable::Open }).unwrap();
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Ready);
    let nobody = WorkerId::new("nobody").unwrap();
    assert!(bench.call(SetSchedulable { worker: nobody, to: Schedulable::Open }).is_err());
}

pub fn detaches(open: Open) {
    let mut bench = bench(open);
    let mut agent = bench.agent(worker("w", 4));
    bench.attach(&mut agent, Vec::new());
    let mut kept = spec();
    (kept.retry, kept.on_disconnect) = (Retry::Never, OnDisconnect::Keep);
    let kept = bench.assign(&agent, &kept, 1)[0];
    let lost = bench.assign(&agent, &spec(), 1)[0];
    bench.attach(&mut agent, vec![item(kept, Progress::Running), item(lost, Progress::Running)]);
    let leave = Detach { session: agent.session, worker: agent.worker.id.clone(), stream: agent.stream };
    if !bench.call(leave.clone()) {
        // Its stream ended with the store's process.
        return;
    }
    assert!(!bench.call(leave), "it has left");
    assert_eq!(bench.worker(&agent).view.status, WorkerStatus::Lost);
    assert_eq!(bench.state(kept.0), ContainerState::Running);
    assert_eq!(bench.state(lost.0), ContainerState::Queued);
    let beat =
        Heartbeat { session: agent.session, workers: vec![(agent.worker.id.clone(), agent.stream, agent.epoch)] };
    assert_eq!(bench.call(beat).workers, [false]);
}

pub fn bounds_the_fleet(open: Open) {
    let mut bench = Bench::new(open, LedgerOptions { workers_max: 2, ..LedgerOptions::default() });
    bench.agent(worker("a", 1));
    bench.agent(worker("b", 1));
    let mut third = bench.worker_to_be(worker("c", 1));
    let refused = bench.attach_with(&mut third, None, Vec::new());
    assert_eq!(refused.unwrap_err(), AttachRefusal::TooManyWorkers { limit: 2 });
    assert_eq!(bench.workers().len(), 2);
}

pub fn keeps_pools(open: Open) {
    let mut bench = bench(open);
    let fast = PoolName::new("fast").unwrap();
    let pool = Pool { priority: 3, ..Pool::with_defaults(fast.clone()) };
    let apply = |pool: &Pool| ApplyPool { pool: pool.clone(), expected: None, renew: false };
    let version = bench.twice(apply(&pool)).unwrap();
    let late = ApplyPool { expected: Some(PoolVersion(0)), ..apply(&Pool { priority: 4, ..pool.clone() }) };
    assert_eq!(bench.call(late), Err(ApplyPoolRefusal::Changed { version }));
    let mut machine = worker("w", 1);
    machine.pool = fast.clone();
    bench.agent(machine);
    assert_eq!(bench.pools(), [Pool { version, ..pool }]);
    let refused = bench.call(RemovePool { pool: fast });
    assert_eq!(refused, Err(RemovePoolRefusal::HasWorkers { workers: 1 }));
    let unused = PoolName::new("unused").unwrap();
    bench.call(apply(&Pool::with_defaults(unused.clone()))).unwrap();
    bench.call(RemovePool { pool: unused.clone() }).unwrap();
    assert_eq!(bench.call(RemovePool { pool: unused }), Err(RemovePoolRefusal::NotFound));
    assert_eq!(bench.pools().len(), 1);
}
