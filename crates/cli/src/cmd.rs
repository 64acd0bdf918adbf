//! One command, one module.

pub mod change;
pub mod dev;
pub mod run;
pub mod serve;
pub mod show;
pub mod worker;
