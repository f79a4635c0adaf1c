//! Links the kernel into the top 2 GiB, where the kernel code model wants it.

fn main() {
    println!("cargo::rustc-link-arg-bins=--image-base=0xffffffff80000000");
    println!("cargo::rustc-link-arg-bins=-zseparate-loadable-segments");
    println!("cargo::rerun-if-changed=build.rs");
}
