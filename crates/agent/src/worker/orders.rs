//! What a server tells a worker, and what the worker does then.

use std::sync::Arc;

use volley_model::{Millis, Progress, ValidationError};
use volley_wire::convert;
use volley_wire::proto::{self, to_worker};

use super::{Life, Stream};
use crate::Launch;
use crate::attempts::{Key, Next};
use crate::output_page::answer;

impl Life {
    pub(super) fn on_message(&mut self, message: to_worker::Message, stream: &mut Stream) {
        match message {
            to_worker::Message::Welcome(_) | to_worker::Message::Servers(_) => {
                tracing::warn!("a second welcome on one stream: not heard");
            }
            to_worker::Message::Starts(starts) => {
                if let Err(error) = self.on_starts(starts, stream) {
                    tracing::error!(%error, "starts that cannot be read; the server hands them out again");
                }
            }
            to_worker::Message::Stops(stops) => {
                for stop in stops.stops {
                    match (
                        convert::container_from("container", stop.container),
                        convert::attempt_from("attempt", stop.attempt),
                    ) {
                        (Ok(container), Ok(attempt)) => {
                            if self.attempts.on_stop((container, attempt)) {
                                self.stop(container, attempt, Millis(stop.grace_ms));
                            }
                        }
                        (Err(error), _) | (_, Err(error)) => tracing::error!(%error, "a stop that cannot be read"),
                    }
                }
            }
            to_worker::Message::Verdicts(verdicts) => {
                for verdict in verdicts.verdicts {
                    let container = convert::container_from("container", verdict.container);
                    let attempt = convert::attempt_from("attempt", verdict.attempt);
                    if let (Ok(container), Ok(attempt)) = (container, attempt) {
                        self.on_verdict((container, attempt), verdict.progress, verdict.keep);
                    }
                }
            }
            to_worker::Message::Heartbeat(ack) => {
                let sent = stream.heartbeats.get(&ack.number).copied();
                if let (true, Some(sent), Some(lease)) = (ack.renewed, sent, &mut self.lease) {
                    self.options.metrics.link.heartbeats.add_one(["renewed"]);
                    lease.renewed = lease.renewed.max(sent);
                    lease.ended = false;
                }
            }
            to_worker::Message::Logs(request) => answer(&self.runtime, request, stream.out.clone()),
            to_worker::Message::Call(request) => self.calls.answer(&self.runtime, request, stream.out.clone()),
        }
    }

    fn on_starts(&mut self, starts: proto::Starts, stream: &mut Stream) -> Result<(), ValidationError> {
        if starts.forget_specs {
            stream.specs.clear();
        }
        for entry in starts.specs {
            let hash = convert::spec_hash_from("specs.hash", &entry.hash)?;
            let spec = convert::spec_from("specs.spec", entry.spec.unwrap_or_default())?;
            stream.specs.insert(hash, Arc::new(spec));
        }
        if self.leaving {
            // Not accepted: they go elsewhere when this worker is gone.
            return Ok(());
        }
        for start in starts.starts {
            let hash = convert::spec_hash_from("start.spec", &start.spec)?;
            let Some(spec) = stream.specs.get(&hash) else {
                return Err(ValidationError { path: "start.spec".to_owned(), problem: "was not sent".to_owned() });
            };
            let launch = Launch {
                container: convert::container_from("start.container", start.container)?,
                attempt: convert::attempt_from("start.attempt", start.attempt)?,
                spec: Arc::clone(spec),
                gpus: convert::grants_from("start.gpus", &start.gpus)?,
            };
            if self.attempts.accept(&launch, Progress::Accepted) {
                self.options.metrics.attempts.started.add_one();
                self.runtime.start(launch);
            }
        }
        Ok(())
    }

    pub(super) fn on_verdict(&mut self, key: Key, answers: u32, keep: bool) {
        let (container, attempt) = key;
        self.options.metrics.link.verdicts.add_one([if keep { "keep" } else { "kill" }]);
        match self.attempts.on_verdict(key, answers, keep) {
            Next::GoOn => {}
            Next::Forget => self.runtime.forget(container, attempt),
            Next::Kill => {
                tracing::warn!(%container, attempt = attempt.number, "is not this worker's any more and is killed");
                self.stop(container, attempt, Millis(0));
                self.runtime.forget(container, attempt);
            }
        }
    }
}
