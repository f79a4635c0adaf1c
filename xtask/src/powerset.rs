//! Every combination of the library's features has to compile: a kernel picks its own.

use std::process::Command;

use anyhow::{Context, Result, bail};
use itertools::Itertools;
use serde_json::Value;

use crate::child::{self, succeed};
use crate::screen;
use crate::steps::Summary;

const LIBRARY: &str = "pagepin";

/// Lints the library alone with each subset of its features; clippy includes all that `cargo check` finds.
pub(crate) fn check(cargo: &dyn Fn() -> Command) -> Result<Summary> {
    let output = child::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let features = features(&serde_json::from_slice(&output.stdout)?)?;
    let subsets: Vec<_> = features.iter().powerset().collect();
    for (index, subset) in subsets.iter().enumerate() {
        let list = subset.iter().join(",");
        screen::progress(index as u64, Some(subsets.len() as u64), "subsets");
        screen::output(&format!("features [{list}]"));
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--package", LIBRARY, "--lib", "--no-default-features"]);
        succeed(clippy.args(["--features", &list, "--", "-D", "warnings"]))?;
    }
    Ok(Summary::note(format!("{} subsets of {}", subsets.len(), features.join(", "))))
}

/// The library's features but `default`, which only names some of the others.
fn features(metadata: &Value) -> Result<Vec<String>> {
    let package = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == LIBRARY))
        .with_context(|| format!("cargo metadata knows no package {LIBRARY}"))?;
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
        assert_eq!(features(&metadata).expect("pagepin is there"), ["alloc", "instructions"]);
        assert!(features(&serde_json::json!({ "packages": [] })).is_err());
    }
}
