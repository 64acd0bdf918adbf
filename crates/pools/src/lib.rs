//! How machines are made and destroyed: the [`Provisioner`] trait, processes of this machine (`process`), and a program
//! of the owner's (`command`). It is told what to do; when and how often is `control`'s. Must not know: the ledger,
//! stores, planning, the network.

pub mod command;
pub mod process;
mod provisioner;

pub use command::CommandProvisioner;
pub use process::{Lifeline, Lifetime, ProcessOptions, ProcessProvisioner};
pub use provisioner::{Listed, Order, ProvisionError, ProvisionFuture, Provisioner, Provisioners};
