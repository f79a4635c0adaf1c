//! Links the kernel into the top 2 GiB, where the kernel code model wants it.

fn main() {
    // A `RUSTFLAGS` variable silently replaces the flags of `.cargo/config.toml`.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    assert!(
        flags.contains("relocation-model=static"),
        "build from tests/kernel with RUSTFLAGS unset: nobody relocates this kernel"
    );
    println!("cargo::rustc-link-arg-bins=--image-base=0xffffffff80000000");
    println!("cargo::rustc-link-arg-bins=-zseparate-loadable-segments");
    println!("cargo::rerun-if-changed=build.rs");
}
