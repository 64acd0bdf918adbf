//! The words of Volley as types: ids, units, specs, shapes, containers, workers, pools,
//! with their validation, and the one rule for capacity and feasibility that the ledger and
//! the engine share. No I/O, no clock, no randomness.

#![deny(clippy::iter_over_hash_type)]

pub mod access;
pub mod capacity;
pub mod container;
pub mod cost;
pub mod explanation;
pub mod feasible;
pub mod fleet;
pub mod ids;
pub mod pool;
pub mod provisioning;
pub mod sandbox;
pub mod shape;
pub mod spec;
pub mod submission;
pub mod units;
pub mod words;
pub mod worker;

pub use access::{Rate, Role, SecretHash, Tenant, Token};
pub use capacity::{Capacity, Free, GPU_DEVICES_MAX, GpuGrant, Misfit};
pub use container::{ContainerState, Outcome, Progress, StopCause, WaitReason};
pub use cost::Cost;
pub use explanation::{Change, Expected, MORE_WORKERS_EXACT};
pub use feasible::{Infeasible, feasible, is_of_images};
pub use fleet::{
    BlockedMark, BlockedShape, Claimed, FleetChanges, HoldRequest, HoldView, Placement, Refusal, Score, WorkerView,
};
pub use ids::*;
pub use pool::{Elastic, Machine, MinFree, Pool, ProvisionerKind, Strategy};
pub use provisioning::{
    Demand, MachineWorker, PoolStanding, ProvisionedMachine, Provisioning, RetireCause, ScaleLead, ScaleState, Stage,
};
pub use sandbox::{
    HOST_NETWORK_ALLOWED, HOST_NETWORK_LABEL, IMAGES_TOLD_MAX, Mount, MountError, Network, PullPolicy, RUNTIME_LABEL,
    RUNTIME_OCI, RUNTIME_PROCESS, Sandbox, image_affinity,
};
pub use shape::{Shape, ShapeHash};
pub use spec::{
    GpuKinds, GpuRequest, OnDisconnect, OnUnplaceable, PoolSelector, Resources, Retry, RetryOn, Spec, SpecHash,
};
pub use submission::{Run, SpecHashes, Submission, SubmissionBody, ValidationError};
pub use units::*;
pub use words::NameError;
pub use worker::{Worker, WorkerStatus};
