//! Fewer steps that fail as well.

use super::steps::{Step, Trouble};

/// The most attempts with fewer steps.
const ATTEMPTS_MAX: u32 = 600;

/// Failure of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The index of the step; their number if it was the comparison at the end.
    pub(super) at: usize,
    /// The reason, for the user.
    pub(super) why: String,
}

/// Another run with some of the steps.
type Run<'r, I> = dyn FnMut(&[Step<I>]) -> Result<(), Failure> + 'r;

/// Leaves out steps, and makes troubles simpler, while `run` still fails.
pub(super) fn shrink<'r, I: Clone>(
    steps: Vec<Step<I>>,
    failure: Failure,
    run: &'r mut Run<'r, I>,
) -> (Vec<Step<I>>, Failure) {
    let mut shrinking = Shrinking {
        steps,
        failure,
        attempts: 0,
        run,
    };
    let needed = shrinking.failure.at.saturating_add(1);
    if needed < shrinking.steps.len() {
        shrinking.attempt(shrinking.steps[..needed].to_vec());
    }
    while shrinking.attempts < ATTEMPTS_MAX && (shrinking.leave_out() | shrinking.simplify()) {}
    (shrinking.steps, shrinking.failure)
}

struct Shrinking<'r, I> {
    /// The fewest that failed so far.
    steps: Vec<Step<I>>,
    failure: Failure,
    attempts: u32,
    run: &'r mut Run<'r, I>,
}

impl<I: Clone> Shrinking<'_, I> {
    /// Takes `steps` if they fail.
    fn attempt(&mut self, steps: Vec<Step<I>>) -> bool {
        if self.attempts >= ATTEMPTS_MAX {
            return false;
        }
        self.attempts += 1;
        match (self.run)(&steps) {
            Ok(()) => false,
            Err(failure) => {
                self.steps = steps;
                self.failure = failure;
                true
            }
        }
    }

    /// Leaves out long pieces, then shorter ones; `true` if any could go.
    fn leave_out(&mut self) -> bool {
        let mut is_less = false;
        let mut length = self.steps.len().div_ceil(2);
        while length > 0 {
            let mut from = 0;
            while from < self.steps.len() {
                let to = self.steps.len().min(from + length);
                let mut fewer = self.steps.clone();
                fewer.drain(from..to);
                match self.attempt(fewer) {
                    true => is_less = true,
                    false => from = to,
                }
            }
            length /= 2;
        }
        is_less
    }

    /// Makes each trouble as simple as it can be; `true` if any became simpler.
    fn simplify(&mut self) -> bool {
        let mut is_simpler = false;
        for index in 0..self.steps.len() {
            let Some(Step::Trouble(trouble)) = self.steps.get(index) else {
                continue;
            };
            for simpler in Trouble::simpler(*trouble) {
                let mut steps = self.steps.clone();
                steps[index] = Step::Trouble(simpler);
                if self.attempt(steps) {
                    is_simpler = true;
                    break;
                }
            }
        }
        is_simpler
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::bed::crash_test::steps::Death;

    fn is_send(step: &Step<u32>) -> bool {
        matches!(step, Step::Send(_))
    }

    #[test]
    fn what_does_not_matter_is_left_out() {
        // It fails where 3 comes before a death that comes before 7.
        let run = |steps: &[Step<u32>]| {
            let place = |wanted: &Step<u32>| steps.iter().position(|step| step == wanted);
            let death = steps.iter().position(|step| {
                matches!(step, Step::Trouble(Trouble::Death(_) | Trouble::Workers(_)))
            });
            match (place(&Step::Send(3)), death, place(&Step::Send(7))) {
                (Some(before), Some(death), Some(at)) if before < death && death < at => {
                    Err(Failure {
                        at,
                        why: "it fails".to_owned(),
                    })
                }
                _ => Ok(()),
            }
        };
        let mut steps: Vec<Step<u32>> = (0..10).map(Step::Send).collect();
        steps.insert(5, Step::Trouble(Trouble::Workers(3)));
        steps.insert(6, Step::Work(4));
        steps.insert(2, Step::Trouble(Trouble::FullDisk(9)));
        let failure = run(&steps).unwrap_err();
        let (fewer, _) = shrink(steps, failure, &mut { run });
        let death = Step::Trouble(Trouble::Death(Death::PLAIN));
        assert_eq!(fewer, [Step::Send(3), death, Step::Send(7)]);
        assert_eq!(fewer.iter().filter(|step| is_send(step)).count(), 2);
    }

    #[test]
    fn what_always_fails_needs_no_steps() {
        let run = |_: &[Step<u32>]| {
            Err(Failure {
                at: 0,
                why: "always".to_owned(),
            })
        };
        let steps = (0..100).map(Step::Send).collect();
        let failure = run(&[]).unwrap_err();
        assert!(shrink(steps, failure, &mut { run }).0.is_empty());
    }

    #[test]
    fn a_failure_that_does_not_come_again_is_kept_as_it_was() {
        let steps: Vec<Step<u32>> = (0..5).map(Step::Send).collect();
        let failure = Failure {
            at: 5,
            why: "once".to_owned(),
        };
        let shrunk = shrink(steps.clone(), failure.clone(), &mut |_| Ok(()));
        assert_eq!(shrunk, (steps, failure));
    }
}
