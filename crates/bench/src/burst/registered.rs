//! Workers that only are there: registered through the store as a server would, with a lease of a
//! day, so that a fleet of thousands needs no agents. They offer too little for any container of
//! a bench. Knows nothing of what is measured.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use volley_ledger::{Attach, CloseSession, LedgerOptions, OpenSession};
use volley_model::{Bytes, Capacity, CpuMilli, Millis, Nonce, PoolName, SessionId, Worker, WorkerId};
use volley_store::StoreExt;
use volley_store::redis::{RedisOptions, RedisStore};

use super::BurstError;

/// Nobody renews it.
const LEASE: Millis = Millis::from_secs(24 * 3600);
/// Calls under way.
const AT_A_TIME: usize = 64;

fn failed(problem: impl std::fmt::Display) -> BurstError {
    BurstError::Process { what: "the registration of workers", problem: problem.to_string() }
}

/// Registers so many, by a session that ends at once: what they would be handed is nobody's to take.
pub(super) async fn register(url: &str, cell: &str, count: u32) -> Result<(), BurstError> {
    let ledger = LedgerOptions { worker_lease: LEASE, ..LedgerOptions::default() };
    let options = RedisOptions { ledger, cell: cell.to_owned(), ..RedisOptions::new(url) };
    let store = std::sync::Arc::new(RedisStore::open(options).await.map_err(failed)?);
    let random = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let session = SessionId(random);
    store.call(OpenSession { session, address: "bench".to_owned() }).await.map_err(failed)?;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..count {
        while calls.len() >= AT_A_TIME {
            joined(calls.join_next().await)?;
        }
        let (store, attach) = (std::sync::Arc::clone(&store), attach(session, number));
        calls.spawn(async move {
            let attached = store.call(attach).await.map_err(failed)?;
            attached.map(|_| ()).map_err(|refusal| failed(format!("{refusal:?}")))
        });
    }
    while let Some(ended) = calls.join_next().await {
        joined(Some(ended))?;
    }
    store.call(CloseSession { session }).await.map_err(failed)?;
    Ok(())
}

fn joined(ended: Option<Result<Result<(), BurstError>, tokio::task::JoinError>>) -> Result<(), BurstError> {
    ended.map_or(Ok(()), |ended| ended.map_err(failed)?)
}

fn attach(session: SessionId, number: u32) -> Attach {
    let worker = Worker {
        id: WorkerId::new(&format!("registered-{number}")).expect("a name of letters and digits"),
        pool: PoolName::default(),
        labels: BTreeMap::new(),
        capacity: Capacity { cpu: CpuMilli(1), memory: Bytes(1 << 20), slots: 1, gpus: Vec::new() },
        notes: vec!["registered by a bench: nobody is there".to_owned()],
    };
    let nonce = Nonce(u64::from(number) + 1);
    Attach {
        session,
        stream: nonce,
        replaces: None,
        worker,
        epoch: None,
        epoch_nonce: nonce,
        inventory: Vec::new(),
        affinities: Vec::new(),
    }
}
