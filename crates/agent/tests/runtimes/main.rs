//! The runtimes against real commands, real keepers and a real OCI runtime. One suite is for all
//! runtimes; the rest is about what images and isolation bring. These need root, runc,
//! busybox-static and docker-registry, as `cargo xtask test` installs them.

mod bed;
mod image;
mod isolation;
mod life;
mod process;
mod registry;
mod store;
mod suite;
