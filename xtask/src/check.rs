//! `cargo xtask test`: every check in one run, each timed, none skipped because an earlier one failed.
//!
//! Two run at a time: one of those that need the kernel's toolchain, and one of the others. Most of them leave a second CPU idle
//! for most of their time, while one crate is compiled or the kernel boots.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::builder::PossibleValuesParser;

use crate::child::succeed;
use crate::childenv::host_cargo;
use crate::host_tests;
use crate::kernel::{self, KernelToolchain, Profile};
use crate::powerset::{self, LIBRARY, STORE};
use crate::published::{self, Package};
use crate::qemu::{IOMMU_MODE, Image, TEST_MODE};
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
    with: With,
    run: fn(&Checkout) -> Result<Summary>,
}

/// The toolchain that a check needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Host,
    Kernel,
}

impl Check {
    const fn host(name: &'static str, about: &'static str, run: fn(&Checkout) -> Result<Summary>) -> Self {
        Self { name, about, with: With::Host, run }
    }

    const fn kernel(name: &'static str, about: &'static str, run: fn(&Checkout) -> Result<Summary>) -> Self {
        Self { name, about, with: With::Kernel, run }
    }
}

/// All checks. Those of a kind run in this order.
pub(crate) const CHECKS: &[Check] = &[
    Check::host("format", "rustfmt on everything", |c| c.format()),
    Check::host("lint", "clippy on all but the kernels", |c| c.lint()),
    Check::host("host-tests", "unit tests and tests on an emulated machine", |c| c.host_tests()),
    Check::host("package", "the published package, alone, with other software bits in the entries", |c| {
        c.package()?.check()
    }),
    Check::host("doc-tests", "the examples of the documentation", |c| c.doc_tests()),
    Check::host("docs", "the documentation builds without a warning", |c| c.docs()),
    Check::host("features", "every set of features compiles", |c| powerset::check(&|| c.cargo())),
    Check::host("oldest", "the oldest supported compiler", |c| published::oldest(&c.project)),
    Check::host("models", "the loom models and their twins", |c| loom::check(&c.project)),
    Check::kernel("set-up", "what the machine lacks for the kernel", |c| c.set_up()),
    Check::kernel("lint-kernel", "clippy on the test kernel and the examples", |c| c.lint_kernel()),
    Check::kernel("kernel-tests", "the test kernel in QEMU", |c| c.kernel_tests(TEST_MODE)),
    Check::kernel("iommu-tests", "the same kernel behind an IOMMU", |c| c.kernel_tests(IOMMU_MODE)),
    Check::kernel("examples", "the example kernels in QEMU", |c| example::check(c.toolchain()?)),
    Check::kernel("tutorial", "the kernels that the tutorial makes", |c| c.tutorial()),
    Check::kernel("elsewhere", "hosts and kernels that are no x86_64", |c| c.elsewhere()),
    Check::kernel("dependent", "a bare-metal kernel of an older edition", |c| c.dependent()),
    // It needs nothing of a kernel: so both kinds take about as long.
    Check::kernel("scenarios", "the shuttle scenarios and their twins", |c| shuttle::check(&c.project)),
];

/// The names for the command line, which refuses others.
pub(crate) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(CHECKS.iter().map(|check| check.name))
}

/// Runs the checks in `wanted`; none: all.
pub(crate) fn run(project: &Path, wanted: &[String]) -> Steps {
    let chosen = chosen(wanted);
    let mut steps = Steps::new(project, chosen.len());
    let checkout = Checkout { project: project.to_owned(), ..Checkout::default() };
    let all = |with: With, steps: &mut Steps| {
        for check in chosen.iter().filter(|check| check.with == with) {
            steps.run(check.name, Show::Last, || (check.run)(&checkout));
        }
    };
    steps.side_by_side(|steps| all(With::Host, steps), |steps| all(With::Kernel, steps));
    steps
}

fn chosen(wanted: &[String]) -> Vec<&'static Check> {
    CHECKS.iter().filter(|check| wanted.is_empty() || wanted.iter().any(|name| name == check.name)).collect()
}

/// Made once, by the check that needs it first; or why there is none.
type Made<T> = OnceLock<Result<T, String>>;

fn made<T>(place: &Made<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    place.get_or_init(|| make().map_err(|error| format!("{error:#}"))).as_ref().map_err(|why| anyhow!("{why}"))
}

/// What is checked, and what some checks leave for others.
#[derive(Default)]
struct Checkout {
    project: PathBuf,
    toolchain: Made<KernelToolchain>,
    package: Made<Package>,
    image: Made<Image>,
}

impl Checkout {
    fn cargo(&self) -> std::process::Command {
        host_cargo(&self.project)
    }

    /// Sets the machine up for the kernel.
    fn toolchain(&self) -> Result<&KernelToolchain> {
        made(&self.toolchain, || KernelToolchain::prepare(&self.project, Need::Lint))
    }

    fn set_up(&self) -> Result<Summary> {
        Ok(Summary::note(self.toolchain()?.description()))
    }

    fn format(&self) -> Result<Summary> {
        let format =
            |place: &str| succeed(self.cargo().args(["fmt", "--all", "--check"]).current_dir(self.project.join(place)));
        // The others are looked at even when the library is not in order: one run should show everything.
        let results = [".", "tests/kernel", "examples/machine", "fuzz"].map(format);
        results.into_iter().collect::<Result<()>>()?;
        Ok(Summary::note("library, xtask, kernels, fuzz"))
    }

    fn lint(&self) -> Result<Summary> {
        let all = ["clippy", "--workspace", "--all-targets", "--all-features"];
        succeed(self.cargo().args(all).args(["--", "-D", "warnings"]))?;
        Ok(Summary::note("library, models, xtask"))
    }

    fn lint_kernel(&self) -> Result<Summary> {
        let toolchain = self.toolchain()?;
        toolchain.lint()?;
        Ok(Summary::note(if toolchain.clippy() {
            "clippy"
        } else {
            "no clippy for this toolchain: compiler warnings only"
        }))
    }

    fn host_tests(&self) -> Result<Summary> {
        // Documentation tests are the next step's.
        let all = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--examples"];
        host_tests::run(self.cargo().args(["test", "--no-fail-fast"]).args(all), true)
    }

    fn doc_tests(&self) -> Result<Summary> {
        // The packages under `tests/models` have the library's sources once more, but not under its name.
        let documented = ["--package", LIBRARY, "--package", STORE];
        host_tests::run(self.cargo().args(["test", "--all-features", "--doc"]).args(documented), true)
    }

    fn docs(&self) -> Result<Summary> {
        let arguments = ["doc", "--workspace", "--no-deps", "--all-features"];
        succeed(self.cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
        Ok(Summary::default())
    }

    /// The library, packed and unpacked again.
    fn package(&self) -> Result<&Package> {
        made(&self.package, || Package::unpack(&self.project))
    }

    fn dependent(&self) -> Result<Summary> {
        published::dependent(&self.project, self.package()?.directory(), self.toolchain()?)
    }

    fn elsewhere(&self) -> Result<Summary> {
        published::elsewhere(&self.project, self.toolchain()?)
    }

    fn tutorial(&self) -> Result<Summary> {
        tutorial::check(&self.project, self.toolchain()?)
    }

    fn kernel_tests(&self, mode: &str) -> Result<Summary> {
        let image = made(&self.image, || self.toolchain()?.build_image(Profile::Release))?;
        kernel::tests(image, mode, KERNEL_LIMIT)
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
        assert!(chosen(&wanted).iter().all(|check| check.with == With::Host));
        assert_eq!(chosen(&[]).len(), CHECKS.len());
    }
}
