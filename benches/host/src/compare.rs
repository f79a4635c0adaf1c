//! Measuring in turns.

use std::time::Instant;

/// Of each figure, the median of so many rounds counts.
pub(crate) const ROUNDS: usize = 9;
/// In each round every column has so many turns, of which the fastest counts: a turn in which the machine did something else
/// is slower, and none is faster than the code.
const TURNS: usize = 5;

/// What takes a turn: nanoseconds of each of `N` figures that it measures at once.
pub(crate) type Column<'a, const N: usize> = dyn FnMut() -> [f64; N] + 'a;

/// One figure of all columns.
pub(crate) struct Compared {
    /// The median of each column.
    pub(crate) medians: Vec<f64>,
    /// The median of the first column's to each column's, round by round.
    pub(crate) ratios: Vec<f64>,
}

/// Lets the columns take turns.
pub(crate) fn in_turns<const N: usize>(columns: &mut [&mut Column<'_, N>]) -> [Compared; N] {
    in_turns_then(columns, |figures| figures)
}

/// The same; the figures of a column in a round are what `made_of` makes of what was measured.
pub(crate) fn in_turns_then<const M: usize, const N: usize>(
    columns: &mut [&mut Column<'_, M>],
    made_of: fn([f64; M]) -> [f64; N],
) -> [Compared; N] {
    let one = |_| round(columns).into_iter().map(made_of).collect();
    let rounds: Vec<Vec<[f64; N]>> = (0..ROUNDS).map(one).collect();
    std::array::from_fn(|figure| {
        let medians = (0..rounds[0].len()).map(|column| median(rounds.iter().map(|round| round[column][figure])));
        let ratio = |column: usize| median(rounds.iter().map(|round| round[0][figure] / round[column][figure]));
        Compared { medians: medians.collect(), ratios: (0..rounds[0].len()).map(ratio).collect() }
    })
}

fn round<const N: usize>(columns: &mut [&mut Column<'_, N>]) -> Vec<[f64; N]> {
    let mut fastest = vec![[f64::INFINITY; N]; columns.len()];
    for _ in 0..TURNS {
        for (column, best) in columns.iter_mut().zip(&mut fastest) {
            // Once for the caches: they hold what the same column has left there, and not another.
            column();
            let now = column();
            *best = std::array::from_fn(|figure| best[figure].min(now[figure]));
        }
    }
    fastest
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Nanoseconds that `work` takes.
#[inline(always)]
pub(crate) fn nanoseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64
}

#[test]
fn columns_take_turns_and_a_slow_turn_does_not_count() {
    let order = std::cell::RefCell::new(String::new());
    let mut turn = 0;
    let mut slow_at_first = || {
        turn += 1;
        order.borrow_mut().push('a');
        [if turn % TURNS == 0 { 100.0 } else { 2.0 }]
    };
    let mut steady = || {
        order.borrow_mut().push('b');
        [1.0]
    };
    let [compared] = in_turns::<1>(&mut [&mut slow_at_first, &mut steady]);
    assert_eq!((&compared.medians[..], &compared.ratios[..]), (&[2.0, 1.0][..], &[1.0, 2.0][..]));
    assert_eq!(*order.borrow(), "aabb".repeat(ROUNDS * TURNS));
}

#[test]
fn the_median_is_the_one_in_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
}
