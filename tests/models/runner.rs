//! Runs the models and their negative twins, each in a process of its own: both end at their first panic, and a
//! checker's other threads cannot be unwound then.

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use pagepin::model::Safeguard;

use crate::checker::Bound;

/// A scenario that must hold in every execution, and the ways to break the library that it must notice.
#[derive(Clone, Copy)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// How much of it is explored.
    pub(crate) bound: Bound,
    pub(crate) body: fn(),
    pub(crate) twins: &'static [Twin],
}

/// What is taken away, and parts of messages with which the model may then fail.
pub(crate) type Twin = (Safeguard, &'static [&'static str]);

/// Exit status of a process whose model failed: not that of any other panic.
const FAILED: i32 = 3;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);

/// `names` is the list of `names.txt`, which tells what there is before anything is built.
pub(crate) fn main(models: &[Model], names: &str) -> ExitCode {
    assert!(models.iter().map(|model| model.name).eq(names.lines()), "names.txt does not list these models");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--model", name] => run(find(models, name)),
        ["--twin", name, safeguard] => {
            let model = find(models, name);
            let twin = model.twins.iter().find(|(removed, _)| format!("{removed:?}") == safeguard);
            twin.expect("the name of a twin").0.remove();
            run(model)
        }
        _ => {
            let wanted =
                |model: &&Model| arguments.is_empty() || arguments.iter().any(|part| model.name.contains(part));
            run_all(&models.iter().filter(wanted).copied().collect::<Vec<_>>())
        }
    }
}

pub(crate) fn find<'m>(models: &'m [Model], name: &str) -> &'m Model {
    models.iter().find(|model| model.name == name).expect("the name of a model")
}

/// Prints the number of executions, and of a failure the message.
fn run(model: &Model) -> ExitCode {
    end_at_first_panic();
    let body = model.body;
    model.bound.check(move || {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        body();
    });
    println!("{}", EXECUTIONS.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}

/// From now on a panic is printed and ends the process.
pub(crate) fn end_at_first_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Before anything is unwound: the other threads of the execution are in the middle of something.
        report(panic);
        let payload = panic.payload();
        let formatted = payload.downcast_ref::<String>().map(String::as_str);
        let message = formatted.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?");
        let message = message.lines().next().unwrap_or("?");
        println!("{} {message}", EXECUTIONS.load(Ordering::Relaxed));
        std::process::exit(FAILED);
    }));
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
    let process = Process::run(&["--model", model.name]);
    let seconds = start.elapsed().as_secs_f64();
    match (process.status, process.executions()) {
        (Some(0), Some(executions)) => {
            let bound = model.bound.describe();
            let line = format!("{:<36} {executions:>9} executions  {bound} {seconds:>6.1} s", model.name);
            (Outcome { good: true, line }, executions)
        }
        (_, executions) => {
            let place = model.bound.place(executions.unwrap_or(0));
            let (name, repeat) = (model.name, model.bound.repeat(model.name));
            let line = format!("{name:<36} FAILED in {place}\n{}{}{repeat}", process.complained, process.said);
            (Outcome { good: false, line }, 0)
        }
    }
}

fn judge_twin(model: &Model, &(safeguard, expected): &Twin) -> Outcome {
    let name = format!("{safeguard:?}");
    let process = Process::run(&["--twin", model.name, &name]);
    let said = process.said.trim();
    let good = process.status == Some(FAILED) && expected.iter().any(|message| said.contains(message));
    let place = model.bound.place(process.executions().unwrap_or(0));
    let message = said.split_once(' ').map_or("nothing was noticed", |(_, message)| message);
    let verdict = if good { "caught" } else { "NOT CAUGHT AS EXPECTED" };
    Outcome { good, line: format!("          without {name:<24} {verdict} in {place}: {message}") }
}

/// A process that has run one model.
struct Process {
    status: Option<i32>,
    /// Its standard output: a number and perhaps a message.
    said: String,
    /// Its standard error, of interest if a model fails that should not.
    complained: String,
}

impl Process {
    fn run(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let output = Command::new(program).args(arguments).output().expect("this program runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status: output.status.code(), said: text(output.stdout), complained: text(output.stderr) }
    }

    fn executions(&self) -> Option<u64> {
        self.said.split_whitespace().next()?.parse().ok()
    }
}
