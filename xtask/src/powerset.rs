//! Every combination of the library's features has to compile, and its documentation to be without a warning: a kernel
//! picks its own.

use std::process::Command;

use anyhow::{Context, Result, bail};
use itertools::Itertools;
use serde_json::Value;

use crate::child::{self, succeed};
use crate::screen;
use crate::steps::Summary;

/// The library's name among the workspace's packages.
pub(crate) const LIBRARY: &str = "pagepin";

/// The companion that kernels link with it, which supports the compilers and machines that it does.
pub(crate) const STORE: &str = "pagepin-store";

/// Lints and documents the library alone with each subset of its features; clippy includes all that `cargo check` finds.
pub(crate) fn check(cargo: &dyn Fn() -> Command) -> Result<Summary> {
    let features = features(&library(cargo())?)?;
    let subsets: Vec<_> = features.iter().powerset().collect();
    for (index, subset) in subsets.iter().enumerate() {
        let list = subset.iter().join(",");
        screen::progress(index as u64, Some(subsets.len() as u64), "subsets");
        screen::output(&format!("features [{list}]"));
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--package", LIBRARY, "--lib", "--no-default-features"]);
        succeed(clippy.args(["--features", &list, "--", "-D", "warnings"]))?;
        let mut rustdoc = cargo();
        rustdoc.args(["doc", "--quiet", "--package", LIBRARY, "--no-deps", "--no-default-features"]);
        succeed(rustdoc.args(["--features", &list]).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(Summary::note(format!("{} subsets of {}", subsets.len(), features.join(", "))))
}

/// What `cargo metadata` says of the library.
pub(crate) fn library(mut cargo: Command) -> Result<Value> {
    let output = child::output(cargo.args(["metadata", "--no-deps", "--format-version", "1"]))?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    among(&serde_json::from_slice(&output.stdout)?)
}

fn among(metadata: &Value) -> Result<Value> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let library = packages.iter().find(|package| package["name"] == LIBRARY);
    library.cloned().with_context(|| format!("cargo metadata knows no package {LIBRARY}"))
}

/// The library's features but `default`, which only names some of the others.
fn features(package: &Value) -> Result<Vec<String>> {
    let features = package["features"].as_object().context("cargo metadata lists no features")?;
    Ok(features.keys().filter(|name| *name != "default").cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_is_no_feature_of_its_own() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "xtask", "features": { "x": [] } },
            { "name": "pagepin", "features": { "default": ["alloc"], "alloc": [], "instructions": [] } },
        ]});
        let library = among(&metadata).expect("pagepin is there");
        assert_eq!(features(&library).expect("it has features"), ["alloc", "instructions"]);
        assert!(among(&serde_json::json!({ "packages": [] })).is_err());
    }
}
