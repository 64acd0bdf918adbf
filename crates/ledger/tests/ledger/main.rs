//! Tests of the ledger from outside: operations in, replies, change sets and reads out. After
//! every operation all laws are checked, and that the change sets alone give the same state.

mod attach;
mod cell;
mod claim;
mod commit;
mod disk;
mod record;
mod report;
mod restart;
mod stop;
mod submit;
mod sweep;
