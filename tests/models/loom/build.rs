//! Puts the checker under the library's sources.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=pagepin_checker");
    println!("cargo::rustc-cfg=pagepin_checker=\"loom\"");
}
