//! Links the ring-3 programs at 4 MiB.

fn main() {
    println!("cargo::rustc-link-arg-bins=--image-base=0x400000");
    println!("cargo::rustc-link-arg-bins=-zseparate-loadable-segments");
    println!("cargo::rustc-link-arg-bins=-znorelro");
    println!("cargo::rerun-if-changed=build.rs");
}
