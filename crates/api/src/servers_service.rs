//! What other servers of the cell ask for callers of theirs: the caller's token was judged by the
//! middleware as anybody's is, here it is held against the container. Never asks further.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use volley_control::Control;
use volley_control::ledger::{Answer, Query};
use volley_model::WorkerId;
use volley_wire::convert;
use volley_wire::proto::{self, call_request::Call, servers_server};

use crate::WorkerStreams;
use crate::auth::{Access, Caller, caller_of};
use crate::peers::status_of;
use crate::workers_service::status;

pub(crate) struct ServersService {
    pub(crate) control: Arc<Control>,
    pub(crate) streams: Arc<WorkerStreams>,
}

impl ServersService {
    /// The worker that is meant, if the container is the caller's to see.
    async fn worker(
        &self,
        caller: &Caller,
        container: Option<proto::ContainerId>,
        worker: &str,
    ) -> Result<WorkerId, Status> {
        let invalid = |error: String| Status::invalid_argument(error);
        let container = convert::container_from("container", container).map_err(|error| invalid(error.to_string()))?;
        let worker = WorkerId::new(worker).map_err(|error| invalid(format!("worker: {error}")))?;
        match self.control.read(Query::Container(container, caller.scope())).await.map_err(|error| status(&error))? {
            Answer::Container(Some(_)) => Ok(worker),
            _ => Err(Status::permission_denied(format!("there is no container {container}"))),
        }
    }
}

#[tonic::async_trait]
impl servers_server::Servers for ServersService {
    async fn call(&self, request: Request<proto::CallRequest>) -> Result<Response<proto::CallReply>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        if !matches!(request.call, Some(Call::Usage(_))) && !caller.may(Access::Submit) {
            return Err(Status::permission_denied("this token may read only"));
        }
        let worker = self.worker(&caller, request.container, &request.worker).await?;
        let reply = self.streams.call(&worker, request).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(proto::CallReply { request: 0, error: String::new(), reply: Some(reply) }))
    }

    async fn page(&self, request: Request<proto::LogRequest>) -> Result<Response<proto::LogChunk>, Status> {
        let caller = caller_of(&request)?;
        let request = request.into_inner();
        let worker = self.worker(&caller, request.container, &request.worker).await?;
        let chunk = self.streams.page(&worker, request).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(chunk))
    }
}
