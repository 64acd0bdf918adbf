//! One command, one module.

pub mod run;
