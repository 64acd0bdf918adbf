//! The conformance suite: what every store must do, as named cases and as random sequences of
//! operations. Runs on the bare ledger and on real SQLite files, also with the file closed and
//! opened again after every durable operation. A new store adds one line to `suites!`.

mod bench;
mod cases;
mod full_disk;
mod model;
mod redis_faults;
#[allow(dead_code, reason = "a part of it is for the end-to-end drills")]
mod redis_server;
mod redis_slices;
mod redis_url;
mod replay;
mod subject;
mod write_faults;

// The random world and its book-keeping are the ledger's own tests'.
#[allow(dead_code, reason = "the ledger's tests use all of it")]
#[path = "../../../ledger/tests/ledger/cell.rs"]
mod cell;
#[allow(dead_code, reason = "the ledger's tests use all of it")]
#[path = "../../../ledger/tests/ledger/disk.rs"]
mod disk;
#[allow(dead_code, reason = "the ledger's tests use all of it")]
#[path = "../../../ledger/tests/ledger/mirror.rs"]
mod mirror;
#[allow(dead_code, reason = "the ledger's tests use all of it")]
#[path = "../../../ledger/tests/ledger/steps.rs"]
mod steps;
#[allow(dead_code, reason = "the ledger's tests use all of it")]
#[path = "../../../ledger/tests/ledger/world/mod.rs"]
mod world;
