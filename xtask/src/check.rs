//! `cargo xtask test`: every check in one run, each timed, none skipped because an earlier one failed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::child::{self, Stream, succeed};
use crate::childenv::host_cargo;
use crate::kernel::{self, KernelToolchain, Profile};
use crate::loom;
use crate::powerset;
use crate::qemu::IOMMU_MODE;
use crate::screen;
use crate::setup::Need;
use crate::shuttle;
use crate::steps::{Steps, Summary};

/// How long a run of the kernel's tests may take.
const KERNEL_LIMIT: Duration = Duration::from_secs(600);

/// Returns whether everything passed; it has then printed all there is to know.
pub(crate) fn run(project: &Path) -> bool {
    let mut steps = Steps::default();
    let cargo = || host_cargo(project);
    let mut toolchain = Err(anyhow!("set-up did not run"));

    steps.run("set-up", || {
        toolchain = KernelToolchain::prepare(project, Need::Lint);
        // The steps below need the error once more, so only its text stays here.
        toolchain.as_ref().map(|_| Summary::default()).map_err(|error| anyhow!("{error:#}"))
    });
    let toolchain = toolchain.map_err(|_| "set-up failed");
    let kernel = || toolchain.as_ref().map_err(|why| anyhow!(*why));

    steps.run("format", || {
        let arguments = ["fmt", "--all", "--check"];
        let host = succeed(cargo().args(arguments));
        // The others are looked at even when the library is not in order: one run should show everything.
        let kernel = succeed(cargo().args(arguments).current_dir(project.join("tests/kernel")));
        succeed(cargo().args(arguments).current_dir(project.join("fuzz")))?;
        kernel.and(host)?;
        Ok(Summary::note("library, xtask, kernel, fuzz"))
    });
    steps.run("lint", || {
        let all = ["clippy", "--workspace", "--all-targets", "--all-features"];
        succeed(cargo().args(all).args(["--", "-D", "warnings"]))?;
        Ok(Summary::note("library, xtask"))
    });
    steps.run("lint kernel", || {
        let toolchain = kernel()?;
        toolchain.lint()?;
        Ok(Summary::note(if toolchain.clippy() {
            "clippy"
        } else {
            "no clippy for this toolchain: compiler warnings only"
        }))
    });
    steps.run("host tests", || {
        // Documentation tests are the next step's.
        let all = ["--workspace", "--all-features", "--lib", "--bins", "--tests", "--examples"];
        host_tests(host_cargo(project).args(["test", "--no-fail-fast"]).args(all), true)
    });
    steps.run("moved bits", || {
        // The library with the software bits of page-table entries elsewhere, on the same machine.
        let mut cargo = host_cargo(project);
        cargo.args(["test", "--all-features", "--test", "host", "--target-dir", "target/moved-bits"]);
        host_tests(cargo.env("PAGEPIN_SOFTWARE_BITS", "11,58,54,9"), true)
    });
    steps.run("doc tests", || {
        host_tests(host_cargo(project).args(["test", "--workspace", "--all-features", "--doc"]), false)
    });
    steps.run("docs", || {
        let arguments = ["doc", "--workspace", "--no-deps", "--all-features"];
        succeed(cargo().args(arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
        Ok(Summary::default())
    });
    steps.run("features", || {
        let count = powerset::check(&cargo)?;
        Ok(Summary::note(format!("{count} subsets")))
    });
    steps.run("models", || {
        if !loom::run(project, &[])? {
            bail!("a model failed, or a negative twin was not caught");
        }
        Ok(Summary::note("every model held, every twin was caught"))
    });
    steps.run("scenarios", || {
        if !shuttle::run(project, &[], &shuttle::Schedules::default())? {
            bail!("a scenario failed, or a negative twin was not caught");
        }
        Ok(Summary::note("every scenario held, every twin was caught"))
    });
    let mut image = None;
    steps.run("kernel tests", || {
        kernel::tests(image.insert(kernel()?.build_image(Profile::Release)?), "test", KERNEL_LIMIT)
    });
    steps.run("iommu tests", || {
        kernel::tests(image.as_ref().context("the kernel was not built")?, IOMMU_MODE, KERNEL_LIMIT)
    });
    steps.close()
}

/// Runs `cargo test`, shows its output as it comes and adds up the results of all its test programs.
fn host_tests(cargo: &mut Command, must_run: bool) -> Result<Summary> {
    let (mut passed, mut failed) = (0, 0);
    let status = child::watch(cargo, |stream, line| {
        screen::output(line);
        if let Some((good, bad)) = test_result(line).filter(|_| stream == Stream::Out) {
            passed += good;
            failed += bad;
        }
    })?;
    if must_run && passed + failed == 0 {
        bail!("no test ran ({status})");
    }
    if !status.success() && failed == 0 {
        // A test program that aborts, or a target that does not build, prints no result line.
        failed = 1;
    }
    let note = if failed > 0 { format!("cargo test: {status}") } else { format!("{passed} tests") };
    Ok(Summary { note, passed, failed })
}

/// Passed and failed of a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn test_result(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| counts.split(';').find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok());
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_cargo_test_are_read() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        assert_eq!(test_result(line), Some((12, 0)));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(test_result(line), Some((3, 2)));
        assert_eq!(test_result("test foo ... ok"), None);
        assert_eq!(test_result("test result: ok. 12 pas"), None);
    }
}
