//! Who can serve what: the whole matrix of what is known and what is needed, and what is forgotten.

use super::*;
use crate::policy::Spread;
use proptest::prelude::*;

/// A call that needs these, of at least so many tokens, that wants so many written.
struct Wants(Vec<Capability>, u64, u64);

impl Need for Wants {
    fn needs(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    fn exceeds(&self, window: u64, output: bool) -> bool {
        self.1 + if output { self.2 } else { 0 } > window
    }
}

fn wants(capability: Capability) -> Wants {
    Wants(vec![capability], 10, 0)
}

const MODEL: u64 = 7;

#[test]
fn every_capability_against_what_is_known_of_it() {
    let now = Instant::now();
    for one in Capability::ALL {
        for needed in Capability::ALL {
            for declared in [None, Some(true), Some(false)] {
                for learnt in [false, true] {
                    let mut supports = Supports::default();
                    declared.into_iter().for_each(|can| supports.set(one, can));
                    let mut ability = Ability::new(None, supports, false);
                    if learnt {
                        ability.learn(MODEL, Lack::Of(one), now);
                    }
                    let lack = Lack::Of(one);
                    let expected = match (one == needed, declared, learnt) {
                        (true, Some(false), _) => Some(Missing { lack, sure: true }),
                        (true, _, true) => Some(Missing { lack, sure: false }),
                        _ => None,
                    };
                    assert_eq!(
                        ability.missing(MODEL, &wants(needed), now),
                        expected,
                        "{one:?} {needed:?} {declared:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_window_is_the_least_that_is_known() {
    let now = Instant::now();
    let long = |tokens, output| Wants(Vec::new(), tokens, output);
    let mut ability = Ability::new(Some(8000), Supports::default(), false);
    assert_eq!(ability.missing(MODEL, &long(8000, 0), now), None, "what fits is never passed over");
    let sure = |window| Some(Missing { lack: Lack::Window(Some(window)), sure: true });
    assert_eq!(ability.missing(MODEL, &long(8001, 0), now), sure(8000));
    ability.tell(4000);
    assert_eq!(ability.missing(MODEL, &long(4001, 0), now), sure(4000));
    ability.learn(MODEL, Lack::Window(Some(2000)), now);
    assert_eq!(ability.window(MODEL, now), Some(2000));
    let learnt = Some(Missing { lack: Lack::Window(Some(2000)), sure: false });
    assert_eq!(ability.missing(MODEL, &long(2001, 0), now), learnt);
    assert_eq!(ability.missing(MODEL + 1, &long(2001, 0), now), None, "another model of the same server");
    ability.learn(MODEL, Lack::Window(None), now);
    assert_eq!(ability.window(MODEL, now), Some(2000), "a refusal without a number takes nothing back");

    assert_eq!(ability.missing(MODEL + 1, &long(10, 1 << 20), now), None, "most servers cut what they write");
    let strict = Ability::new(Some(8000), Supports::default(), true);
    assert_eq!(strict.missing(MODEL, &long(10, 7991), now), sure(8000));
    assert_eq!(strict.missing(MODEL, &long(10, 7990), now), None);
}

#[test]
fn what_was_learnt_is_forgotten_and_bounded() {
    let now = Instant::now();
    let mut ability = Ability::default();
    assert!(!ability.is_known());
    ability.learn(MODEL, Lack::Of(Capability::Tools), now);
    assert!(ability.is_known());
    let tools = wants(Capability::Tools);
    assert!(ability.missing(MODEL, &tools, now + BELIEVED - Duration::from_secs(1)).is_some());
    assert_eq!(ability.missing(MODEL, &tools, now + BELIEVED), None);
    for model in 0..1000 {
        ability.learn(model, Lack::Of(Capability::Vision), now);
    }
    assert_eq!(ability.learnt(now).count(), MOST);
    assert_eq!(ability.can(Capability::Vision, 999, now), Some(false));
    assert_eq!(ability.can(Capability::Vision, 0, now), None);
}

#[test]
fn a_refusal_moves_on_only_to_who_may_do_better() {
    let at = |lack| Refused { target: 0, endpoint: 0, lack };
    let long = at(Lack::Window(Some(8000)));
    for (target, endpoint, window, may) in [
        (0, 0, Some(9000), false),
        (0, 1, None, false),
        (0, 1, Some(8000), false),
        (0, 1, Some(8001), true),
        (1, 2, None, true),
        (1, 2, Some(8000), false),
        (1, 2, Some(4000), false),
        (1, 2, Some(16_000), true),
        (1, 0, None, false),
    ] {
        assert_eq!(long.may_be_served_by(target, endpoint, window, None), may, "{target} {endpoint} {window:?}");
    }
    assert!(at(Lack::Window(None)).may_be_served_by(1, 1, Some(4000), None));
    assert!(!at(Lack::Window(None)).may_be_served_by(0, 1, Some(4000), None));
    let tools = at(Lack::Of(Capability::Tools));
    for (target, can, may) in
        [(0, None, false), (0, Some(true), true), (1, None, true), (1, Some(false), false), (1, Some(true), true)]
    {
        assert_eq!(tools.may_be_served_by(target, 1, None, can), may, "{target} {can:?}");
    }
}

proptest! {
    /// Whoever nothing speaks against is asked; whoever something sure speaks against is not; and where somebody could
    /// be asked before what was learnt counted, somebody can be asked after.
    #[test]
    fn nobody_is_passed_over_for_what_was_learnt_alone(
        known in proptest::collection::vec(proptest::option::of(any::<bool>()), 1..6),
        among in 1usize..6,
    ) {
        let lack = Lack::Of(Capability::Tools);
        let targets: Vec<Target> = (0..known.len()).map(|endpoint| Target { endpoints: vec![endpoint], by: Spread::Load }).collect();
        let over = passed_over(&targets, among, |_, endpoint| known[endpoint].map(|sure| Missing { lack, sure }));
        let asked = known.iter().take(among);
        let is_over = |endpoint: usize| over.iter().any(|(one, _)| *one == endpoint);
        for (endpoint, known) in asked.clone().enumerate() {
            prop_assert!(known.is_some() || !is_over(endpoint));
            prop_assert!(*known != Some(true) || is_over(endpoint));
        }
        let all_sure = asked.clone().all(|known| *known == Some(true));
        prop_assert_eq!(over.len() == known.len().min(among), all_sure);
    }
}
