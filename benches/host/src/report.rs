//! What was measured, as it is written down.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    /// The processor's name.
    pub(crate) processor: String,
    /// The host's kernel.
    pub(crate) kernel: String,
    /// How many programs wanted to run, on average over a minute, when this began.
    pub(crate) load: f64,
    pub(crate) cpus: usize,
    /// How the host pins user memory here.
    pub(crate) pins_by: String,
    /// Each figure is the median of so many rounds, in which all columns take turns.
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
    pub(crate) scaling: Scaling,
    /// How long the mm lock is held at a time.
    #[serde(default)]
    pub(crate) holds: Vec<Hold>,
}

/// The longest section of the mm lock in an operation.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Hold {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) microseconds: f64,
    /// What it should stay at or below.
    pub(crate) goal: f64,
}

/// One operation, in nanoseconds.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) title: String,
    /// What a figure is for, such as `page`.
    pub(crate) unit: String,
    pub(crate) pagepin: f64,
    pub(crate) limit: f64,
    pub(crate) linux: Figure,
    /// The median of pagepin's to the limit's, round by round.
    pub(crate) of_limit: f64,
    /// The same of pagepin's to Linux's.
    pub(crate) of_linux: Option<f64>,
    /// What `of_limit` should stay at or below.
    pub(crate) goal: Option<f64>,
    pub(crate) contains: Contains,
}

/// What each column of a row contains.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Contains {
    pub(crate) pagepin: String,
    pub(crate) limit: String,
    pub(crate) linux: String,
}

/// A figure, or why there is none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    Measured(f64),
    Missing(String),
}

/// Two threads on two CPUs, in multiples of what one of them gets done alone.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Scaling {
    /// What two threads get done that share nothing and touch no memory; below [`Scaling::needed`] nothing else means anything.
    pub(crate) control: f64,
    pub(crate) needed: f64,
    pub(crate) rows: Vec<ScalingRow>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ScalingRow {
    pub(crate) key: String,
    pub(crate) title: String,
    pub(crate) times: Figure,
    /// What `times` should reach.
    pub(crate) goal: Option<f64>,
    pub(crate) contains: String,
}
