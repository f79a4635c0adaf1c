//! Mutants as `cargo mutants --list --json` has them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// Line from 1, and character in it from 0.
pub(crate) type Place = (usize, usize);

#[derive(Clone, Debug)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// What stands there instead; nothing if it is left out.
    pub(crate) replacement: String,
    pub(crate) kind: Kind,
    /// The result of the function has a type without a name, which two expressions do not share.
    pub(crate) opaque: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The function returns this at once.
    Value,
    Binary,
    Unary,
    Guard,
    Arm,
    Field,
}

/// By file, in the order of the list.
pub(crate) fn read(list: &Path) -> Result<BTreeMap<String, Vec<Mutant>>> {
    let file = File::open(list).with_context(|| format!("reading {}", list.display()))?;
    let list: Vec<Value> = serde_json::from_reader(BufReader::new(file)).context("the list of mutants")?;
    let mut mutants: BTreeMap<String, Vec<Mutant>> = BTreeMap::new();
    for value in &list {
        let (file, mutant) = one(value).with_context(|| format!("an entry of the list: {value}"))?;
        mutants.entry(file).or_default().push(mutant);
    }
    Ok(mutants)
}

fn one(value: &Value) -> Option<(String, Mutant)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_u64().map(|number| number as usize);
    let kind = match value["genre"].as_str()? {
        "FnValue" => Kind::Value,
        "BinaryOperator" => Kind::Binary,
        "UnaryOperator" => Kind::Unary,
        "MatchArmGuard" => Kind::Guard,
        "MatchArm" => Kind::Arm,
        "StructField" => Kind::Field,
        _ => return None,
    };
    let start = &value["span"]["start"];
    let returned = value["function"]["return_type"].as_str().unwrap_or_default();
    let replacement = text(&value["replacement"])?;
    // What names `std` does not build, whatever its type.
    let opaque = kind == Kind::Value && returned.contains("impl ") && !replacement.contains("::std::");
    let mutant = Mutant {
        name: text(&value["name"])?,
        place: (number(&start["line"])?, number(&start["column"])?.checked_sub(1)?),
        replacement,
        kind,
        opaque,
    };
    Some((text(&value["file"])?, mutant))
}
