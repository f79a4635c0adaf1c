//! The fuzzer's corpus: hundreds of scripts of some hundred bytes, kept as one compressed `tar` archive.
//!
//! What goes into it is sorted and has no owner and no time, so the same scripts are the same bytes.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use tar::{Archive, Builder, EntryType, Header};

/// Longer ones the fuzzer does not make up.
const MAX_SCRIPT: u64 = 1 << 16;

/// Makes the directory `into` afresh, with a file for each script of `archive`; how many there are.
pub(crate) fn unpack(archive: &Path, into: &Path) -> Result<u64> {
    let file = File::open(archive).with_context(|| format!("opening {}", archive.display()))?;
    let _ = fs::remove_dir_all(into);
    fs::create_dir_all(into).with_context(|| format!("making {}", into.display()))?;
    let read = || -> Result<u64> {
        let mut count = 0;
        for entry in Archive::new(GzDecoder::new(BufReader::new(file))).entries()? {
            let mut entry = entry?;
            let name = plain_name(&entry.path()?)?;
            if entry.header().entry_type() != EntryType::Regular || entry.size() > MAX_SCRIPT {
                bail!("{} is no script", name.display());
            }
            let mut script = Vec::new();
            entry.read_to_end(&mut script)?;
            fs::write(into.join(name), script)?;
            count += 1;
        }
        Ok(count)
    };
    read().with_context(|| format!("unpacking {}", archive.display()))
}

/// A file name and nothing else, so that nothing is written beside the directory.
fn plain_name(path: &Path) -> Result<PathBuf> {
    match path.components().collect::<Vec<_>>()[..] {
        [Component::Normal(name)] => Ok(name.into()),
        _ => bail!("{} is no plain name", path.display()),
    }
}

/// Makes `archive` of the files in the directory `from`; how many there are.
pub(crate) fn pack(from: &Path, archive: &Path) -> Result<u64> {
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let part = archive.with_extension("part");
    let write = || -> Result<()> {
        let mut builder = Builder::new(compressed(File::create(&part)?));
        for file in &files {
            let script = fs::read(file)?;
            let mut header = Header::new_ustar();
            header.set_size(script.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, file.file_name().context("a name")?, &script[..])?;
        }
        builder.into_inner()?.finish()?;
        // Under its name only when it is whole.
        Ok(fs::rename(&part, archive)?)
    };
    write().with_context(|| format!("packing {}", archive.display()))?;
    Ok(files.len() as u64)
}

fn compressed(file: File) -> GzEncoder<File> {
    GzBuilder::new().mtime(0).write(file, Compression::best())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scripts(of: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let files = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            files.map(|file| (file.file_name().unwrap().into(), fs::read(&file).unwrap())).collect();
        found.sort();
        found
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed_and_the_same_bytes_again() {
        let there = tempfile::tempdir().unwrap();
        let [from, into, first, second] = ["from", "into", "a.tar.gz", "b.tar.gz"].map(|name| there.path().join(name));
        fs::create_dir(&from).unwrap();
        for (name, script) in [("b", &b"\x00\xff"[..]), ("a", b""), ("c", &[7; 901])] {
            fs::write(from.join(name), script).unwrap();
        }
        assert_eq!(pack(&from, &first).unwrap(), 3);
        fs::create_dir(&into).unwrap();
        fs::write(into.join("stale"), b"x").unwrap();
        assert_eq!(unpack(&first, &into).unwrap(), 3);
        assert_eq!(scripts(&into), scripts(&from));
        // Files that are written later, and by another order.
        assert_eq!(pack(&into, &second).unwrap(), 3);
        assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    }

    #[test]
    fn an_archive_reaches_no_other_directory_and_is_named_if_damaged() {
        for name in ["../a", "/a", "a/b", "..", "."] {
            assert!(plain_name(Path::new(name)).is_err(), "{name}");
        }
        let there = tempfile::tempdir().unwrap();
        let [archive, into] = ["damaged.tar.gz", "into"].map(|name| there.path().join(name));
        fs::write(&archive, b"no archive").unwrap();
        let error = format!("{:#}", unpack(&archive, &into).unwrap_err());
        assert!(error.contains("damaged.tar.gz"), "{error}");
        let mut long = Builder::new(compressed(File::create(&archive).unwrap()));
        let mut header = Header::new_ustar();
        header.set_size(MAX_SCRIPT + 1);
        long.append_data(&mut header, "long", &vec![0; MAX_SCRIPT as usize + 1][..]).unwrap();
        long.into_inner().unwrap().finish().unwrap();
        assert!(unpack(&archive, &into).is_err());
    }

    /// The one that is kept.
    #[test]
    fn the_corpus_is_whole() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let there = tempfile::tempdir().unwrap();
        let count = unpack(&project.join(crate::fuzz::CORPUS), there.path()).unwrap();
        assert!(count > 100, "{count} scripts");
        assert!(scripts(there.path()).iter().all(|(_, script)| script.len() as u64 <= crate::fuzz::MAX_LENGTH));
    }
}
