//! What apt is told to be installed when packages are chosen for a private root.
//!
//! Programs in a private root use the system's shared libraries, so those need not be fetched again; but nothing of the
//! system is replaced, so what it has must not stand in the way either. The text made here, in the format of dpkg's status
//! file, therefore names packages of the system as facts without demands: no dependency that could be broken, no
//! conflict. Left out is everything that a program looks for relative to its own place, such as QEMU's firmware: that
//! has to be in the root.

use std::fmt::Write;

/// How much of the system the programs of a private root may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    /// Shared libraries and the base system.
    Libraries,
    /// The C and C++ runtime, which has to fit the system's dynamic linker. For systems on which a library of another origin
    /// excludes what the packages want.
    Runtime,
}

/// The first that works is used.
pub(crate) const VIEWS: [View; 2] = [View::Libraries, View::Runtime];

/// Sources whose packages belong together in one version and one place.
const WHOLE: &[&str] = &["qemu", "rustc", "cargo"];

/// The fields that say what a package is; the others say what it wants.
const FACTS: &[&str] = &["Package", "Architecture", "Multi-Arch", "Version", "Provides"];
/// Also of packages that are held: what is chosen here does not change them.
const INSTALLED: &str = "Status: install ok installed\n";

/// A linker for the host is not fetched: xtask itself could not have been built without one.
const LINKER: &str = "Package: pagepin-host-linker\n\
    Architecture: all\n\
    Version: 1\n\
    Provides: c-compiler, gcc (= 99:0), libc-dev, libc6-dev (= 99:0), binutils (= 99:0)\n";

/// The status file for `view`, from the text of the system's own.
pub(crate) fn seen_through(view: View, system: &str) -> String {
    let mut text = String::new();
    for stanza in system.split("\n\n").map(Stanza).filter(|stanza| stanza.is_installed() && stanza.is_seen(view)) {
        for name in FACTS {
            if let Some(value) = stanza.field(name) {
                // Writing into a string does not fail.
                let _ = writeln!(text, "{name}: {value}");
            }
        }
        text += INSTALLED;
        text.push('\n');
    }
    text + LINKER + INSTALLED
}

/// One package's fields.
#[derive(Clone, Copy)]
struct Stanza<'a>(&'a str);

impl<'a> Stanza<'a> {
    /// Fields of one line, which all of those used here are.
    fn field(self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    fn is_installed(self) -> bool {
        self.field("Status").is_some_and(|status| status.ends_with(" ok installed"))
    }

    /// The package's source, without the version that may follow it.
    fn source(self) -> &'a str {
        let source = self.field("Source").or_else(|| self.field("Package")).unwrap_or_default();
        source.split(' ').next().unwrap_or_default()
    }

    fn is_seen(self, view: View) -> bool {
        let source = self.source();
        // `gcc-12` and the like carry libgcc and libstdc++.
        let runtime = source == "glibc" || (source.starts_with("gcc-") && self.is_library());
        match view {
            View::Runtime => runtime,
            View::Libraries => {
                let whole = WHOLE.iter().any(|family| {
                    source == *family || source.strip_prefix(family).is_some_and(|rest| rest.starts_with('-'))
                });
                !whole && (runtime || self.is_library() || self.is_base())
            }
        }
    }

    fn is_library(self) -> bool {
        let section = self.field("Section").unwrap_or_default();
        // Outside of `main` the section's name follows that of the archive's area.
        matches!(section.rsplit('/').next(), Some("libs" | "oldlibs"))
    }

    fn is_base(self) -> bool {
        matches!(self.field("Priority"), Some("required" | "important" | "standard"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "\
Package: libc6
Status: install ok installed
Priority: optional
Section: libs
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: 2.36-9
Depends: libgcc-s1
Breaks: nothing (<< 1)
Description: GNU C Library
 Depends: this is text

Package: libfdt1
Status: hold ok installed
Priority: optional
Section: universe/libs
Architecture: amd64
Version: 1.6

Package: adduser
Status: install ok installed
Priority: important
Section: admin
Architecture: all
Version: 3.1

Package: qemu-utils
Status: install ok installed
Priority: optional
Section: otherosfs
Architecture: amd64
Source: qemu (1:10.0)
Version: 1:10.0
Breaks: qemu-system-x86 (<< 1:9)

Package: libstd-rust-web-1.96
Status: install ok installed
Section: libs
Architecture: amd64
Source: rustc-web
Version: 1.96

Package: seabios
Status: install ok installed
Section: otherosfs
Architecture: all
Version: 1.16

Package: libgone
Status: deinstall ok config-files
Section: libs
Architecture: amd64
Version: 1
";

    fn names(view: View) -> Vec<String> {
        let text = seen_through(view, SYSTEM);
        text.lines().filter_map(|line| line.strip_prefix("Package: ")).map(str::to_owned).collect()
    }

    #[test]
    fn libraries_and_base_system_are_used_and_data_and_conflicts_are_not_seen() {
        assert_eq!(names(View::Libraries), ["libc6", "libfdt1", "adduser", "pagepin-host-linker"]);
    }

    #[test]
    fn the_last_view_has_the_runtime_only() {
        assert_eq!(names(View::Runtime), ["libc6", "pagepin-host-linker"]);
    }

    #[test]
    fn a_package_is_a_fact_without_demands() {
        let text = seen_through(View::Libraries, SYSTEM);
        let first = text.split("\n\n").next().expect("a package");
        assert_eq!(
            first,
            "Package: libc6\nArchitecture: amd64\nMulti-Arch: same\nVersion: 2.36-9\nStatus: install ok installed"
        );
    }
}
