//! A few threads with read-only connections, for reads that may be long: they see what is
//! durable, and neither stall the writer nor are stalled by it. Knows nothing of the ledger.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::DbError;
use super::schema;
use crate::StoreError;

/// Threads: one for short reads while another is busy with a long one (a backup, a big list).
const READERS: usize = 2;
/// Reads that wait for a thread; more wait at the caller.
const READS_WAITING_MAX: usize = 256;

type Task = Box<dyn FnOnce(Result<&Connection, DbError>) + Send>;

/// The threads.
pub(super) struct Readers {
    tasks: Option<mpsc::Sender<Task>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(file: &Path) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Task>(READS_WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for number in 0..READERS {
            let (file, receiver) = (file.to_owned(), Arc::clone(&receiver));
            let thread = std::thread::Builder::new().name(format!("volley-read-{number}"));
            threads.push(thread.spawn(move || read_loop(&file, &receiver))?);
        }
        Ok(Self { tasks: Some(sender), threads })
    }

    /// Runs a read on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let task: Task = Box::new(move |connection| {
            // Whoever asked may have gone away.
            let _ = answer.send(connection.and_then(read));
        });
        let tasks = self.tasks.as_ref().expect("there until dropped");
        tasks.send(task).await.map_err(|_| StoreError::Closed)?;
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(StoreError::Unavailable { reason: format!("the database cannot be read: {error}") }),
            Err(_) => Err(StoreError::Unavailable { reason: "a read broke off; this is a bug in volley".to_owned() }),
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.tasks = None;
        for thread in self.threads.drain(..) {
            // A read that panicked has been answered for already.
            let _ = thread.join();
        }
    }
}

fn read_loop(file: &Path, tasks: &Mutex<mpsc::Receiver<Task>>) {
    let mut connection: Option<Connection> = None;
    loop {
        // The lock is held while waiting: one thread waits for the next task, the others for their turn to.
        let task = tasks.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(task) = task else { return };
        let opened = match connection.take() {
            Some(connection) => Ok(connection),
            None => schema::open_reader(file),
        };
        match opened {
            Ok(opened) => {
                let ran = catch_unwind(AssertUnwindSafe(|| task(Ok(&opened))));
                connection = ran.is_ok().then_some(opened);
            }
            Err(error) => task(Err(error)),
        }
    }
}
