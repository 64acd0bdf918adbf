//! `volley bench oci`.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use volley_bench::{OciBench, OciPrograms, OciWorker};

use super::program::OWN_PROGRAM;
use super::{Save, finish, watching};
use crate::command_error::CommandError;
use crate::output::Format;

/// Where Debian and others keep a static one.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];
/// What the worker offers, so that nothing but slots bounds it.
const OFFER: [&str; 4] = ["--cpu", "1000", "--memory", "1Ti"];

/// Containers through Volley, beside the same OCI runtime called bare; as root.
#[derive(Debug, Args)]
pub struct Oci {
    /// Containers of a burst, and of what idles.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    containers: u32,
    /// How often each is measured, after one that warms.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    repetitions: u32,
    /// How long the worker is watched while its containers sleep.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    idle_seconds: u64,
    /// The OCI runtime, by name or path.
    #[arg(long, value_name = "PROGRAM", default_value = "runc")]
    oci_runtime: String,
    /// A static busybox, for the image (default: the system's).
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
    /// Where stores, images and containers are made; its disk is part of what is measured.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    save: Save,
}

pub(super) async fn run(flags: Oci, format: Format) -> Result<(), CommandError> {
    let system = || BUSYBOX.iter().map(PathBuf::from).find(|path| path.is_file());
    let options = OciBench {
        containers: flags.containers as usize,
        repetitions: flags.repetitions as usize,
        idle_seconds: flags.idle_seconds,
        runtime: flags.oci_runtime,
        busybox: flags.busybox.or_else(system).unwrap_or_else(|| PathBuf::from(BUSYBOX[0])),
        dir: flags.dir.unwrap_or_else(std::env::temp_dir),
    };
    let bar = watching();
    let report = volley_bench::oci(&options, &OwnProgram, |done| bar.set_message(done)).await;
    bar.finish_and_clear();
    finish(&report.map_err(|error| CommandError::Failed(error.to_string()))?, &flags.save, format)
}

/// Server and worker are this program, as anybody would start it.
struct OwnProgram;

impl OciPrograms for OwnProgram {
    fn server(&self, data: &Path) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.args(["--output", "table", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        command
    }

    fn worker(&self, worker: &OciWorker) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.args(["--output", "table", "--server", &worker.server, "worker", "--runtime", "oci"]);
        command.args(["--name", &worker.name, "--oci-runtime", &worker.runtime, "--slots", &worker.slots.to_string()]);
        command.args(OFFER).arg("--state").arg(&worker.state).arg("--image-root").arg(&worker.image_root);
        command
    }
}
