//! One command, one module.

pub mod change;
pub mod dev;
pub mod remote;
pub mod run;
pub mod show;
