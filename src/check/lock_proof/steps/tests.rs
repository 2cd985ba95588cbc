//! Every course of a proof.

use super::*;
use LockMode::{Compliance, Governance};
use LockVerdict::{Bypassable, Enforced, NotEnforced, Unverifiable};

const END: i64 = 1000;
const ACCEPTED: StepAnswer = StepAnswer::Accepted { at: END - 1 - CLOCK_UNCERTAINTY_SECONDS };
const WRITTEN: StepAnswer = StepAnswer::Written { has_version: true };

fn requested(mode: LockMode) -> StepAnswer {
    there(mode, END)
}

fn there(mode: LockMode, until: i64) -> StepAnswer {
    StepAnswer::Found(Some(Retention { mode, until }))
}

fn refused() -> StepAnswer {
    StepAnswer::Refused("403 AccessDenied".to_owned())
}

/// The first answers of a proof, with this number of refused attempts.
fn after(mode: LockMode, attempts: usize) -> Vec<StepAnswer> {
    let mut seen = vec![WRITTEN, requested(mode)];
    seen.extend((0..attempts).flat_map(|_| [refused(), requested(mode)]));
    seen
}

/// The answers of a proof to the end of the retention.
fn waited(mode: LockMode) -> Vec<StepAnswer> {
    let attempts = if mode == Governance { GOVERNANCE_ATTEMPTS } else { COMPLIANCE_ATTEMPTS };
    let mut seen = after(mode, attempts.len());
    seen.push(StepAnswer::Found(None));
    seen
}

fn with(mut seen: Vec<StepAnswer>, more: impl IntoIterator<Item = StepAnswer>) -> Vec<StepAnswer> {
    seen.extend(more);
    seen
}

/// Runs a proof with these answers. Returns its end and its steps.
fn run(mode: LockMode, seen: &[StepAnswer]) -> (Next, Vec<Step>) {
    let mut proof = Proof::new(Retention { mode, until: END });
    let mut steps = Vec::new();
    for (at, one) in seen.iter().enumerate() {
        steps.push(proof.step);
        match proof.take(one.clone()) {
            Next::Do(_) => {}
            end => {
                assert_eq!(at + 1, seen.len(), "it ended at {:?}: {end:?}", proof.step);
                return (end, steps);
            }
        }
    }
    (Next::Do(proof.step), steps)
}

#[test]
fn each_course_of_a_proof_has_its_verdict() {
    let longer = there(Compliance, END + 1);
    let other_mode = there(Compliance, END);
    for (mode, seen, expected) in [
        (Compliance, with(waited(Compliance), [ACCEPTED, StepAnswer::NotFound]), Enforced),
        (Governance, with(waited(Governance), [ACCEPTED, StepAnswer::NotFound]), Enforced),
        (Governance, with(after(Governance, 3), [ACCEPTED, StepAnswer::NotFound]), Bypassable),
        (Compliance, with(after(Compliance, 0), [ACCEPTED, StepAnswer::NotFound]), NotEnforced),
        (Governance, with(after(Governance, 0), [ACCEPTED, StepAnswer::NotFound]), NotEnforced),
        // The service forgot the retention, and deletes the version or not.
        (Compliance, vec![WRITTEN, StepAnswer::Found(None), ACCEPTED, StepAnswer::NotFound], NotEnforced),
        (Compliance, vec![WRITTEN, StepAnswer::Found(None), refused(), StepAnswer::Found(None)], Unverifiable),
        // Locked for longer than requested: stop.
        (Compliance, vec![WRITTEN, longer.clone(), refused(), longer], Unverifiable),
        (
            Governance,
            vec![WRITTEN, other_mode.clone(), refused(), other_mode.clone(), refused(), other_mode],
            Unverifiable,
        ),
        // The control is refused: the earlier refusals prove nothing.
        (Compliance, with(waited(Compliance), [refused()]), Unverifiable),
        // The service accepts a DELETE and does not execute it.
        (Compliance, with(after(Compliance, 0), [ACCEPTED, requested(Compliance)]), Unverifiable),
        (Compliance, with(waited(Compliance), [ACCEPTED, requested(Compliance)]), Unverifiable),
        // Not even started.
        (Compliance, vec![refused()], Unverifiable),
        (Compliance, vec![StepAnswer::Written { has_version: false }], Unverifiable),
        (Compliance, vec![WRITTEN, refused()], Unverifiable),
        // Locked as requested, by another clock.
        (Compliance, vec![WRITTEN, StepAnswer::TooLong(END)], Unverifiable),
    ] {
        let (next, _) = run(mode, &seen);
        assert!(matches!(next, Next::Found(verdict, _) if verdict == expected), "{mode}, {seen:?}: {next:?}");
    }
}

#[test]
fn lock_proof_tells_a_weakened_lock_from_a_bypassed_one() {
    for (mode, attempts, found, expected, words) in [
        (Compliance, 1, there(Compliance, END - 1), NotEnforced, "shorter retention"),
        (Compliance, 2, StepAnswer::Found(None), NotEnforced, "lost its retention"),
        (Compliance, 3, there(Governance, END), NotEnforced, "changed to GOVERNANCE"),
        (Governance, 1, there(Governance, END - 1), NotEnforced, "shorter retention"),
        (Governance, 2, StepAnswer::Found(None), NotEnforced, "lost its retention"),
        (Governance, 4, there(Governance, END - 1), Bypassable, "shorter retention, with the bypass"),
        (Governance, 5, StepAnswer::Found(None), Bypassable, "lost its retention before it ended, with the bypass"),
    ] {
        // Some services answer with an error and change the retention.
        for answer in [ACCEPTED, refused()] {
            let (next, _) = run(mode, &with(after(mode, attempts), [answer, found.clone()]));
            assert!(
                matches!(&next, Next::Found(verdict, why) if *verdict == expected && why.contains(words)),
                "{mode}, {words}: {next:?}"
            );
        }
    }
}

#[test]
fn lock_proof_continues_when_an_accepted_change_weakens_nothing() {
    for (mode, attempts, found) in [
        (Compliance, 1, requested(Compliance)),
        (Compliance, 1, there(Compliance, END + 60)),
        (Governance, 1, there(Compliance, END)),
    ] {
        let (next, _) = run(mode, &with(after(mode, attempts), [ACCEPTED, found]));
        assert!(matches!(next, Next::Do(Step::Try(_))), "{mode}: {next:?}");
    }
}

#[test]
fn proof_is_interrupted_at_every_step_by_an_unclear_answer() {
    let whole = with(waited(Governance), [ACCEPTED]);
    for length in 0..=whole.len() {
        let seen = with(whole[..length].to_vec(), [StepAnswer::Unclear("no answer".to_owned())]);
        let (next, steps) = run(Governance, &seen);
        assert_eq!(next, Next::Interrupted("no answer".to_owned()), "{steps:?}");
    }
}

#[test]
fn lock_proof_is_interrupted_when_an_attempt_may_be_late() {
    assert!(matches!(run(Governance, &[WRITTEN, StepAnswer::TooShort(1)]).0, Next::Interrupted(_)));
    for at in [END - CLOCK_UNCERTAINTY_SECONDS, END - 1, END, END + 7] {
        for (mode, attempts) in [(Governance, GOVERNANCE_ATTEMPTS), (Compliance, COMPLIANCE_ATTEMPTS)] {
            for earlier in 0..attempts.len() {
                let (next, _) = run(mode, &with(after(mode, earlier), [StepAnswer::Accepted { at }]));
                assert!(matches!(next, Next::Interrupted(_)), "{mode} {earlier}: {next:?}");
            }
        }
    }
}

#[test]
fn proof_is_interrupted_when_another_program_removes_the_canary() {
    for seen in [
        vec![WRITTEN, StepAnswer::NotFound],
        with(after(Compliance, 0), [StepAnswer::NotFound]),
        with(after(Compliance, 0), [refused(), StepAnswer::NotFound]),
        with(after(Compliance, 1), [ACCEPTED, StepAnswer::NotFound]),
        with(waited(Compliance), [StepAnswer::NotFound]),
    ] {
        let (next, _) = run(Compliance, &seen);
        assert!(matches!(next, Next::Interrupted(_)), "{seen:?}: {next:?}");
    }
}

#[test]
fn lock_proof_tries_the_attempts_that_its_mode_allows() {
    for (mode, has_bypass) in [(Compliance, false), (Governance, true)] {
        let (next, steps) = run(mode, &waited(mode));
        assert_eq!(next, Next::Do(Step::Control));
        let tried = |wanted: &dyn Fn(&Attempt) -> bool| {
            steps.iter().any(|step| matches!(step, Step::Try(attempt) if wanted(attempt)))
        };
        assert_eq!(tried(&|attempt| attempt.bypass), has_bypass, "{mode}: {steps:?}");
        assert_eq!(tried(&|attempt| attempt.action == Action::ChangeMode), !has_bypass, "{mode}: {steps:?}");
    }
}
