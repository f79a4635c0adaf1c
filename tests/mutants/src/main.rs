//! All mutants of the library in one program: each place that has some asks at run time which of them is switched on. So
//! the tests are compiled once and not for each mutant, and a mutant costs only the tests that reach it.

mod library;
mod mutant;
mod render;
mod sites;
mod tests;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::library::{Build, Library};
use crate::tests::{End, Tests};

const USAGE: &str = "pagepin-mutants SOURCES TREE LIST RESULT FLAGS [cargo's choices]";

/// The mutants of `LIST` in the library at `SOURCES`, which is written to `TREE` with all of them in it and tested there.
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sources, tree, list, result, flags, choice @ ..] = &arguments[..] else { bail!("{USAGE}") };
    let tree = Path::new(tree).canonicalize().context("the tree")?;
    let mutants = mutant::read(Path::new(list))?;
    let build = Build { tree: &tree, choice, flags };
    let mut library = Library::new(Path::new(sources), &tree, &mutants)?;
    library.build(&build)?;
    let tests = Tests::build(&build)?;
    println!("{} tests, {} places", tests.count(), library.sites().count());
    let reached = tests.reached()?;
    println!("{}", reached.summary(&tests));
    let ends = tests.judge(&library, &reached)?;
    let mut results = Vec::new();
    let mut say = |name: &str, end: &str, constant: bool| {
        results.push(json!({ "name": name, "end": end, "constant": constant }));
    };
    for site in library.sites() {
        for (number, mutant) in (site.first..).zip(&site.mutants) {
            let end = if library.left_out.sites.contains(&site.first) {
                "apart"
            } else if library.left_out.mutants.contains(&number) {
                "unviable"
            } else {
                match ends.get(&number) {
                    Some(End::Caught) => "caught",
                    Some(End::ByTime) => "time",
                    Some(End::Survives) => "survives",
                    None => "unreached",
                }
            };
            say(&mutant.name, end, site.constant);
        }
    }
    library.unplaced.iter().for_each(|mutant| say(&mutant.name, "apart", false));
    ensure!(!results.is_empty(), "no mutants");
    std::fs::write(result, serde_json::to_string_pretty(&results)?).context("writing the result")
}
