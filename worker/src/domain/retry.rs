//! Whether and when a failed attempt is tried again.

use std::time::Duration;

use super::error_class::ErrorClass;

/// Waits between attempts, in seconds; the last one repeats. Twenty-one of them stay below the
/// eight hours that one task may spend waiting.
const SCHEDULE_S: [u64; 8] = [5, 10, 30, 60, 300, 600, 900, 1_800];

/// Uncharged waits (rate limits, attempts that could not begin) that one task may take before they
/// count as failure.
const UNCHARGED_MAX: i16 = 21;

/// Nobody waits longer, whatever a provider says.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What to do with a task whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after the wait; `charged` says whether the attempt counts against the maximum.
    Again {
        /// How long to wait.
        wait: Duration,
        /// Whether the attempt is used up.
        charged: bool,
    },
    /// The task has failed.
    GiveUp,
}

/// The facts a decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    /// Number of the attempt that failed, from 1.
    pub attempt: i16,
    /// How many of the attempts so far did not count.
    pub uncharged: i16,
    /// How many counted attempts the task may have.
    pub max_attempts: i16,
}

/// Decide. `jitter` in 0..1 spreads waits over ±20 %; `asked` is the provider's own wish.
pub fn decide(
    class: ErrorClass,
    tries: Tries,
    asked: Option<Duration>,
    jitter: f64,
) -> RetryDecision {
    if !class.retryable() {
        return RetryDecision::GiveUp;
    }
    if class == ErrorClass::RateLimited {
        return give_back(tries, asked, jitter);
    }
    let spent = tries.attempt.saturating_sub(tries.uncharged);
    if spent >= tries.max_attempts {
        return RetryDecision::GiveUp;
    }
    RetryDecision::Again {
        wait: wait(tries, asked, jitter),
        charged: true,
    }
}

/// The same for an attempt that does not count. Not for ever: what never counts never ends.
pub fn give_back(tries: Tries, asked: Option<Duration>, jitter: f64) -> RetryDecision {
    if tries.uncharged >= UNCHARGED_MAX {
        return RetryDecision::GiveUp;
    }
    RetryDecision::Again {
        wait: wait(tries, asked, jitter),
        charged: false,
    }
}

/// The same for an attempt that only waits for its provider, which says how long; whether it waits for ever
/// was decided where the provider was asked.
pub fn go_on(wait: Duration) -> RetryDecision {
    RetryDecision::Again {
        wait: wait.min(LONGEST),
        charged: false,
    }
}

fn wait(tries: Tries, asked: Option<Duration>, jitter: f64) -> Duration {
    let step = usize::try_from(tries.attempt.max(1) - 1)
        .unwrap_or(0)
        .min(SCHEDULE_S.len() - 1);
    let planned = SCHEDULE_S[step] as f64 * (0.8 + 0.4 * jitter.clamp(0.0, 1.0));
    Duration::from_secs_f64(planned).max(asked.unwrap_or_default().min(LONGEST))
}

/// The text of a failure that would be tried again if the task's deadline did not come first.
pub fn too_late(failure: &str) -> String {
    format!("{failure} (not tried again: the task's deadline comes before the next attempt)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Tries = Tries {
        attempt: 1,
        uncharged: 0,
        max_attempts: 3,
    };

    #[test]
    fn a_refusal_is_never_retried() {
        assert_eq!(
            decide(ErrorClass::Refused, FIRST, None, 0.5),
            RetryDecision::GiveUp
        );
    }

    #[test]
    fn a_rate_limit_waits_as_asked_and_costs_no_attempt() {
        let asked = Some(Duration::from_secs(90));
        let again = RetryDecision::Again {
            wait: Duration::from_secs(90),
            charged: false,
        };
        assert_eq!(decide(ErrorClass::RateLimited, FIRST, asked, 0.5), again);
    }

    #[test]
    fn what_does_not_count_ends_all_the_same() {
        let again = |uncharged| {
            let tries = Tries {
                attempt: uncharged + 1,
                uncharged,
                max_attempts: 1,
            };
            give_back(tries, None, 0.5)
        };
        let five = RetryDecision::Again {
            wait: Duration::from_secs(5),
            charged: false,
        };
        assert_eq!(again(0), five);
        assert_eq!(again(UNCHARGED_MAX), RetryDecision::GiveUp);
    }

    #[test]
    fn the_last_attempt_gives_up_and_interrupted_ones_do_not_count() {
        let last = Tries {
            attempt: 3,
            uncharged: 0,
            max_attempts: 3,
        };
        assert_eq!(
            decide(ErrorClass::Protocol, last, None, 0.5),
            RetryDecision::GiveUp
        );
        let interrupted_once = Tries {
            uncharged: 1,
            ..last
        };
        assert!(matches!(
            decide(ErrorClass::Protocol, interrupted_once, None, 0.5),
            RetryDecision::Again { charged: true, .. }
        ));
    }

    #[test]
    fn a_silly_retry_after_is_bounded_to_a_day() {
        let asked = Some(Duration::from_secs(1_769_506_040));
        let again = RetryDecision::Again {
            wait: Duration::from_secs(24 * 3_600),
            charged: false,
        };
        assert_eq!(decide(ErrorClass::RateLimited, FIRST, asked, 0.5), again);
    }

    #[test]
    fn waits_grow_and_spread() {
        let at = |attempt, jitter| {
            decide(
                ErrorClass::Internal,
                Tries {
                    attempt,
                    uncharged: 0,
                    max_attempts: 100,
                },
                None,
                jitter,
            )
        };
        let wait = |s: f64| RetryDecision::Again {
            wait: Duration::from_secs_f64(s),
            charged: true,
        };
        assert_eq!(
            [at(1, 0.5), at(2, 0.5), at(90, 0.5)],
            [wait(5.0), wait(10.0), wait(1_800.0)]
        );
        assert_eq!([at(1, 0.0), at(1, 1.0)], [wait(4.0), wait(6.0)]);
    }
}
