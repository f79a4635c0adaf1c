//! `target/bench.html`: all plots and what their rows contain, in one file that needs no other.

use std::path::Path;

use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::host::{self, nanoseconds};
use crate::instructions::{Figures, MEASURED, Shown};
use crate::plot::{self, Plot, thousands};
use crate::report::{Figure, Report};

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --band: #f6f8fa;
  --good: #1a7f37; --bad: #bc4c00 }
@media (prefers-color-scheme: dark) { :root { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #3d444d;
  --band: #141a21; --good: #56d364; --bad: #ffa657 } }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 54rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 -apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif }
h1 { font-size: 1.7rem; margin: 0 0 .5rem } h2 { font-size: 1.25rem; margin: 3rem 0 .5rem }
h1, h2 { line-height: 1.25 } p { max-width: 44rem } .faint { color: var(--faint) }
figure { margin: 1rem 0 1.5rem } figure svg { display: block; width: 100%; height: auto }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .875rem }
caption { text-align: left; color: var(--faint); padding: 0 0 .4rem }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { border-bottom-width: 2px; white-space: nowrap } tbody th { font-weight: 400 }
tbody tr:nth-child(odd) { background: var(--band) }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.yes { color: var(--good) } .no { color: var(--bad) } dt { font-weight: 600; margin-top: .8rem } dd { margin: 0 0 0 1.2rem }
code { font: .875em ui-monospace, 'SF Mono', Menlo, Consolas, monospace }
";

/// The page of the runs whose files are there.
pub(crate) fn page(project: &Path) -> Result<String> {
    let counted = project.join(MEASURED).exists().then(|| Figures::read(project, MEASURED)).transpose();
    let measured = host::read(project);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "pagepin: what it costs" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "What pagepin costs" }
                p.faint { "Drawn by " code { "cargo xtask bench" } " from the last run of each kind." }
                @match counted {
                    Ok(Some(figures)) => (instructions(&figures)?),
                    Ok(None) => (never("Instructions", "cargo xtask bench")),
                    Err(error) => (unreadable("Instructions", "cargo xtask bench", &error)),
                }
                @match measured {
                    Ok(Some(report)) => (times(&report)?),
                    Ok(None) => (never("Time", "cargo xtask bench --host")),
                    Err(error) => (unreadable("Time", "cargo xtask bench --host", &error)),
                }
            }
        }
    };
    Ok(page.into_string())
}

fn never(title: &str, command: &str) -> Markup {
    html! {
        h2 { (title) }
        p { "Not measured yet: " code { (command) } " does it." }
    }
}

/// As when another version wrote it.
fn unreadable(title: &str, command: &str, error: &anyhow::Error) -> Markup {
    html! {
        h2 { (title) }
        p { "Not as this version writes it: " (format!("{error:#}")) ". " code { (command) } " measures again." }
    }
}

fn figure(plot: &Plot) -> Result<Markup> {
    let picture = plot::svg(plot)?;
    // Names are those of a page now, and there are several pictures.
    let name: String = plot.title.chars().filter(char::is_ascii_alphabetic).collect();
    let picture = picture.replace("\"title desc\"", &format!("\"{name}-title {name}-desc\""));
    let picture = picture.replace("id=\"title\"", &format!("id=\"{name}-title\""));
    let picture = picture.replace("id=\"desc\"", &format!("id=\"{name}-desc\""));
    Ok(html! { figure { (PreEscaped(picture)) } })
}

/// Whether a goal is reached, in a word and not in colour alone.
fn verdict(reached: Option<bool>) -> Markup {
    match reached {
        Some(true) => html! { td.yes { "reached" } },
        Some(false) => html! { td.no { "missed" } },
        None => html! { td { } },
    }
}

fn instructions(figures: &Figures) -> Result<Markup> {
    Ok(html! {
        h2 { "Instructions" }
        p {
            "Counted in QEMU, where a figure repeats to a thousandth on any machine. Linux 7.2.13 was counted in the same way; "
            code { "xtask/src/linux.rs" } " says what its figures contain. Instructions are not time: a locked instruction and a move "
            "count the same."
        }
        (figure(&figures.plot(Shown::All)?)?)
        div.scroll { table {
            caption { "Instructions per 4 KiB page; of a 2 MiB leaf, per leaf" }
            thead { tr { th { "operation" } th.n { "pagepin" } th.n { "Linux" } th.n { "Linux / pagepin" } th.n { "goal" } th { } } }
            tbody {
                @for row in figures.rows(Shown::All)? {
                    tr {
                        th scope="row" { (row.title) }
                        td.n { (thousands(row.pagepin, 1)) }
                        td.n { @if let Some(linux) = row.linux { (thousands(linux, 1)) } }
                        td.n { @if let Some(linux) = row.linux { (thousands(linux / row.pagepin, 1)) } }
                        td.n { @if let Some(goal) = row.goal { "≤ " (goal) } }
                        (verdict(row.goal.map(|goal| row.pagepin <= goal)))
                    }
                }
            }
        } }
    })
}

fn times(report: &Report) -> Result<Markup> {
    let rounds = report.rounds;
    Ok(html! {
        h2 { "Time" }
        p {
            "Measured on this machine (" (report.processor) ", " (report.kernel) ", a load of " (report.load) " on " (report.cpus)
            " CPUs). The library runs over page tables in ordinary "
            "memory. The limit is a bare loop of the loads, stores and locked instructions that the operation cannot do without; it "
            "checks nothing and cannot fail. The two take turns; each figure is the median of " (rounds) " rounds."
        }
        (figure(&host::of_limit(report))?)
        p {
            "Linux is asked for the same as a program asks for it, so its figures have the system call, the trap of a fault and the "
            "flushes, which the library's have not. User memory is pinned by " code { (report.pins_by) } "."
        }
        (figure(&host::of_linux(report))?)
        (table(report))
        h2 { "Two threads" }
        p {
            "Two threads on two CPUs, against one of them alone. A loop in registers, in turns with each row, has to reach "
            (report.scaling.needed) "; in this run its median was " (format!("{:.2}", report.scaling.control)) "."
        }
        (figure(&host::scaling(report))?)
        h2 { "How long the mm lock is held" }
        p { "The longest section of each operation, over as much as user space can ask for; fork is not among them." }
        div.scroll { table {
            thead { tr { th { "operation" } th.n { "microseconds" } th.n { "goal" } } }
            tbody { @for hold in &report.holds { tr {
                td { (hold.title) } td.n { (format!("{:.0}", hold.microseconds)) } td.n { (format!("{:.0}", hold.goal)) }
            } } }
        } }
        h2 { "What the rows contain" }
        dl {
            @for row in &report.rows {
                dt { (row.title) }
                dd { "pagepin: " (row.contains.pagepin) }
                dd { "limit: " (row.contains.limit) }
                @match &row.linux {
                    Figure::Measured(_) => dd { "Linux: " (row.contains.linux) },
                    Figure::Missing(why) => dd { "Linux: not measured; " (why) },
                }
            }
            @for row in &report.scaling.rows {
                dt { "Two threads: " (row.title) }
                dd { (row.contains) }
            }
        }
    })
}

fn table(report: &Report) -> Markup {
    html! { div.scroll { table {
        caption { "Nanoseconds per page; of a 2 MiB leaf, per leaf" }
        thead { tr {
            th { "operation" } th.n { "pagepin" } th.n { "limit" } th.n { "Linux" } th.n { "of limit" } th.n { "goal" } th { }
            th.n { "Linux / pagepin" }
        } }
        tbody {
            @for row in &report.rows {
                tr {
                    th scope="row" { (row.title) }
                    td.n { (nanoseconds(row.pagepin)) }
                    td.n { (nanoseconds(row.limit)) }
                    @match &row.linux {
                        Figure::Measured(linux) => td.n { (nanoseconds(*linux)) },
                        Figure::Missing(why) => td.n title=(why) { "–" },
                    }
                    td.n { (format!("{:.2}", row.of_limit)) }
                    td.n { @if let Some(goal) = row.goal { "≤ " (goal) } }
                    (verdict(row.goal.map(|goal| row.of_limit <= goal)))
                    td.n { @if let Some(ratio) = row.of_linux { (thousands(ratio.recip(), 1)) } }
                }
            }
        }
    } } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_never_made_is_said_to_be_missing() {
        let nowhere = Path::new(env!("CARGO_MANIFEST_DIR")).join("nowhere");
        let page = page(&nowhere).unwrap();
        assert_eq!(page.matches("Not measured yet").count(), 2);
        assert!(page.contains("cargo xtask bench --host") && !page.contains("http"));
    }

    #[test]
    fn a_run_of_another_version_is_said_to_be_one() {
        let project = std::env::temp_dir().join(format!("pagepin-bench-page-{}", std::process::id()));
        std::fs::create_dir_all(project.join("target")).unwrap();
        std::fs::write(project.join(host::MEASURED), "{}").unwrap();
        let page = page(&project);
        std::fs::remove_dir_all(&project).unwrap();
        assert!(page.unwrap().contains("Not as this version writes it: reading target/bench-host.json"));
    }
}
