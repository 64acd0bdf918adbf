//! What lies between a worker and a server: messages take time, in order; a connection stalls
//! and breaks, and its two ends learn of it at different times.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use volley_agent::{Inbound, Link, OpenError, Opening};
use volley_api::serve_worker;
use volley_wire::proto::{FromWorker, ToWorker};

use crate::chance::Chance;
use crate::cluster::{Cluster, Server};
use crate::faults::Faults;
use crate::flag::Flag;

/// Messages under way in each direction.
const MESSAGES_MAX: usize = 64;
/// A stalled connection breaks after this at the latest.
const STALL_MILLIS_MAX: u64 = 90_000;
/// An end that was closed is noticed by the other after this at the latest, while there are faults.
const NOTICE_MILLIS_MAX: u64 = 20_000;

/// A connection: cut from anywhere.
#[derive(Clone)]
pub(crate) struct Wire {
    cut: Arc<Flag>,
    chance: Chance,
    faults: Faults,
}

impl Wire {
    fn new(chance: Chance, faults: Faults) -> Self {
        Self { cut: Arc::default(), chance, faults }
    }

    pub(crate) fn cut(&self) {
        self.cut.set(true);
    }

    async fn is_cut(&self) {
        self.cut.is(true).await;
    }

    /// Carries one direction until it breaks or `from` ends.
    async fn carry<T>(self, mut from: mpsc::Receiver<T>, to: mpsc::Sender<Result<T, Status>>) {
        loop {
            let message = tokio::select! {
                biased;
                () = self.is_cut() => break,
                message = from.recv() => message,
            };
            let rates = self.faults.rates();
            let Some(message) = message else {
                if rates.cut > 0 {
                    tokio::select! {
                        biased;
                        () = self.is_cut() => {}
                        () = sleep(self.chance.millis(0..NOTICE_MILLIS_MAX)) => {}
                    }
                }
                return;
            };
            if self.chance.per_mille(rates.stall) {
                sleep(self.chance.millis(0..STALL_MILLIS_MAX)).await;
                self.cut();
                break;
            }
            if self.chance.per_mille(rates.cut) {
                self.cut();
                break;
            }
            sleep(self.chance.millis(0..rates.latency_millis_max.max(1))).await;
            tokio::select! {
                biased;
                () = self.is_cut() => break,
                sent = to.send(Ok(message)) => if sent.is_err() {
                    return;
                },
            }
        }
        if self.faults.rates().cut > 0 {
            sleep(self.chance.millis(0..NOTICE_MILLIS_MAX)).await;
        }
        // The other end may have gone.
        let _ = to.send(Err(Status::unavailable("the connection broke"))).await;
    }
}

/// A worker's way to whatever server takes it.
pub(crate) struct SimLink {
    pub(crate) cluster: Arc<Cluster>,
}

impl Link for SimLink {
    fn open(&self, out: mpsc::Receiver<FromWorker>) -> Opening<'_> {
        Box::pin(async move {
            let cluster = &self.cluster;
            sleep(cluster.chance.millis(0..cluster.faults.rates().latency_millis_max.max(1))).await;
            let server = cluster.any_server();
            let server = server.ok_or_else(|| OpenError::NotConnected("no server is there".to_owned()))?;
            let wire = Wire::new(cluster.chance.clone(), cluster.faults.clone());
            server.hold_wire(&wire);
            let (opened, answer) = tokio::sync::oneshot::channel();
            // The server goes on with it whether the worker still waits or not.
            tokio::spawn(async move {
                let _ = opened.send(connect(&server, wire, out).await);
            });
            match answer.await {
                Ok(Ok(inbound)) => Ok(inbound),
                Ok(Err(status)) => Err(OpenError::Answered(status)),
                Err(_) => Err(OpenError::NotConnected("the server died".to_owned())),
            }
        })
    }
}

async fn connect(server: &Server, wire: Wire, out: mpsc::Receiver<FromWorker>) -> Result<Inbound, Status> {
    let (up, inbound) = mpsc::channel(MESSAGES_MAX);
    tokio::spawn(wire.clone().carry(out, up));
    let served = tokio::select! {
        biased;
        () = wire.is_cut() => Err(Status::unavailable("the connection broke")),
        served = serve_worker(&server.control, &server.streams, ReceiverStream::new(inbound)) => served,
    };
    let mut receiver = served?;
    let (unwrapped, from) = mpsc::channel(MESSAGES_MAX);
    tokio::spawn(async move {
        while let Some(Ok(message)) = receiver.recv().await {
            if unwrapped.send(message).await.is_err() {
                return;
            }
        }
    });
    let (down, outbound) = mpsc::channel::<Result<ToWorker, Status>>(MESSAGES_MAX);
    tokio::spawn(wire.carry(from, down));
    Ok(Box::pin(ReceiverStream::new(outbound)))
}

/// How long a worker that gave up is left alone before it is started again.
pub(crate) const RESTART_WAIT: Duration = Duration::from_secs(1);
