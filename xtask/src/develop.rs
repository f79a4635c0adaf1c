//! `cargo xtask kernel`: boots the test kernel for who works on it.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;

use crate::image;
use crate::kernel::Profile;
use crate::qemu::{Boot, Cpus, Echo};
use crate::screen::Show;
use crate::steps::{Steps, Summary};

const LIMIT: Duration = Duration::from_secs(3600);

pub(crate) fn run(project: &Path, mode: &str, smp: u32, profile: Profile) -> Steps {
    let mut steps = Steps::new(project, image::STEPS + 1);
    let Some(image) = image::build(&mut steps, project, profile) else { return steps };
    let cpus = if mode == "bench" { Cpus::Counted } else { Cpus::Threads(smp) };
    steps.run("boot", Show::All, || {
        match (Boot { image: &image, mode, cpus, limit: LIMIT, echo: Echo::Raw }).run()?.failure {
            Some(failure) => bail!(failure),
            None => Ok(Summary::default()),
        }
    });
    steps
}
