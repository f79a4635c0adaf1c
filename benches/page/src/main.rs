//! Draws the last runs of the benchmarks; with `publish`, writes the README's table and picture too. `cargo xtask bench` runs it.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let project = Path::new(".");
    if std::env::args().nth(1).is_some_and(|what| what == "publish") {
        pagepin_bench_page::publish(project)?;
    }
    pagepin_bench_page::write_page(project)
}
