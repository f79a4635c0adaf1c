//! All mutants of the library in one program: each place that has some asks at run time which of them is switched on. So
//! the tests are compiled once and not for each mutant, and a mutant costs only the tests that reach it.

mod library;
mod mutant;
mod render;
mod sites;
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::library::{Build, Library};
use crate::tests::{End, Tests};

const USAGE: &str = "pagepin-mutants SOURCES TREE LIST RESULT FLAGS [cargo's choices]";

/// The mutants of `LIST` in the library at `SOURCES`, which is written to `TREE` with all of them in it and tested there.
///
/// `RESULT` says how they ended. What it says before is believed of mutants that were caught, or did not build, in files that are as
/// they were: more tests do not let them pass.
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [sources, tree, list, result, flags, choice @ ..] = &arguments[..] else { bail!("{USAGE}") };
    let tree = Path::new(tree).canonicalize().context("the tree")?;
    let mutants = mutant::read(Path::new(list))?;
    let build = Build { tree: &tree, choice, flags };
    let mut library = Library::new(Path::new(sources), &tree, &mutants)?;
    let before = Ends::read(Path::new(result), &library)?;
    library.leave_out(&before.unviable, &before.apart);
    library.build(&build)?;
    let tests = Tests::build(&build)?;
    println!("{} tests, {} places", tests.count(), library.sites().count());
    let reached = tests.reached()?;
    println!("{}", reached.summary(&tests));
    let ends = tests.judge(&library, &reached, &before.caught)?;
    let mut now = Ends::default();
    for site in library.sites() {
        for (number, mutant) in (site.first..).zip(&site.mutants) {
            let end = if library.left_out.sites.contains(&site.first) {
                APART
            } else if library.left_out.mutants.contains(&number) {
                UNVIABLE
            } else if let Some(end) = before.caught.get(&mutant.name) {
                end
            } else {
                match ends.get(&number) {
                    Some(End::Caught) => CAUGHT,
                    Some(End::ByTime) => BY_TIME,
                    Some(End::Survives) => "survives",
                    None => "unreached",
                }
            };
            now.say(&mutant.name, end, site.constant);
        }
    }
    library.unplaced.iter().for_each(|mutant| now.say(&mutant.name, APART, false));
    ensure!(!now.all.is_empty(), "no mutants");
    let text = serde_json::to_string_pretty(&json!({ "files": library.marks(), "mutants": now.all }))?;
    std::fs::write(result, text).context("writing the result")
}

const CAUGHT: &str = "caught";
const BY_TIME: &str = "time";
const UNVIABLE: &str = "unviable";
const APART: &str = "apart";

/// How mutants ended.
#[derive(Default)]
struct Ends {
    all: Vec<Value>,
    /// Those that a test noticed, by name.
    caught: BTreeMap<String, String>,
    /// Those that do not build.
    unviable: BTreeSet<String>,
    /// Those whose place cannot ask which is switched on.
    apart: BTreeSet<String>,
}

impl Ends {
    /// What was found out before of files that are the same now.
    fn read(result: &Path, library: &Library) -> Result<Self> {
        let Ok(text) = std::fs::read(result) else { return Ok(Self::default()) };
        let before: Value = serde_json::from_slice(&text).context("the result of before")?;
        let (files, marks) = (&before["files"], library.marks());
        let same =
            |name: &str| marks.get(&library::file_of(name)).is_some_and(|mark| files[library::file_of(name)] == **mark);
        let list = before["mutants"].as_array().map_or(&[][..], Vec::as_slice);
        let ends = list.iter().filter_map(|mutant| Some((mutant["name"].as_str()?, mutant["end"].as_str()?)));
        let mut before = Self::default();
        for (name, end) in ends.filter(|(name, _)| same(name)) {
            match end {
                CAUGHT | BY_TIME => _ = before.caught.insert(name.to_owned(), end.to_owned()),
                UNVIABLE => _ = before.unviable.insert(name.to_owned()),
                APART => _ = before.apart.insert(name.to_owned()),
                _ => {}
            }
        }
        Ok(before)
    }

    fn say(&mut self, name: &str, end: &str, constant: bool) {
        self.all.push(json!({ "name": name, "end": end, "constant": constant }));
    }
}
