//! The seam to whatever makes machines. Everything goes by the record's id, which is the name of the worker that the
//! machine registers, so that an answer that was lost is found out by asking again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use volley_model::{Elastic, Machine, Pool, PoolName, ProvisionerKind, WorkerId};

use crate::CommandProvisioner;

/// A future of a provisioner, boxed so that they can be chosen at run time.
pub type ProvisionFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProvisionError>> + Send + 'a>>;

/// A machine to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The record's id: the name under which its worker must register.
    pub worker: WorkerId,
    /// The pool in which it must register.
    pub pool: PoolName,
    /// What it must offer.
    pub machine: Machine,
    /// The pool's options, as they are.
    pub options: BTreeMap<String, String>,
}

/// A machine that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The id it was made with.
    pub worker: WorkerId,
    /// The provisioner's own name for it.
    pub handle: String,
}

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// Nothing was made, and nothing will be.
    #[error("{reason}")]
    Refused {
        /// In words.
        reason: String,
    },
    /// It may have happened, or may happen yet: ask with the id.
    #[error("the outcome is unknown: {reason}")]
    Unknown {
        /// In words.
        reason: String,
    },
}

/// Makes and destroys machines of a pool. Safe to call again with the same id, after whatever happened.
pub trait Provisioner: Send + Sync + 'static {
    /// Makes a machine, or gives the one that this id made before; its handle.
    fn create<'a>(&'a self, order: &'a Order) -> ProvisionFuture<'a, String>;

    /// Destroys the machine of an id, or only the one with this handle. Good when there is none (any more).
    fn destroy<'a>(&'a self, order: &'a Order, handle: Option<&'a str>) -> ProvisionFuture<'a, ()>;

    /// All machines of a pool that are there, those just being made included.
    fn list<'a>(
        &'a self,
        pool: &'a PoolName,
        options: &'a BTreeMap<String, String>,
    ) -> ProvisionFuture<'a, Vec<Listed>>;
}

impl std::fmt::Debug for Provisioners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provisioners of {}", self.server)
    }
}

/// The provisioner of each kind.
#[derive(Clone)]
pub struct Provisioners {
    process: Arc<dyn Provisioner>,
    /// Where workers of commands' machines find the server.
    server: String,
}

impl Provisioners {
    /// For a server at `server`; `process` makes the processes of this machine.
    #[must_use]
    pub fn with_process(process: Arc<dyn Provisioner>, server: &str) -> Self {
        Self { process, server: server.to_owned() }
    }

    /// The provisioner of a kind.
    #[must_use]
    pub fn of(&self, kind: &ProvisionerKind) -> Arc<dyn Provisioner> {
        match kind {
            ProvisionerKind::Process => Arc::clone(&self.process),
            ProvisionerKind::Command { program, args, timeout } => Arc::new(CommandProvisioner {
                program: program.clone(),
                args: args.clone(),
                timeout: timeout.to_duration(),
                server: self.server.clone(),
            }),
        }
    }
}

impl Order {
    /// A machine of a pool as it is defined now.
    #[must_use]
    pub fn of(worker: &WorkerId, pool: &Pool, elastic: &Elastic) -> Self {
        Self {
            worker: worker.clone(),
            pool: pool.name.clone(),
            machine: elastic.machine.clone(),
            options: elastic.options.clone(),
        }
    }
}
