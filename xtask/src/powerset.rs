//! Every combination of the library's features has to compile: a kernel picks its own.

use std::io::{IsTerminal, Write};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::child;
use crate::screen;

const LIBRARY: &str = "pagepin";

/// Lints the library alone with each subset of its features; clippy includes all that `cargo check` finds.
/// Returns how many subsets there were.
pub(crate) fn check(cargo: &dyn Fn() -> Command) -> Result<usize> {
    let output = child::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let features = features(&serde_json::from_slice(&output.stdout)?)?;
    let subsets = subsets(&features);
    let terminal = std::io::stdout().is_terminal();
    for (index, subset) in subsets.iter().enumerate() {
        let list = subset.join(",");
        let shown = if list.is_empty() { "no features" } else { &list };
        let progress = format!("[{}/{}] {shown}", index + 1, subsets.len());
        if terminal {
            print!("\r\x1b[K{progress}");
            std::io::stdout().flush()?;
        } else {
            println!("{progress}");
        }
        let mut clippy = cargo();
        clippy.args(["clippy", "--quiet", "--package", LIBRARY, "--lib", "--no-default-features"]);
        clippy.args(["--features", &list, "--", "-D", "warnings"]);
        let status = child::watch(&clippy, |_, line| screen::output(line))?;
        if !status.success() {
            println!();
            bail!("features [{list}]: {status}");
        }
    }
    if terminal {
        println!("\r\x1b[K{} subsets of {}", subsets.len(), features.join(", "));
    }
    Ok(subsets.len())
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

/// All subsets, the empty one first, the full one last.
fn subsets(features: &[String]) -> Vec<Vec<&str>> {
    features.iter().fold(vec![Vec::new()], |mut subsets, feature| {
        let with: Vec<Vec<&str>> =
            subsets.iter().map(|subset| subset.iter().copied().chain([feature.as_str()]).collect()).collect();
        subsets.extend(with);
        subsets
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subset_appears_once() {
        let features = ["a", "b", "c"].map(str::to_owned);
        let mut joined: Vec<_> = subsets(&features).iter().map(|subset| subset.join(",")).collect();
        assert_eq!(joined, ["", "a", "b", "a,b", "c", "a,c", "b,c", "a,b,c"]);
        joined.sort();
        joined.dedup();
        assert_eq!(joined.len(), 8);
        assert_eq!(subsets(&[]), [Vec::<&str>::new()]);
    }

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
