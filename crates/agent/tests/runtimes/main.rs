//! The runtimes against real commands, real keepers and a real OCI runtime. One suite is for all
//! runtimes; the rest is about what images and isolation bring. These need root, runc and
//! busybox-static, as `cargo xtask test` installs them.

mod bed;
mod image;
mod isolation;
mod life;
mod process;
mod store;
mod suite;
