//! How a worker's stream is opened: what it says of itself, and what the answers mean.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use volley_model::IMAGES_TOLD_MAX;
use volley_wire::proto::{self, from_worker, to_worker};
use volley_wire::{convert, protocol};

use super::{LEASE_MAX, Lease, Life, MESSAGES_MAX, Stream, WELCOME_WAIT, WorkerError, heartbeat_every};
use crate::link::{Link, OpenError};

impl Life {
    /// Opens a stream: hello, then the server's welcome with a verdict on all that is held. `None`: try again.
    pub(super) async fn open(&mut self, link: &dyn Link) -> Result<Option<Stream>, WorkerError> {
        let (out, receiver) = mpsc::channel(MESSAGES_MAX);
        let inventory = self.attempts.inventory();
        let mut hello = convert::worker_to(&self.options.worker);
        hello.epoch = self.epoch.get().map(convert::epoch_to);
        hello.inventory = inventory.iter().map(|((id, attempt), p)| convert::report_to(*id, *attempt, p)).collect();
        hello.images = self.runtime.images();
        hello.images.drain(..hello.images.len().saturating_sub(IMAGES_TOLD_MAX));
        let hello = proto::FromWorker { message: Some(from_worker::Message::Hello(hello)) };
        let sent_at = Instant::now();
        out.try_send(hello).expect("the channel is new and has room");
        let welcomed = async {
            let mut inbound = link.open(receiver).await?;
            let first = inbound.next().await.transpose().map_err(OpenError::Answered)?;
            match first.and_then(|first| first.message) {
                Some(to_worker::Message::Welcome(welcome)) => Ok((inbound, welcome)),
                _ => Err(OpenError::Answered(Status::internal("the server's first message is no welcome"))),
            }
        };
        let Some(welcomed) = self.meanwhile(tokio::time::timeout(WELCOME_WAIT, welcomed)).await else {
            return Ok(None);
        };
        let (inbound, welcome) = match welcomed {
            Ok(Ok(welcomed)) => welcomed,
            Ok(Err(OpenError::NotConnected(reason))) => {
                self.options.metrics.link.connects.add_one(["not_connected"]);
                self.complain(&reason);
                return Ok(None);
            }
            Ok(Err(OpenError::Answered(status))) => return self.refused(&status, link).map(|()| None),
            Err(_) => {
                self.greeted = true;
                self.complain("it does not answer");
                return Ok(None);
            }
        };
        if let Err(mismatch) = protocol::check_welcome(&welcome) {
            return self.refused(&Status::failed_precondition(mismatch.to_string()), link).map(|()| None);
        }
        self.options.metrics.link.connects.add_one(["attached"]);
        link.on_servers(&welcome.servers);
        let term = Duration::from_millis(welcome.lease_ms).min(LEASE_MAX);
        self.lease = Some(Lease { term, renewed: sent_at, ended: false });
        let epoch = welcome.epoch.map(convert::epoch_from);
        let epoch = epoch.ok_or_else(|| WorkerError::Refused("its welcome has no epoch".to_owned()))?;
        self.epoch.set(epoch)?;
        for ((key, progress), keep) in inventory.iter().zip(welcome.keep) {
            self.on_verdict(*key, convert::progress_number(progress), keep);
        }
        if let Some(attached) = &self.options.attached {
            // Whoever wanted to know may have gone.
            let _ = attached.send(epoch);
        }
        tracing::info!(worker = %self.options.worker.id, epoch = epoch.number, "attached");
        let heartbeat_at = Instant::now() + heartbeat_every(term);
        Ok(Some(Stream {
            out,
            inbound,
            specs: HashMap::new(),
            heartbeats: BTreeMap::new(),
            heartbeat_at,
            heard: Instant::now(),
        }))
    }

    fn refused(&mut self, status: &Status, link: &dyn Link) -> Result<(), WorkerError> {
        self.options.metrics.link.connects.add_one(["refused"]);
        let reason = status.message();
        let for_good = match status.code() {
            Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented | Code::PermissionDenied => true,
            // A life before this one, or a stream that broke before its welcome, may still be noted as connected; a
            // worker without a past has the wrong name.
            Code::AlreadyExists => self.epoch.get().is_none() && self.attempts.is_empty() && !self.greeted,
            // Another server may be of another version; and what runs is not given up for one that was updated first.
            Code::FailedPrecondition => {
                self.mismatches += 1;
                self.mismatches >= link.servers() && self.attempts.is_empty()
            }
            // A token may be made good while the worker waits; one that never worked is a mistake.
            Code::Unauthenticated => self.epoch.get().is_none() && self.attempts.is_empty(),
            _ => false,
        };
        self.greeted |= status.code() != Code::AlreadyExists;
        if for_good {
            return Err(WorkerError::Refused(reason.to_owned()));
        }
        self.complain(reason);
        Ok(())
    }
}
