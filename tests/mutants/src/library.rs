//! The library with all of its mutants: made, and built until what is left of them builds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::mutant::Mutant;
use crate::render::{self, Culprit, LeftOut};
use crate::sites::{self, Site};

/// Where it is built so, and with what.
pub(crate) struct Build<'a> {
    pub(crate) tree: &'a Path,
    /// Cargo's arguments that choose features and profile.
    pub(crate) choice: &'a [String],
    pub(crate) flags: &'a str,
}

impl Build<'_> {
    /// The messages of the compiler.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(self.tree).args(arguments).args(self.choice).arg("--message-format=json");
        // The library decides at run time, also in functions that are `const`; what it looks like is nobody's business.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", format!("{} --cap-lints allow", self.flags));
        let output = cargo.stderr(Stdio::inherit()).output().context("cargo could not be started")?;
        let text = String::from_utf8(output.stdout).context("messages that are not UTF-8")?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("a message: {line}"))).collect()
    }
}

pub(crate) struct Library {
    tree: PathBuf,
    files: BTreeMap<PathBuf, Source>,
    pub(crate) left_out: LeftOut,
    /// No place was found for them.
    pub(crate) unplaced: Vec<Mutant>,
}

struct Source {
    original: String,
    sites: Vec<Site>,
}

const ROOT: &str = "src/lib.rs";
const FEATURES: &str = "#![feature(core_intrinsics, const_eval_select)]\n";
const RUNTIME: &str = include_str!("runtime.rs");
const RUNTIME_FILE: &str = "src/runtime_of_mutants.rs";

impl Library {
    /// What is at `sources`, to be built at `tree`.
    pub(crate) fn new(sources: &Path, tree: &Path, mutants: &BTreeMap<String, Vec<Mutant>>) -> Result<Self> {
        let mut library =
            Self { tree: tree.to_owned(), files: BTreeMap::new(), left_out: LeftOut::default(), unplaced: Vec::new() };
        let of_file: BTreeMap<PathBuf, &Vec<Mutant>> = mutants.iter().map(|(name, list)| (plain(name), list)).collect();
        let mut first = 1;
        for name in rust_files(sources)? {
            let original = fs::read_to_string(sources.join(&name)).with_context(|| name.display().to_string())?;
            let mutants = of_file.get(&name).map_or(&[][..], |list| list);
            let (apart, mutants): (Vec<_>, Vec<_>) = mutants.iter().cloned().partition(|mutant| mutant.opaque);
            let (sites, unplaced) =
                sites::of(&original, &mutants, first).with_context(|| name.display().to_string())?;
            library.unplaced.extend(apart.into_iter().chain(unplaced));
            first += sites.iter().map(|site| site.mutants.len() as u32).sum::<u32>();
            library.files.insert(name, Source { original, sites });
        }
        Ok(library)
    }

    pub(crate) fn sites(&self) -> impl Iterator<Item = &Site> {
        self.files.values().flat_map(|source| &source.sites)
    }

    /// What tells one state of a file from another. Another release of the standard library may give others.
    pub(crate) fn marks(&self) -> BTreeMap<String, String> {
        let mark = |text: &str| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            format!("{:016x}", hasher.finish())
        };
        let files = self.files.iter();
        files.map(|(name, source)| (name.display().to_string(), mark(&source.original))).collect()
    }

    /// Writes the sources, and leaves out what does not build, until all does.
    pub(crate) fn build(&mut self, build: &Build<'_>) -> Result<()> {
        for round in 1.. {
            let texts = self.write()?;
            let mut found = 0;
            for message in build.cargo(&["check", "--package", "pagepin", "--lib"])? {
                if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
                    found += usize::from(self.leave_out_culprit(&message["message"], &texts)?);
                } else if message["reason"] == "build-finished" && message["success"] == true {
                    return Ok(());
                }
            }
            println!("round {round}: {found} mutants do not build");
            ensure!(found > 0, "the library does not build, and no mutant is to blame");
        }
        unreachable!("rounds have no end")
    }

    /// Only what differs: what was compiled stays.
    fn write(&self) -> Result<BTreeMap<PathBuf, String>> {
        let mut texts = BTreeMap::new();
        for (name, source) in &self.files {
            let mut text = render::file(&source.original, &source.sites, &self.left_out);
            if name == Path::new(ROOT) {
                text = format!(
                    "{FEATURES}{text}\nextern crate std as std_of_mutants;\n#[path = \"runtime_of_mutants.rs\"]\nmod mutation;\n"
                );
            }
            self.write_file(name, &text)?;
            texts.insert(name.clone(), text);
        }
        self.write_file(Path::new(RUNTIME_FILE), RUNTIME)?;
        Ok(texts)
    }

    fn write_file(&self, name: &Path, text: &str) -> Result<()> {
        let file = self.tree.join(name);
        if fs::read_to_string(&file).is_ok_and(|before| before == text) {
            return Ok(());
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    }

    /// Those with these names do not build, so that the compiler need not say it again.
    pub(crate) fn leave_out(&mut self, mutants: &BTreeSet<String>, sites: &BTreeSet<String>) {
        let all = || self.files.values().flat_map(|source| &source.sites);
        let numbered = all().flat_map(|site| (site.first..).zip(&site.mutants));
        let mutants = numbered.filter(|(_, mutant)| mutants.contains(&mutant.name)).map(|(number, _)| number).collect();
        let sites = all().filter(|site| sites.contains(&site.mutants[0].name)).map(|site| site.first).collect();
        self.left_out = LeftOut { mutants, sites };
    }

    /// Whether there is one that was there before.
    fn leave_out_culprit(&mut self, message: &Value, texts: &BTreeMap<PathBuf, String>) -> Result<bool> {
        let spans = message["spans"].as_array().map_or(&[][..], Vec::as_slice);
        let primary = spans.iter().filter(|span| span["is_primary"] == true);
        let others = spans.iter().filter(|span| span["is_primary"] != true);
        for span in primary.chain(others) {
            let (Some(name), Some(at)) = (span["file_name"].as_str(), span["byte_start"].as_u64()) else { continue };
            let Some(text) = texts.get(&plain(name)) else { continue };
            // The comment that opens a mutant stands right before it.
            match render::culprit(text, at as usize + 1) {
                Some(Culprit::Mutant(number)) => return Ok(self.left_out.mutants.insert(number)),
                Some(Culprit::Site(first)) => return Ok(self.left_out.sites.insert(first)),
                None => {}
            }
        }
        if spans.is_empty() {
            return Ok(false);
        }
        bail!("an error in no mutant: {}", message["rendered"].as_str().unwrap_or_default())
    }
}

/// A file's name in the library, which the module tree may reach by a detour.
fn plain(name: &str) -> PathBuf {
    PathBuf::from(name.strip_prefix("src/../").unwrap_or(name))
}

/// The file of a mutant with this name.
pub(crate) fn file_of(mutant: &str) -> String {
    plain(mutant.split(':').next().unwrap_or_default()).display().to_string()
}

/// All of the library's, in order.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![PathBuf::from("arch"), PathBuf::from("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).with_context(|| format!("reading {}", folder.display()))? {
            let entry = entry.context("an entry of a folder")?;
            let name = folder.join(entry.file_name());
            if entry.file_type().context("the type of a file")?.is_dir() {
                folders.push(name);
            } else if name.extension().is_some_and(|end| end == "rs") && name != Path::new(RUNTIME_FILE) {
                files.push(name);
            }
        }
    }
    files.sort_by_key(|file| file.display().to_string());
    Ok(files)
}
