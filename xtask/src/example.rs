//! `cargo xtask example`: builds and boots the kernels in `examples`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::kernel::KernelToolchain;
use crate::qemu::{Boot, Cpus, Echo};
use crate::screen::Show;
use crate::setup::Need;
use crate::steps::{Steps, Summary};

/// The kernels and their CPUs.
pub(crate) const KERNELS: &[(&str, u32)] = &[("minimal-kernel", 1), ("smp-kernel", 4)];

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
    let boot = Boot { image: &image, mode: "example", cpus: Cpus::Threads(cpus), limit: LIMIT, echo: Echo::Raw };
    match boot.run()?.failure {
        Some(failure) => bail!("{name}: {failure}"),
        None => Ok(Summary::default()),
    }
}
