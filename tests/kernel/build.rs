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
    // How the frames' words are packed; see `mm/platform.rs`.
    println!("cargo::rustc-check-cfg=cfg(layout, values(\"Wide\", \"Split23x8\", \"Split23x4x4\", \"Biased10\"))");
    println!("cargo::rerun-if-env-changed=PAGEPIN_LAYOUT");
    let layout = std::env::var("PAGEPIN_LAYOUT").unwrap_or_else(|_| "Wide".to_owned());
    println!("cargo::rustc-cfg=layout=\"{layout}\"");
}
