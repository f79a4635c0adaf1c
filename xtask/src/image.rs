//! The two steps with which all commands begin that boot the kernel.

use std::path::Path;

use crate::kernel::{KernelToolchain, Profile};
use crate::qemu::Image;
use crate::screen::Show;
use crate::setup::Need;
use crate::steps::{Steps, Summary};

/// How many steps [`build`] takes.
pub(crate) const STEPS: usize = 2;

/// Sets the machine up, and builds kernel and image. Nothing if that went wrong, which the steps tell.
pub(crate) fn build(steps: &mut Steps, project: &Path, profile: Profile) -> Option<Image> {
    let toolchain = steps.value("set-up", Show::Last, || {
        let toolchain = KernelToolchain::prepare(project, Need::Boot)?;
        Ok((Summary::note(toolchain.description()), toolchain))
    })?;
    steps.value("kernel", Show::Last, || Ok((Summary::default(), toolchain.build_image(profile)?)))
}
