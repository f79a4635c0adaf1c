//! `cargo xtask test`: every check in one run, each timed, none skipped because an earlier one failed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::builder::PossibleValuesParser;

use crate::child::succeed;
use crate::childenv::host_cargo;
use crate::host_tests::{self, ONE_LAYOUT, ONE_LAYOUT_TARGET};
use crate::kernel::{self, KernelToolchain, Profile};
use crate::powerset;
use crate::published::{self, Package};
use crate::qemu::{IOMMU_MODE, Image};
use crate::screen::Show;
use crate::setup::Need;
use crate::steps::{Steps, Summary};
use crate::{example, loom, shuttle, tutorial};

/// How long a run of the kernel's tests may take.
const KERNEL_LIMIT: Duration = Duration::from_secs(600);

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: fn(&mut Checkout) -> Result<Summary>,
}

/// All checks, in the order in which they run.
pub(crate) const CHECKS: &[Check] = &[
    Check { name: "set-up", about: "what the machine lacks for the kernel", run: |c| c.set_up() },
    Check { name: "format", about: "rustfmt on everything", run: |c| c.format() },
    Check { name: "lint", about: "clippy on all but the kernels", run: |c| c.lint() },
    Check { name: "lint-kernel", about: "clippy on the test kernel and the examples", run: |c| c.lint_kernel() },
    Check { name: "host-tests", about: "unit tests and tests on an emulated machine", run: |c| c.host_tests() },
    Check { name: "moved-bits", about: "the same with other software bits in the entries", run: |c| c.moved_bits() },
    Check { name: "doc-tests", about: "the examples of the documentation", run: |c| c.doc_tests() },
    Check { name: "docs", about: "the documentation builds without a warning", run: |c| c.docs() },
    Check { name: "features", about: "every set of features compiles", run: |c| powerset::check(&|| c.cargo()) },
    Check { name: "package", about: "the published package, alone", run: |c| c.package()?.check() },
    Check { name: "dependent", about: "a bare-metal kernel of an older edition", run: |c| c.dependent() },
    Check { name: "elsewhere", about: "hosts and kernels that are no x86_64", run: |c| c.elsewhere() },
    Check { name: "oldest", about: "the oldest supported compiler", run: |c| published::oldest(&c.project) },
    Check { name: "models", about: "the loom models and their twins", run: |c| loom::check(&c.project) },
    Check { name: "scenarios", about: "the shuttle scenarios and their twins", run: |c| shuttle::check(&c.project) },
    Check { name: "kernel-tests", about: "the test kernel in QEMU", run: |c| c.kernel_tests("test") },
    Check { name: "examples", about: "the example kernels in QEMU", run: |c| example::check(c.toolchain()?) },
    Check { name: "tutorial", about: "the kernels that the tutorial makes", run: |c| c.tutorial() },
    Check { name: "iommu-tests", about: "the same kernel behind an IOMMU", run: |c| c.kernel_tests(IOMMU_MODE) },
];

/// The names for the command line, which refuses others.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(CHECKS.iter().map(|check| check.name))
}

/// Runs the checks in `wanted`; none: all.
pub(crate) fn run(project: &Path, wanted: &[String]) -> Steps {
    let chosen = chosen(wanted);
    let mut steps = Steps::new(project, chosen.len());
    let mut checkout = Checkout { project: project.to_owned(), toolchain: None, package: None, image: None };
    for check in chosen {
        steps.run(check.name, Show::Last, || (check.run)(&mut checkout));
    }
    steps
}

fn chosen(wanted: &[String]) -> Vec<&'static Check> {
    CHECKS.iter().filter(|check| wanted.is_empty() || wanted.iter().any(|name| name == check.name)).collect()
}

/// What is checked, and what some checks leave for others.
struct Checkout {
    project: PathBuf,
    /// Or why there is none.
    toolchain: Option<Result<KernelToolchain, String>>,
    package: Option<Package>,
    image: Option<Image>,
}

impl Checkout {
    fn cargo(&self) -> std::process::Command {
        host_cargo(&self.project)
    }

    /// Sets the machine up for the kernel, unless that was tried before.
    fn toolchain(&mut self) -> Result<&KernelToolchain> {
        let project = &self.project;
        let prepare = || KernelToolchain::prepare(project, Need::Lint).map_err(|error| format!("{error:#}"));
        self.toolchain.get_or_insert_with(prepare).as_ref().map_err(|why| anyhow!("{why}"))
    }

    fn set_up(&mut self) -> Result<Summary> {
        Ok(Summary::note(self.toolchain()?.description()))
    }

    fn format(&mut self) -> Result<Summary> {
        let format =
            |place: &str| succeed(self.cargo().args(["fmt", "--all", "--check"]).current_dir(self.project.join(place)));
        // The others are looked at even when the library is not in order: one run should show everything.
        let results = [".", "tests/kernel", "examples/machine", "fuzz"].map(format);
        results.into_iter().collect::<Result<()>>()?;
        Ok(Summary::note("library, xtask, kernels, fuzz"))
    }

    fn lint(&mut self) -> Result<Summary> {
        let all = ["clippy", "--workspace", "--all-targets", "--all-features"];
        succeed(self.cargo().args(all).args(["--", "-D", "warnings"]))?;
        Ok(Summary::note("library, models, xtask"))
    }

    fn lint_kernel(&mut self) -> Result<Summary> {
        let toolchain = self.toolchain()?;
        toolchain.lint()?;
        Ok(Summary::note(if toolchain.clippy() {
            "clippy"
        } else {
            "no clippy for this toolchain: compiler warnings only"
        }))
    }

    fn host_tests(&mut self) -> Result<Summary> {
        // Documentation tests are the next step's.
        let all = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--examples"];
        host_tests::run(self.cargo().args(["test", "--no-fail-fast"]).args(all), true)
    }

    fn moved_bits(&mut self) -> Result<Summary> {
        // The library with the software bits of page-table entries elsewhere, on the same machine. No layout of the frame word
        // knows of them.
        let (mut cargo, (flags, one_layout)) = (self.cargo(), ONE_LAYOUT);
        cargo
            .args(["test", "--all-features", "--test", "host", "--target-dir", ONE_LAYOUT_TARGET])
            .env(flags, one_layout);
        host_tests::run(cargo.env("PAGEPIN_SOFTWARE_BITS", "11,58,54,9,55"), true)
    }

    fn doc_tests(&mut self) -> Result<Summary> {
        // The packages under `tests/models` have the library's sources once more, but not under its name.
        host_tests::run(self.cargo().args(["test", "--package", "pagepin", "--all-features", "--doc"]), true)
    }

    fn docs(&mut self) -> Result<Summary> {
        let arguments = ["doc", "--workspace", "--no-deps", "--all-features"];
        succeed(self.cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
        Ok(Summary::default())
    }

    /// The library, packed and unpacked again.
    fn package(&mut self) -> Result<&Package> {
        let package = match self.package.take() {
            Some(package) => package,
            None => Package::unpack(&self.project)?,
        };
        Ok(self.package.insert(package))
    }

    fn dependent(&mut self) -> Result<Summary> {
        let (project, package) = (self.project.clone(), self.package()?.directory().to_owned());
        published::dependent(&project, &package, self.toolchain()?)
    }

    fn elsewhere(&mut self) -> Result<Summary> {
        let project = self.project.clone();
        published::elsewhere(&project, self.toolchain()?)
    }

    fn tutorial(&mut self) -> Result<Summary> {
        let project = self.project.clone();
        tutorial::check(&project, self.toolchain()?)
    }

    fn kernel_tests(&mut self, mode: &str) -> Result<Summary> {
        let image = match self.image.take() {
            Some(image) => image,
            None => self.toolchain()?.build_image(Profile::Release)?,
        };
        kernel::tests(self.image.insert(image), mode, KERNEL_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_names_of_their_own_that_are_file_names() {
        for (index, check) in CHECKS.iter().enumerate() {
            assert!(check.name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", check.name);
            assert!(CHECKS.iter().skip(index + 1).all(|other| other.name != check.name));
        }
    }

    #[test]
    fn only_the_checks_asked_for_run_in_their_order() {
        let wanted = ["docs", "format"].map(str::to_owned);
        assert_eq!(chosen(&wanted).iter().map(|check| check.name).collect::<Vec<_>>(), ["format", "docs"]);
        assert_eq!(chosen(&[]).len(), CHECKS.len());
    }
}
