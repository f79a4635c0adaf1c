//! Tells the tests whether there is an apt that they can start.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(apt)");
    println!("cargo::rerun-if-changed=build.rs");
    if ["apt-get", "dpkg-deb"].iter().all(|program| Path::new("/usr/bin").join(program).is_file()) {
        println!("cargo::rustc-cfg=apt");
    }
}
