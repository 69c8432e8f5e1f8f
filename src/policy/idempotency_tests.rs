//! Keys against a list that is searched from end to end, and the bounds of what is kept.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(10);
const MEMORY: usize = 1000;

fn hash(number: u8) -> Hash {
    [number; 32]
}

fn keys() -> Idempotency<u64> {
    Idempotency::new(IdempotencySettings { ttl: TTL, max_memory: MEMORY })
}

fn lead(keys: &mut Idempotency<u64>, key: u8, now: Instant) -> Ticket {
    match keys.ask(hash(key), hash(0), now, || u64::from(key)) {
        Verdict::Lead(ticket, _) => ticket,
        other => panic!("{other:?}"),
    }
}

fn ask(keys: &mut Idempotency<u64>, key: u8, request: u8, now: Instant) -> Verdict<u64> {
    keys.ask(hash(key), hash(request), now, || 99)
}

#[test]
fn a_key_s_life() {
    let (mut keys, now) = (keys(), Instant::now());
    let ticket = lead(&mut keys, 1, now);
    assert_eq!(ask(&mut keys, 1, 0, now), Verdict::Join(ticket, 1));
    assert_eq!(ask(&mut keys, 1, 7, now), Verdict::Conflict(Conflict::OtherRequest));
    assert!(keys.grow(ticket, 100));
    keys.finish(ticket, now);
    keys.remove(ticket);
    assert_eq!(ask(&mut keys, 1, 0, now + TTL - Duration::from_millis(1)), Verdict::Replay(1));
    assert_eq!(ask(&mut keys, 1, 7, now), Verdict::Conflict(Conflict::OtherRequest));
    assert_eq!(keys.held(), 100);
    assert!(matches!(ask(&mut keys, 1, 7, now + TTL), Verdict::Lead(_, 99)), "its time is over");
    assert_eq!((keys.held(), keys.dropped()), (0, vec![1]));
}

#[test]
fn a_failure_is_nobody_s_answer() {
    let (mut keys, now) = (keys(), Instant::now());
    let failed = lead(&mut keys, 1, now);
    assert!(keys.grow(failed, 100));
    keys.remove(failed);
    let next = lead(&mut keys, 1, now);
    keys.remove(failed);
    keys.finish(failed, now);
    assert!(!keys.grow(failed, 1), "what is over changes nothing any more");
    assert_eq!(ask(&mut keys, 1, 0, now), Verdict::Join(next, 1));
    keys.finish(next, now);
    assert_eq!(keys.held(), 0);
}

#[test]
fn nobody_joins_what_is_being_taken_down_and_nobody_replaces_it_before_it_is_gone() {
    let (mut keys, now) = (keys(), Instant::now());
    let left = lead(&mut keys, 1, now);
    keys.abandon(left);
    assert_eq!(ask(&mut keys, 1, 0, now), Verdict::Wait(1));
    assert_eq!(ask(&mut keys, 1, 7, now), Verdict::Wait(1));
    keys.remove(left);
    assert!(matches!(ask(&mut keys, 1, 7, now), Verdict::Lead(..)));
}

#[test]
fn what_outgrows_its_share_cannot_be_joined_or_given_again() {
    let (mut keys, now) = (keys(), Instant::now());
    let long = lead(&mut keys, 1, now);
    assert!(keys.grow(long, MEMORY / SHARE));
    assert!(!keys.grow(long, 1));
    keys.close(long, 40);
    assert_eq!(keys.held(), 40);
    assert_eq!(ask(&mut keys, 1, 0, now), Verdict::Conflict(Conflict::TooLong));
    assert_eq!(ask(&mut keys, 1, 7, now), Verdict::Conflict(Conflict::OtherRequest));
    keys.finish(long, now);
    assert_eq!(keys.held(), 0);
    assert!(matches!(ask(&mut keys, 1, 0, now), Verdict::Lead(..)));
}

#[test]
fn the_oldest_answers_make_room_and_what_runs_does_not() {
    let (mut keys, now) = (keys(), Instant::now());
    for key in 1..=4 {
        let ticket = lead(&mut keys, key, now);
        assert!(keys.grow(ticket, 240));
        if key <= 2 {
            keys.finish(ticket, now + Duration::from_secs(u64::from(key)));
        }
    }
    let fifth = lead(&mut keys, 5, now);
    assert!(keys.grow(fifth, 60));
    assert!(keys.grow(fifth, 60));
    assert_eq!(keys.dropped(), [1]);
    assert_eq!(ask(&mut keys, 2, 0, now), Verdict::Replay(2));
    let sixth = lead(&mut keys, 6, now);
    assert!(keys.grow(sixth, 250));
    assert_eq!(keys.dropped(), [2]);
    let seventh = lead(&mut keys, 7, now);
    assert!(!keys.grow(seventh, 200), "only what runs is left");
}

#[test]
fn the_number_of_keys_is_bounded() {
    let (mut keys, now) = (keys(), Instant::now());
    let key = |number: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    };
    let ask = |number, keys: &mut Idempotency<u64>| keys.ask(key(number), hash(0), now, || 0);
    let Verdict::Lead(first, _) = ask(0, &mut keys) else { panic!("the first executes") };
    for number in 1..MAX_KEYS {
        assert!(matches!(ask(number, &mut keys), Verdict::Lead(..)));
    }
    assert_eq!(ask(MAX_KEYS, &mut keys), Verdict::Conflict(Conflict::Full));
    keys.finish(first, now);
    assert!(matches!(ask(MAX_KEYS, &mut keys), Verdict::Lead(..)), "an answer made room");
    assert_eq!(keys.len(), MAX_KEYS);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u8, u8),
    Grow(usize, usize),
    Close(usize, usize),
    Finish(usize),
    Abandon(usize),
    Remove(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..4u8, 0..2u8).prop_map(|(key, request)| Step::Ask(key, request)),
        4 => (0..8usize, 0..300usize).prop_map(|(which, bytes)| Step::Grow(which, bytes)),
        1 => (0..8usize, 0..300usize).prop_map(|(which, held)| Step::Close(which, held)),
        3 => (0..8usize).prop_map(Step::Finish),
        1 => (0..8usize).prop_map(Step::Abandon),
        2 => (0..8usize).prop_map(Step::Remove),
        1 => (0..12u64).prop_map(Step::Pass),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Closed,
    Ending,
    Done(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Known {
    ticket: Ticket,
    request: Hash,
    held: usize,
    phase: Phase,
}

/// Everything known, in the order in which it finished or else came; searched from end to end.
#[derive(Default)]
struct Model(Vec<Known>);

impl Model {
    fn held(&self) -> usize {
        self.0.iter().map(|known| known.held).sum()
    }

    fn running(&mut self, ticket: Ticket) -> Option<usize> {
        self.0.iter().position(|known| known.ticket == ticket && !matches!(known.phase, Phase::Done(_)))
    }

    fn expect(&mut self, key: Hash, request: Hash, now: Instant) -> Option<Verdict<u64>> {
        self.0.retain(|known| !matches!(known.phase, Phase::Done(until) if until <= now));
        let known = self.0.iter().find(|known| known.ticket.key == key)?;
        let number = known.ticket.number;
        Some(match known.phase {
            Phase::Ending => Verdict::Wait(number),
            _ if known.request != request => Verdict::Conflict(Conflict::OtherRequest),
            Phase::Open => Verdict::Join(known.ticket, number),
            Phase::Closed => Verdict::Conflict(Conflict::TooLong),
            Phase::Done(_) => Verdict::Replay(number),
        })
    }

    fn grow(&mut self, ticket: Ticket, bytes: usize) -> bool {
        let Some(at) = self.running(ticket) else { return false };
        if self.0[at].phase != Phase::Open || self.0[at].held + bytes > MEMORY / SHARE {
            return false;
        }
        while self.held() + bytes > MEMORY {
            let Some(oldest) = self.0.iter().position(|known| matches!(known.phase, Phase::Done(_))) else {
                return false;
            };
            self.0.remove(oldest);
        }
        let at = self.running(ticket).unwrap();
        self.0[at].held += bytes;
        true
    }
}

proptest! {
    #[test]
    fn keys_turn_out_as_in_a_list(steps in prop::collection::vec(step(), 1..200)) {
        let (mut keys, mut model, mut now) = (keys(), Model::default(), Instant::now());
        let mut tickets: Vec<Ticket> = Vec::new();
        for step in steps {
            let pick = |which: usize| tickets.iter().rev().nth(which).copied();
            match step {
                Step::Ask(key, request) => {
                    let number = tickets.len() as u64;
                    let seen = keys.ask(hash(key), hash(request), now, || number);
                    match (model.expect(hash(key), hash(request), now), seen) {
                        (Some(expected), seen) => prop_assert_eq!(seen, expected),
                        (None, Verdict::Lead(ticket, kept)) => {
                            prop_assert_eq!(kept, number);
                            tickets.push(ticket);
                            let request = hash(request);
                            model.0.push(Known { ticket, request, held: 0, phase: Phase::Open });
                        }
                        (None, other) => prop_assert!(false, "nothing stands in its way: {other:?}"),
                    }
                }
                Step::Grow(which, bytes) => if let Some(ticket) = pick(which) {
                    prop_assert_eq!(keys.grow(ticket, bytes), model.grow(ticket, bytes));
                },
                Step::Close(which, held) => if let Some(ticket) = pick(which) {
                    keys.close(ticket, held);
                    if let Some(at) = model.running(ticket) {
                        let known = &mut model.0[at];
                        known.held = known.held.min(held);
                        if known.phase == Phase::Open { known.phase = Phase::Closed; }
                    }
                },
                Step::Finish(which) => if let Some(ticket) = pick(which) {
                    keys.finish(ticket, now);
                    if let Some(at) = model.running(ticket) {
                        let known = model.0.remove(at);
                        if known.phase == Phase::Open {
                            model.0.push(Known { phase: Phase::Done(now + TTL), ..known });
                        }
                    }
                },
                Step::Abandon(which) => if let Some(ticket) = pick(which) {
                    keys.abandon(ticket);
                    if let Some(at) = model.running(ticket) { model.0[at].phase = Phase::Ending; }
                },
                Step::Remove(which) => if let Some(ticket) = pick(which) {
                    keys.remove(ticket);
                    if let Some(at) = model.running(ticket) { model.0.remove(at); }
                },
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    let next = keys.expire(now);
                    model.0.retain(|known| !matches!(known.phase, Phase::Done(until) if until <= now));
                    let ends = model.0.iter().filter_map(|known| match known.phase {
                        Phase::Done(until) => Some(until),
                        _ => None,
                    });
                    prop_assert_eq!(next, ends.min());
                }
            }
            prop_assert!(keys.held() <= MEMORY);
            prop_assert_eq!((keys.held(), keys.len()), (model.held(), model.0.len()));
        }
    }
}
