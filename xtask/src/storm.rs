//! `cargo xtask storm`: the kernel's storm for as long as a person likes, run after run, each with the next seed.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::image;
use crate::kernel::{self, Profile};
use crate::screen::{self, Show};
use crate::steps::Steps;

/// Time for booting, and for the run during which the minutes are over.
const MARGIN: Duration = Duration::from_secs(180);

pub(crate) fn run(project: &Path, minutes: u32, seed: Option<u32>) -> Steps {
    let mut steps = Steps::new(project, image::STEPS + 1);
    let Some(image) = image::build(&mut steps, project, Profile::Release) else { return steps };
    let seed = seed.unwrap_or_else(fresh_seed);
    screen::say(format!(
        "storm of {minutes} minutes on 4 CPUs; `cargo xtask storm --seed {seed}` repeats its operations"
    ));
    let limit = Duration::from_secs(u64::from(minutes) * 60) + MARGIN;
    steps.run("storm", Show::All, || kernel::tests(&image, &mode(minutes, seed), limit));
    screen::say(format!("the first seed was {seed}"));
    steps
}

fn mode(minutes: u32, seed: u32) -> String {
    format!("storm:minutes={minutes},seed={seed}")
}

/// Differs from one start to the next, and is short enough to be typed again.
fn fresh_seed() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_millis() % 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_how_long_and_where_to_begin() {
        assert_eq!(mode(3, 17), "storm:minutes=3,seed=17");
    }

    #[test]
    fn fresh_seed_is_short_enough_to_type() {
        assert!(fresh_seed() < 1_000_000_000);
    }
}
