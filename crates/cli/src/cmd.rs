//! One command, one module.

pub mod bench;
pub mod change;
pub mod config;
pub mod dev;
pub mod events;
pub mod exec;
pub mod explain;
pub mod inspect;
pub mod logs;
pub mod plan;
pub mod pools;
pub mod ps;
pub mod run;
pub mod serve;
pub mod show;
pub mod token;
pub mod watch;
pub mod worker;
