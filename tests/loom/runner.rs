//! Runs the models and their negative twins, each in a process of its own: a twin ends at its first panic, and loom's
//! other threads cannot be unwound then.

use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use pagepin::model::Safeguard;

/// A scenario that must hold in every execution, and the ways to break the library that it must notice.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Most preemptive switches in one execution (switches at a lock or at the end of a thread are free). `None`: all.
    pub(crate) preemptions: Option<usize>,
    pub(crate) body: fn(),
    /// What is taken away, and a part of the message with which the model then fails.
    pub(crate) twins: &'static [(Safeguard, &'static str)],
}

/// What loom says when two accesses to one `UnsafeCell` are not ordered.
pub(crate) const UNORDERED: &str = "Causality violation";

/// Exit status of a twin that failed as it should: not that of a panic.
const CAUGHT: i32 = 3;
/// The most operations of one execution.
const MAX_BRANCHES: usize = 20_000;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

pub(crate) fn main(models: &[Model]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--model", name] => run_model(find(models, name)),
        ["--twin", name, safeguard] => run_twin(find(models, name), safeguard),
        _ => {
            let wanted =
                |model: &&Model| arguments.is_empty() || arguments.iter().any(|part| model.name.contains(part));
            run_all(&models.iter().filter(wanted).copied().collect::<Vec<_>>())
        }
    }
}

fn find<'m>(models: &'m [Model], name: &str) -> &'m Model {
    models.iter().find(|model| model.name == name).expect("the name of a model")
}

fn check(model: &Model) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = MAX_BRANCHES;
    // LOOM_MAX_PREEMPTIONS wins, for longer runs.
    builder.preemption_bound = builder.preemption_bound.or(model.preemptions);
    let body = model.body;
    builder.check(move || {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        body();
    });
}

fn run_model(model: &Model) -> ExitCode {
    check(model);
    println!("{}", EXECUTIONS.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}

fn run_twin(model: &Model, safeguard: &str) -> ExitCode {
    let twin = model.twins.iter().find(|(removed, _)| format!("{removed:?}") == safeguard);
    let &(removed, _) = twin.expect("the name of a twin");
    std::panic::set_hook(Box::new(|panic| {
        // Before anything is unwound: the other threads of the execution are in the middle of something.
        let payload = panic.payload();
        let formatted = payload.downcast_ref::<String>().map(String::as_str);
        let message = formatted.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?");
        let message = message.lines().next().unwrap_or("?");
        println!("{} {message}", EXECUTIONS.load(Ordering::Relaxed));
        std::process::exit(CAUGHT);
    }));
    removed.remove();
    check(model);
    println!("{}", EXECUTIONS.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}

/// The outcome of one process.
struct Outcome {
    good: bool,
    line: String,
}

#[derive(Default)]
struct Totals {
    models: usize,
    executions: u64,
    caught: usize,
    failed: usize,
}

fn run_all(models: &[Model]) -> ExitCode {
    let (start, next, totals) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Totals::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(model) = models.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (outcome, executions) = judge_model(model);
                    let twins: Vec<Outcome> = model.twins.iter().map(|twin| judge_twin(model, twin)).collect();
                    let mut totals = totals.lock().expect("no thread panics with it");
                    totals.models += 1;
                    totals.executions += executions;
                    totals.caught += twins.iter().filter(|twin| twin.good).count();
                    totals.failed += [&outcome].into_iter().chain(&twins).filter(|outcome| !outcome.good).count();
                    println!("[{:>2}/{}] {}", totals.models, models.len(), outcome.line);
                    twins.iter().for_each(|twin| println!("{}", twin.line));
                }
            });
        }
    });
    let Totals { models, executions, caught, failed } = totals.into_inner().expect("no thread panics with it");
    let seconds = start.elapsed().as_secs_f64();
    println!("{models} models, {executions} executions, {caught} twins caught, {failed} failures, {seconds:.0} s");
    if failed == 0 && models != 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn judge_model(model: &Model) -> (Outcome, u64) {
    let start = Instant::now();
    let (status, output) = run_self(&["--model", model.name]);
    let seconds = start.elapsed().as_secs_f64();
    let bound = std::env::var("LOOM_MAX_PREEMPTIONS").ok().or(model.preemptions.map(|most| most.to_string()));
    let bound = bound.map_or("all".to_owned(), |most| format!("<= {most}"));
    match (status, output.trim().parse()) {
        (Some(0), Ok(executions)) => {
            let line =
                format!("{:<36} {executions:>9} executions  preemptions {bound:<5} {seconds:>6.1} s", model.name);
            (Outcome { good: true, line }, executions)
        }
        _ => (Outcome { good: false, line: format!("{:<36} FAILED\n{output}", model.name) }, 0),
    }
}

fn judge_twin(model: &Model, &(safeguard, expected): &(Safeguard, &str)) -> Outcome {
    let name = format!("{safeguard:?}");
    let (status, output) = run_self(&["--twin", model.name, &name]);
    let said = output.trim();
    let good = status == Some(CAUGHT) && said.contains(expected);
    let (executions, message) = said.split_once(' ').unwrap_or((said, "nothing was noticed"));
    let verdict = if good { "caught" } else { "NOT CAUGHT AS EXPECTED" };
    Outcome { good, line: format!("          without {name:<24} {verdict} in execution {executions}: {message}") }
}

/// Exit status and what was printed; what went to standard error goes through.
fn run_self(arguments: &[&str]) -> (Option<i32>, String) {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().expect("this program runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}
