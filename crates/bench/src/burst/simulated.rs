//! Simulated workers, in a process of their own: real agents on real streams, with a runtime
//! that runs nothing and tells of each container at once that it ran and ended well. The
//! process is driven over its standard input and output, and ends with its input.

use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use volley_agent::{Happened, Launch, Left, Output, Runtime, WorkerError, WorkerOptions};
use volley_model::{Attempt, ContainerId, Millis, Outcome, PoolName, Worker, WorkerId};
use volley_wire::access::ServerAccess;

use super::clock::Instant;
use super::scene;

/// Printed when all workers are attached.
pub(super) const ATTACHED: &str = "attached";
/// Asks for all deliveries since the last time: answered by their count, and a line for each.
pub(super) const DELIVERIES: &str = "deliveries";

/// What the process of simulated workers is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedWorkers {
    /// Where the servers answer; workers take turns.
    pub servers: Vec<String>,
    /// How many.
    pub workers: usize,
    /// Containers at a time, of each.
    pub slots: u32,
    /// Distinct shapes that they have room for.
    pub shapes: usize,
    /// How long a container runs.
    pub run_for: Millis,
}

/// Why the process ends early.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    /// A worker gave up.
    #[error("a simulated worker gave up: {0}")]
    GaveUp(String),
    /// Whoever started the process is gone.
    #[error("the bench that started these workers is gone: {0}")]
    Pipe(#[from] io::Error),
}

/// Containers in the order that they were delivered.
type Deliveries = Arc<Mutex<Vec<(ContainerId, Instant)>>>;

/// Runs the process until its standard input ends.
pub async fn simulated_workers(options: SimulatedWorkers) -> Result<(), SimulatedError> {
    let deliveries = Deliveries::default();
    let (attached, mut told) = mpsc::unbounded_channel();
    let (shutdown, ending) = watch::channel(0);
    let mut agents = JoinSet::new();
    let ends = ends_after(options.run_for);
    for number in 0..options.workers {
        let (sender, happened) = mpsc::unbounded_channel();
        let runtime = NoOp { happened: sender, deliveries: Arc::clone(&deliveries), ends: ends.clone() };
        let worker = worker(number, &options);
        let server = options.servers[number % options.servers.len()].clone();
        let attached = Some(attached.clone());
        let options = WorkerOptions {
            server: ServerAccess::open(&server),
            worker,
            epoch_file: None,
            attached,
            metrics: Arc::default(),
        };
        agents.spawn(volley_agent::run(options, Arc::new(runtime), happened, ending.clone()));
    }
    let mut lines = lines_of_input();
    for _ in 0..options.workers {
        tokio::select! {
            _ = told.recv() => {}
            Some(ended) = agents.join_next() => return Err(gave_up(ended)),
            None = lines.recv() => return Ok(()),
        }
    }
    say(&format!("{ATTACHED}\n"))?;
    loop {
        tokio::select! {
            line = lines.recv() => match line.as_deref() {
                Some(DELIVERIES) => {
                    let taken = std::mem::take(&mut *deliveries.lock().unwrap_or_else(PoisonError::into_inner));
                    say(&written(&taken))?;
                }
                Some(_) => {}
                None => break,
            },
            Some(ended) = agents.join_next() => return Err(gave_up(ended)),
        }
    }
    shutdown.send_replace(2);
    // The server may have gone first: then there is nobody to take leave of.
    agents.abort_all();
    Ok(())
}

fn worker(number: usize, options: &SimulatedWorkers) -> Worker {
    Worker {
        id: WorkerId::new(&format!("simulated-{number}")).expect("a name of letters and digits"),
        pool: PoolName::default(),
        labels: std::collections::BTreeMap::new(),
        capacity: scene::capacity(options.slots, options.shapes),
        notes: vec!["simulated: runs nothing".to_owned()],
    }
}

fn gave_up(ended: Result<Result<(), WorkerError>, tokio::task::JoinError>) -> SimulatedError {
    SimulatedError::GaveUp(match ended {
        Ok(Ok(())) => "it left by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    })
}

/// A thread that waits for lines; its end is the input's.
fn lines_of_input() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || line.is_ok_and(|line| sender.send(line).is_err()) {
                return;
            }
        }
    });
    receiver
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn written(deliveries: &[(ContainerId, Instant)]) -> String {
    use std::fmt::Write;
    let mut text = format!("{}\n", deliveries.len());
    for (container, at) in deliveries {
        let (group, index) = (container.group.0, container.index);
        writeln!(text, "{group} {index} {}", at.0).expect("a string takes all");
    }
    text
}

/// A line of [`written`].
pub(super) fn read(line: &str) -> Option<(ContainerId, Instant)> {
    let mut words = line.split_ascii_whitespace();
    let group = volley_model::GroupId(words.next()?.parse().ok()?);
    let index = words.next()?.parse().ok()?;
    Some((ContainerId { group, index }, Instant(words.next()?.parse().ok()?)))
}

/// Told to whoever started an attempt.
type Told = mpsc::UnboundedSender<(ContainerId, Attempt, Happened)>;

const WELL: Happened = Happened::Ended(Outcome::Exited { code: 0, signal: None });

/// Ends containers that run for a while, in the order in which they began; `None` when they end at once.
fn ends_after(run_for: Millis) -> Option<mpsc::UnboundedSender<(tokio::time::Instant, Told, ContainerId, Attempt)>> {
    if run_for == Millis(0) {
        return None;
    }
    let (sender, mut running) = mpsc::unbounded_channel::<(tokio::time::Instant, Told, ContainerId, Attempt)>();
    tokio::spawn(async move {
        while let Some((began, told, container, attempt)) = running.recv().await {
            tokio::time::sleep_until(began + run_for.to_duration()).await;
            // Closed only when the agent ends.
            let _ = told.send((container, attempt, WELL));
        }
    });
    Some(sender)
}

/// Notes when each container came, and runs nothing.
struct NoOp {
    happened: Told,
    deliveries: Deliveries,
    ends: Option<mpsc::UnboundedSender<(tokio::time::Instant, Told, ContainerId, Attempt)>>,
}

impl Runtime for NoOp {
    fn adopt(&self) -> io::Result<Vec<Left>> {
        Ok(Vec::new())
    }

    fn start(&self, launch: Launch) {
        let Launch { container, attempt, .. } = launch;
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).push((container, Instant::now()));
        // Closed only when the agent ends.
        let _ = self.happened.send((container, attempt, Happened::Running));
        match &self.ends {
            None => {
                let _ = self.happened.send((container, attempt, WELL));
            }
            Some(ends) => {
                let _ = ends.send((tokio::time::Instant::now(), self.happened.clone(), container, attempt));
            }
        }
    }

    fn stop(&self, _container: ContainerId, _attempt: Attempt, _grace: Millis) -> bool {
        false
    }

    fn forget(&self, _container: ContainerId, _attempt: Attempt) {}

    fn output(&self, _: ContainerId, _: u32, _stderr: bool, from: u64, _max: usize) -> io::Result<Output> {
        Ok(Output { bytes: Vec::new(), next: from })
    }

    fn ended(&self, _container: ContainerId, _attempt: u32) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use volley_model::GroupId;

    use super::*;

    #[test]
    fn deliveries_are_read_as_they_are_written() {
        let all = [
            (ContainerId { group: GroupId(u64::MAX), index: 0 }, Instant(1)),
            (ContainerId { group: GroupId(0), index: u32::MAX }, Instant(u64::MAX)),
        ];
        let text = written(&all);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("2"));
        assert_eq!(lines.map(|line| read(line).unwrap()).collect::<Vec<_>>(), all);
        assert_eq!([read(""), read("1 2"), read("1 2 x")], [None, None, None]);
    }
}
