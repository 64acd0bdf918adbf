//! Tests of the ledger from outside: operations in, replies, change sets and reads out. After
//! every operation all laws are checked, and that the change sets alone give the same state.

mod access;
mod attach;
mod cell;
mod claim;
mod commit;
mod disk;
mod mirror;
mod overview;
mod properties;
mod record;
mod report;
mod restart;
mod steps;
mod stop;
mod submit;
mod sweep;
mod world;
