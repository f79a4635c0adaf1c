//! apt itself, with a repository and a system made up for the purpose.
//!
//! The tests that start apt are ignored, and say so, where there is none.

use tempfile::TempDir;

use super::super::fetch;
use super::super::root::Root;
use super::*;

#[test]
fn apts_list_of_archives_is_read() {
    let line = "'http://deb.debian.org/debian/pool/main/q/qemu/q_7.2_amd64.deb' qemu_1%3a7.2+b3_amd64.deb 92 MD5Sum:0";
    let found = archive(line).expect("an archive");
    assert_eq!((found.package().as_str(), found.bytes, &found.local), ("qemu=1:7.2+b3", 92, &None));
    let local = archive("'file:/srv/debian/x_1_all.deb' x_1_all.deb 5 ").expect("an archive");
    assert_eq!(local.local, Some("/srv/debian/x_1_all.deb".into()));
    assert_eq!(archive("Reading package lists..."), None);
}

#[test]
fn apts_estimate_of_the_unpacked_size_is_read() {
    let line = "After this operation, 106 MB of additional disk space will be used.";
    assert_eq!(additional_space(line), Some("106 MB"));
    assert_eq!(additional_space("After this operation, 5 kB disk space will be freed."), None);
}

/// What qemu-utils of a later release says of the QEMU in the repository.
const NEWER_UTILITIES: &str = "\
Package: qemu-utils
Status: install ok installed
Section: otherosfs
Architecture: all
Source: qemu
Version: 1:10.0
Breaks: qemu-system-x86 (<< 1:9), qemu-system-common (<< 1:9)
Description: conflicts with what is wanted
";

const LIBRARY: &str = "\
Package: libpresent
Status: install ok installed
Section: libs
Architecture: all
Version: 2
Description: library of the system
";

/// A library of another origin, whose companion in the repository is not content with it.
const FOREIGN_LIBRARY: &str = "\
Package: libcommon
Status: install ok installed
Section: libs
Architecture: all
Version: 9
Description: from elsewhere
";

/// Packages of the repository: name, version, further fields.
const PACKAGES: [(&str, &str, &str); 6] = [
    (
        "qemu-system-x86",
        "1:7.2",
        "Depends: qemu-system-common (= 1:7.2), libpresent (>= 1), libabsent, gcc\nSection: otherosfs\n",
    ),
    ("qemu-system-common", "1:7.2", "Depends: libcommon (= 1)\nConflicts: qemu-utils (>> 1:8)\nSection: otherosfs\n"),
    ("seabios", "1", "Section: otherosfs\n"),
    ("libabsent", "1", "Section: libs\n"),
    ("libpresent", "3", "Section: libs\n"),
    ("libcommon", "1", "Section: libs\n"),
];

/// A project directory, a repository and a system.
struct Setting {
    directory: TempDir,
    apt: PrivateApt,
}

impl Setting {
    fn new(system: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let repository = directory.path().join("repository");
        let index: String = PACKAGES.iter().map(|package| build(&repository, *package)).collect();
        fs::write(repository.join("Packages"), index).expect("an index");
        // `copy:` is fetched into the archives, as from a server.
        Self::with_source(directory, &format!("deb [trusted=yes] copy:{} ./\n", repository.display()), system)
    }

    fn with_source(directory: TempDir, source: &str, system: &[&str]) -> Self {
        let (sources, status) = (directory.path().join("sources.list"), directory.path().join("status"));
        fs::write(&sources, source).expect("sources");
        fs::write(&status, system.join("\n")).expect("a status");
        let configuration = format!(
            "{CONFIGURATION}Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\nAcquire::Retries \"0\";\n",
            sources.display()
        );
        let apt = PrivateApt { directory: directory.path().join("apt"), status, configuration };
        Self { directory, apt }
    }

    fn emulator(&self) -> Root {
        Root::of(self.directory.path(), "qemu")
    }
}

/// Builds one package with one program and returns its entry of the index.
fn build(repository: &Path, (name, version, fields): (&str, &str, &str)) -> String {
    let control = format!("Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x>\n{fields}");
    let tree = repository.join(name);
    for directory in ["DEBIAN", "usr/bin", "usr/share/doc", "usr/lib/x-linux-gnu"] {
        fs::create_dir_all(tree.join(directory)).expect("directories");
    }
    fs::write(tree.join("DEBIAN/control"), format!("{control}Description: x\n")).expect("control");
    fs::write(tree.join("usr/share").join(name), "data").expect("data");
    if name == "qemu-system-x86" {
        let program = tree.join("usr/bin").join(crate::qemu::PROGRAM);
        let script = "#!/bin/sh\ncat \"$(dirname \"$0\")/../share/seabios\" && echo \"$LD_LIBRARY_PATH\"\n";
        super::super::root::write_program(&program, script).expect("a program");
    }
    let file = format!("{name}.deb");
    machine::said(
        Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(repository.join(&file)),
    )
    .expect("a package");
    let sum = machine::said(Command::new("sha256sum").arg(repository.join(&file))).expect("a sum");
    let size = fs::metadata(repository.join(&file)).expect("a package").len();
    let sum = sum.split(' ').next().unwrap_or_default();
    format!("{control}Filename: ./{file}\nSize: {size}\nSHA256: {sum}\nDescription: x\n\n")
}

fn names(selection: &Selection) -> Vec<&str> {
    let mut names: Vec<_> = selection.archives.iter().filter_map(|archive| archive.file.split('_').next()).collect();
    names.sort_unstable();
    names
}

#[test]
#[cfg_attr(not(apt), ignore = "no apt here")]
fn newer_qemu_utilities_of_the_system_do_not_stand_in_the_way() {
    let setting = Setting::new(&[NEWER_UTILITIES, LIBRARY]);
    setting.apt.update().expect("lists");
    let selection = setting.apt.select(&Bundle::emulator(), View::Libraries).expect("packages");
    // Neither the library that the system has nor a compiler.
    assert_eq!(names(&selection), ["libabsent", "libcommon", "qemu-system-common", "qemu-system-x86", "seabios"]);
    assert!(selection.archives.iter().all(|archive| archive.bytes > 0));
}

#[test]
#[cfg_attr(not(apt), ignore = "no apt here")]
fn a_foreign_library_is_passed_over_where_the_packages_want_another() {
    let setting = Setting::new(&[FOREIGN_LIBRARY, LIBRARY]);
    setting.apt.update().expect("lists");
    assert!(setting.apt.select(&Bundle::emulator(), View::Libraries).is_err());
    fetch::unpack(&setting.apt, setting.directory.path(), &[Bundle::emulator()]).expect("unpacked");
    let stamp = setting.emulator().packages().expect("a stamp");
    assert!(stamp.contains("libcommon=1\n") && stamp.contains("libpresent=3\n"), "{stamp}");
}

#[test]
#[cfg_attr(not(apt), ignore = "no apt here")]
fn a_half_unpacked_root_is_none_and_is_made_anew() {
    let setting = Setting::new(&[NEWER_UTILITIES, LIBRARY]);
    let root = setting.emulator();
    let rubbish = root.usr().join("../../qemu.partial/usr/rubbish");
    fs::create_dir_all(setting.directory.path().join("target/tools/debian/qemu.partial/usr")).expect("a partial root");
    fs::create_dir_all(root.usr()).expect("a root without its stamp");
    fs::write(&rubbish, "").expect("rubbish");
    assert!(root.was_interrupted() && !root.is_complete());
    setting.apt.update().expect("lists");
    fetch::unpack(&setting.apt, setting.directory.path(), &[Bundle::emulator()]).expect("unpacked");
    assert!(root.is_complete() && !root.was_interrupted() && !root.usr().join("rubbish").exists());
    assert!(!root.usr().join("share/doc").exists());
    let left = fs::read_dir(setting.directory.path().join("apt/archives")).expect("archives");
    assert!(left.flatten().all(|entry| entry.path().extension().is_none_or(|extension| extension != "deb")));
}

#[test]
#[cfg_attr(not(apt), ignore = "no apt here")]
fn a_program_runs_with_the_data_and_libraries_of_its_root_wherever_that_is() {
    let setting = Setting::new(&[LIBRARY]);
    setting.apt.update().expect("lists");
    fetch::unpack(&setting.apt, setting.directory.path(), &[Bundle::emulator()]).expect("unpacked");
    let moved = setting.directory.path().join("moved to here");
    fs::rename(setting.directory.path().join("target/tools/debian/qemu"), &moved).expect("moved");
    let link = setting.directory.path().join("link");
    std::os::unix::fs::symlink(moved.join("launch").join(crate::qemu::PROGRAM), &link).expect("a link");
    let said = machine::said(Command::new(&link).env("LD_LIBRARY_PATH", "/of/the/caller")).expect("it runs");
    let (data, libraries) = said.split_at("data".len());
    assert_eq!(data, "data");
    assert!(libraries.starts_with(&format!("{}/usr/lib/x-linux-gnu:", moved.display())), "{libraries}");
    assert!(libraries.ends_with(":/of/the/caller\n"), "{libraries}");
}

#[test]
#[cfg_attr(not(apt), ignore = "no apt here")]
fn without_a_network_there_are_no_lists_and_that_is_an_error() {
    let directory = tempfile::tempdir().expect("a directory");
    // Nobody listens on this port.
    let setting = Setting::with_source(directory, "deb [trusted=yes] http://127.0.0.1:9/ ./\n", &[LIBRARY]);
    let error = setting.apt.update().expect_err("no server");
    assert!(format!("{error:#}").contains("apt-get"), "{error:#}");
    assert!(setting.apt.select(&Bundle::emulator(), View::Libraries).is_err());
}
