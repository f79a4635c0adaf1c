//! `cargo xtask example`: builds and boots the kernels in `examples`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::kernel::KernelToolchain;
use crate::qemu::{Boot, Cpus, DISK, DISK_MODE, Echo};
use crate::screen::Show;
use crate::setup::Need;
use crate::steps::{Steps, Summary};

/// The kernels and their CPUs.
pub(crate) const KERNELS: &[(&str, u32)] = &[("minimal-kernel", 1), ("smp-kernel", 4), (WITH_DISK, 1)];

/// The kernel that reads the first sectors of a disk and writes their complement behind them.
const WITH_DISK: &str = "virtio-kernel";
const READ_BYTES: usize = 10 * 512;
const DISK_BYTES: usize = 64 * 1024;

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn run(project: &Path, wanted: &[String]) -> Steps {
    let chosen: Vec<_> =
        KERNELS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)).collect();
    let mut steps = Steps::new(project, 1 + chosen.len());
    let toolchain = steps.value("set-up", Show::Last, || {
        let toolchain = KernelToolchain::prepare(project, Need::Boot)?;
        Ok((Summary::note(toolchain.description()), toolchain))
    });
    let Some(toolchain) = toolchain else { return steps };
    for (name, cpus) in chosen {
        steps.run(name, Show::All, || boot(&toolchain, name, *cpus));
    }
    steps
}

/// All of them, for the gate.
pub(crate) fn check(toolchain: &KernelToolchain) -> Result<Summary> {
    for (name, cpus) in KERNELS {
        boot(toolchain, name, *cpus)?;
    }
    Ok(Summary::note(KERNELS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")))
}

/// The kernel says by QEMU's exit status whether its programs came to the end that they should.
fn boot(toolchain: &KernelToolchain, name: &str, cpus: u32) -> Result<Summary> {
    let image = toolchain.build_example(name)?;
    let (mode, disk) = (if name == WITH_DISK { DISK_MODE } else { "example" }, image.disk.with_file_name(DISK));
    if name == WITH_DISK {
        fs::write(&disk, disk_bytes(false)).with_context(|| format!("writing {}", disk.display()))?;
    }
    let boot = Boot { image: &image, mode, cpus: Cpus::Threads(cpus), limit: LIMIT, echo: Echo::Raw };
    if let Some(failure) = boot.run()?.failure {
        bail!("{name}: {failure}");
    }
    if name == WITH_DISK && fs::read(&disk)? != disk_bytes(true) {
        bail!("{name}: {} is not what it should be", disk.display());
    }
    Ok(Summary::default())
}

/// What is on the disk before, or after.
fn disk_bytes(after: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..DISK_BYTES).map(|at| (at % 251) as u8).collect();
    if after {
        for at in 0..READ_BYTES {
            bytes[READ_BYTES + at] = !bytes[at];
        }
    }
    bytes
}
