//! Every way that a proof can go.

use super::*;
use LockMode::{Compliance, Governance};
use LockVerdict::{Bypassable, Enforced, NotEnforced, Unverifiable};

const END: i64 = 1000;
const BEFORE: Seen = Seen::Deleted { at: END - 1 - CLOCK_UNCERTAINTY_SECONDS };
const WRITTEN: Seen = Seen::Written { has_version: true };

fn ours(mode: LockMode) -> Seen {
    Seen::There(Some(Retention { mode, until: END }))
}

fn no() -> Seen {
    Seen::Refused("403 AccessDenied".to_owned())
}

/// Goes through a proof, and gives where it ends and the steps that it took.
fn go(mode: LockMode, seen: &[Seen]) -> (Next, Vec<Step>) {
    let mut proof = Proof::new(Retention { mode, until: END });
    let mut steps = Vec::new();
    for (at, one) in seen.iter().enumerate() {
        steps.push(proof.step);
        match proof.take(one.clone()) {
            Next::Do(_) => {}
            over => {
                assert_eq!(at + 1, seen.len(), "it was over at {:?}: {over:?}", proof.step);
                return (over, steps);
            }
        }
    }
    (Next::Do(proof.step), steps)
}

#[test]
fn each_course_has_its_verdict() {
    let longer = Seen::There(Some(Retention { mode: Compliance, until: END + 1 }));
    let other_mode = Seen::There(Some(Retention { mode: Compliance, until: END }));
    let waited = Seen::There(None);
    for (mode, seen, expected) in [
        // Compliance is never tried with bypass.
        (
            Compliance,
            vec![WRITTEN, ours(Compliance), no(), ours(Compliance), waited.clone(), BEFORE, Seen::Gone],
            Enforced,
        ),
        (
            Governance,
            vec![
                WRITTEN,
                ours(Governance),
                no(),
                ours(Governance),
                no(),
                ours(Governance),
                waited.clone(),
                BEFORE,
                Seen::Gone,
            ],
            Enforced,
        ),
        (Governance, vec![WRITTEN, ours(Governance), no(), ours(Governance), BEFORE, Seen::Gone], Bypassable),
        (Compliance, vec![WRITTEN, ours(Compliance), BEFORE, Seen::Gone], NotEnforced),
        (Governance, vec![WRITTEN, ours(Governance), BEFORE, Seen::Gone], NotEnforced),
        // It forgot the retention, and deletes: no lock. It forgot it and refuses: nobody knows.
        (Compliance, vec![WRITTEN, Seen::There(None), BEFORE, Seen::Gone], NotEnforced),
        (Compliance, vec![WRITTEN, Seen::There(None), no(), Seen::There(None)], Unverifiable),
        // Locked for longer than was asked: stop.
        (Compliance, vec![WRITTEN, longer.clone(), no(), longer], Unverifiable),
        (Governance, vec![WRITTEN, other_mode.clone(), no(), other_mode.clone(), no(), other_mode], Unverifiable),
        // The control fails: the refusal before it proves nothing.
        (Compliance, vec![WRITTEN, ours(Compliance), no(), ours(Compliance), waited.clone(), no()], Unverifiable),
        // What is answered is not what is done.
        (Compliance, vec![WRITTEN, ours(Compliance), BEFORE, ours(Compliance)], Unverifiable),
        (
            Compliance,
            vec![WRITTEN, ours(Compliance), no(), ours(Compliance), waited, BEFORE, ours(Compliance)],
            Unverifiable,
        ),
        // Not even begun.
        (Compliance, vec![no()], Unverifiable),
        (Compliance, vec![Seen::Written { has_version: false }], Unverifiable),
        (Compliance, vec![WRITTEN, no()], Unverifiable),
        // Locked as it was asked to be, by another clock.
        (Compliance, vec![WRITTEN, Seen::TooLong(END)], Unverifiable),
    ] {
        let (next, _) = go(mode, &seen);
        assert!(matches!(next, Next::Found(verdict, _) if verdict == expected), "{mode}, {seen:?}: {next:?}");
    }
}

#[test]
fn what_says_nothing_interrupts_at_every_step() {
    let whole = [WRITTEN, ours(Governance), no(), ours(Governance), no(), ours(Governance), Seen::Gone, BEFORE];
    for length in 0..=whole.len() {
        let mut seen = whole[..length].to_vec();
        seen.push(Seen::Unclear("no answer".to_owned()));
        let (next, steps) = go(Governance, &seen);
        assert_eq!(next, Next::Interrupted("no answer".to_owned()), "{steps:?}");
    }
}

#[test]
fn an_answer_that_came_after_the_end_is_no_verdict() {
    for late in [END - CLOCK_UNCERTAINTY_SECONDS, END - 1, END, END + 7] {
        let late = Seen::Deleted { at: late };
        for seen in [
            vec![WRITTEN, Seen::TooShort(1)],
            vec![WRITTEN, ours(Governance), late.clone()],
            vec![WRITTEN, ours(Governance), no(), ours(Governance), late],
        ] {
            let (next, _) = go(Governance, &seen);
            assert!(matches!(next, Next::Interrupted(_)), "{seen:?}: {next:?}");
        }
    }
}

#[test]
fn what_somebody_else_removed_is_no_verdict() {
    for seen in [
        vec![WRITTEN, Seen::Gone],
        vec![WRITTEN, ours(Compliance), Seen::Gone],
        vec![WRITTEN, ours(Compliance), no(), Seen::Gone],
        vec![WRITTEN, ours(Compliance), no(), ours(Compliance), Seen::There(None), Seen::Gone],
    ] {
        let (next, _) = go(Compliance, &seen);
        assert!(matches!(next, Next::Interrupted(_)), "{seen:?}: {next:?}");
    }
}

#[test]
fn only_governance_is_tried_with_bypass() {
    for (mode, expected) in [(Compliance, false), (Governance, true)] {
        let there = ours(mode);
        let (_, steps) = go(mode, &[WRITTEN, there.clone(), no(), there, no()]);
        assert_eq!(steps.contains(&Step::Bypass), expected, "{mode}: {steps:?}");
    }
}
