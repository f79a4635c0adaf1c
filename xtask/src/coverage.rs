//! `cargo xtask coverage`: which lines and branches of the library the host tests reach.
//!
//! Counted by the compiler, which offers branches on nightly only, and summed up by LLVM's tools. The share of each file
//! goes into `docs/COVERAGE.md`; the lines that nothing reached are printed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::child::succeed;
use crate::host_tests;
use crate::nightly;
use crate::page::{self, Page};
use crate::screen::{self, Show};
use crate::setup::{self, Tool};
use crate::steps::{Steps, Summary};

const TOOL: Tool =
    Tool { name: "cargo-llvm-cov", version: "0.9.1", why: "it runs the tests and collects what they reached" };
const PAGE: &str = "docs/COVERAGE.md";
const HEADINGS: [&str; 7] = ["file", "lines", "not reached", "%", "branches", "not taken", "%"];

pub(crate) fn run(project: &Path) -> Steps {
    let mut steps = Steps::new(project, 3);
    let set_up = || {
        nightly::ensure(project)?;
        let (program, tools) = (setup::tool(project, &TOOL)?, nightly::llvm_tools(project)?);
        Ok((Summary::default(), Coverage { project, program, tools }))
    };
    let Some(coverage) = steps.value("set-up", Show::Last, set_up) else { return steps };
    if steps.run("tests", Show::Last, || coverage.test()) {
        steps.run("report", Show::All, || coverage.report());
    }
    steps
}

struct Coverage<'p> {
    project: &'p Path,
    program: PathBuf,
    tools: PathBuf,
}

impl Coverage<'_> {
    fn command(&self, what: &str) -> Command {
        let mut command: Command = nightly::run(self.project, &self.program);
        command.args(["llvm-cov", what, "--branch"]);
        command.env("CARGO_TARGET_DIR", self.project.join("target/coverage"));
        let (cov, profdata) = (self.tools.join("llvm-cov"), self.tools.join("llvm-profdata"));
        command.env("LLVM_COV", cov).env("LLVM_PROFDATA", profdata);
        command
    }

    fn test(&self) -> Result<Summary> {
        let tests = ["--no-report", "--package", "pagepin", "--all-features", "--lib", "--test", "host"];
        host_tests::run(self.command("test").args(tests), true)
    }

    /// Prints what nothing has reached, and writes the page.
    fn report(&self) -> Result<Summary> {
        let report = self.project.join("target/coverage.json");
        succeed(self.command("report").args(["--json", "--summary-only", "--output-path"]).arg(&report))?;
        succeed(self.command("report").arg("--show-missing-lines"))?;
        let text = std::fs::read_to_string(&report).with_context(|| format!("reading {}", report.display()))?;
        let table = table(&serde_json::from_str(&text)?, self.project)?;
        let file = self.project.join(PAGE);
        std::fs::write(&file, Page::read(&file)?.with(&table)?).with_context(|| format!("writing {PAGE}"))?;
        screen::output(&table);
        Ok(Summary::note(PAGE))
    }
}

/// The page's table from `llvm-cov export`'s summary.
fn table(report: &Value, project: &Path) -> Result<String> {
    let data = &report["data"][0];
    let files = data["files"].as_array().context("no files in the report")?;
    let mut rows = files
        .iter()
        .map(|file| {
            let path = file["filename"].as_str().context("a file without a name")?;
            Ok(row(&within(path, project), &file["summary"]))
        })
        .collect::<Result<Vec<_>>>()?;
    rows.sort();
    rows.push(row("**all**", &data["totals"]));
    Ok(page::table(&HEADINGS, rows))
}

fn row(name: &str, summary: &Value) -> Vec<String> {
    let numbers = ["lines", "branches"].iter().flat_map(|kind| {
        let number = |what: &str| summary[kind][what].as_u64().unwrap_or(0);
        let (count, covered) = (number("count"), number("covered"));
        let share = if count == 0 { "-".to_owned() } else { format!("{:.1}", 100.0 * covered as f64 / count as f64) };
        [count.to_string(), (count - covered).to_string(), share]
    });
    [name.to_owned()].into_iter().chain(numbers).collect()
}

/// `path` seen from the project's root, without the detour of `#[path]`.
fn within(path: &str, project: &Path) -> String {
    let path = Path::new(path);
    let path: PathBuf = path.strip_prefix(project).unwrap_or(path).into();
    path.to_string_lossy().replace("src/../", "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_file_and_one_for_all() {
        let summary =
            |covered| json!({"lines": {"count": 8, "covered": covered}, "branches": {"count": 0, "covered": 0}});
        let files = json!([
            {"filename": "/p/src/b.rs", "summary": summary(8)},
            {"filename": "/p/src/../arch/a.rs", "summary": summary(6)},
        ]);
        let report = json!({"data": [{"files": files, "totals": summary(7)}]});
        let table = table(&report, Path::new("/p")).unwrap();
        let rows = page::rows(&table);
        assert_eq!(rows[0], ["arch/a.rs", "8", "2", "75.0", "0", "0", "-"]);
        assert_eq!(rows[1][0], "src/b.rs");
        assert_eq!(rows[2], ["**all**", "8", "1", "87.5", "0", "0", "-"]);
    }
}
