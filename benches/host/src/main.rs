//! How fast the library is on this machine: beside a bare loop of the same loads, stores and locked instructions, and beside
//! this host's Linux. `cargo xtask bench --host` runs it, and reads the one file that it writes.
//!
//! The library is the real one, over page tables in ordinary memory ([`machine`]); no processor walks them, so nothing is
//! flushed and nothing traps. [`limit`] is the bare loop, [`linux`] the host; [`compare`] takes turns between them, so that
//! whatever else the machine does meets all three alike. [`rows`] says what each row contains, [`scaling`] runs two
//! threads, and [`holds`] says how long the mm lock is held at a time.

#[cfg(target_os = "linux")]
mod compare;
#[cfg(target_os = "linux")]
mod holds;
#[cfg(target_os = "linux")]
mod limit;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
mod scaling;
#[cfg(target_os = "linux")]
mod subject;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os().nth(1).ok_or("the file to write is missing")?;
    let host = linux::Host::new();
    let description = host.describe();
    // Two threads first: the machine has not had time to get warm and throttle.
    let scaling = scaling::measure();
    let (rows, holds) = (rows::measure(&host), holds::measure());
    let report = report::Report { rounds: compare::ROUNDS, rows, scaling, holds, ..description };
    std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("this measures beside Linux, on Linux");
    std::process::exit(1);
}
