//! A budget that is charged for a frame once: by the pin that is its first, until the one that is its last.

use pagepin::PinBudget;

use super::Case;

pub(super) const CASE: Case = Case {
    idea: "a frame is charged once, by its first pin",
    source: "trials for this library",
    test: "charging_the_first_pin_leaves_pins_that_nobody_paid_for",
    idea_fails: || by_rule(Rule::FirstAndLast).or_else(|| by_rule(Rule::FirstUndone)),
    ours_fails: || by_rule(Rule::EachPin).or_else(budget_is_exact),
    instead: "each pin is charged",
};

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    /// The step from 0 to 1 charges, that from 1 to 0 refunds.
    FirstAndLast,
    /// A walker that undoes its pin refunds what it has charged.
    FirstUndone,
    EachPin,
}

/// Count of the frame, charge of A and of B.
#[derive(Clone, Copy, Default)]
struct State {
    pins: u32,
    charged: [i32; 2],
    first: [bool; 2],
}

/// B's walker has an old entry of a frame that is A's now: it pins, sees that the entry has changed, and undoes that. A pins, and
/// unpins. Each does so in two steps, and every order of them is tried.
fn by_rule(rule: Rule) -> Option<String> {
    (0..1u32 << 4).filter(|order| order.count_ones() == 2).find_map(|order| {
        let (mut state, mut steps) = (State::default(), [0, 0]);
        for turn in 0..4 {
            let who = (order >> turn & 1) as usize;
            if steps[who] == 0 {
                state.first[who] = state.pins == 0;
                state.pins += 1;
                state.charged[who] += i32::from(state.first[who] || rule == Rule::EachPin);
            } else {
                state.pins -= 1;
                let refunds = match rule {
                    Rule::FirstAndLast => state.pins == 0,
                    Rule::FirstUndone => {
                        if who == 1 {
                            state.first[1]
                        } else {
                            state.pins == 0
                        }
                    }
                    Rule::EachPin => true,
                };
                state.charged[who] -= i32::from(refunds);
            }
            steps[who] += 1;
            if (steps == [1, 0] || steps == [1, 2]) && state.charged[0] == 0 {
                return Some(
                    "while a walker with an old entry holds the frame for a moment, its owner pins it for nothing"
                        .to_owned(),
                );
            }
        }
        (state.charged != [0, 0]).then(|| format!("charges do not balance: {:?}", state.charged))
    })
}

/// The library's own limit, over the same: two pins of one frame are two.
fn budget_is_exact() -> Option<String> {
    let budget = pagepin::PinLimit::new(2);
    let term = pagepin::PinTerm::Long;
    let (first, second, third) = (budget.charge(1, term), budget.charge(1, term), budget.charge(1, term));
    budget.uncharge(2, term);
    let exact = first.is_ok() && second.is_ok() && third.is_err() && budget.used() == 0;
    (!exact).then(|| "the limit is not exact".to_owned())
}
