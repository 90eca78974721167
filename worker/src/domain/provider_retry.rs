//! Whether a request to a provider that failed is made again, and where the wait is spent.

use std::time::Duration;

/// Waits between requests, in seconds; the last one repeats.
const SCHEDULE_S: [u64; 8] = [5, 10, 30, 60, 300, 600, 900, 1_800];

/// So many waits are 27,105 s, and one more would be over the eight hours that a task may spend.
const WAITS_MAX: usize = 21;

/// A longer wait gives the slot back to somebody who can use it.
pub const HERE_MAX: Duration = Duration::from_secs(60);

/// Nobody waits longer, whatever a provider says.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// What to do after a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Wait, and ask again.
    Here(Duration),
    /// Give the slot back, and go on after this time.
    GiveBack(Duration),
    /// It is over.
    GiveUp,
}

/// What is known of the waits of a task so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Requests of this attempt that failed, one after the other.
    pub failed: u32,
    /// Attempts of the task that gave their slot back.
    pub given_back: u32,
}

/// Decide. `asked` is what the provider said; `jitter` in 0..1 spreads the schedule over ±20 %, but
/// never below what was asked.
pub fn decide(waits: Waits, asked: Option<Duration>, jitter: f64) -> Patience {
    // An attempt that goes on after a long wait goes on in the schedule, too.
    let before = match waits.given_back {
        0 => 0,
        given_back => IN_PLACE + given_back as usize,
    };
    let at = before + (waits.failed.max(1) - 1) as usize;
    if at >= WAITS_MAX {
        return Patience::GiveUp;
    }
    let planned = SCHEDULE_S[at.min(SCHEDULE_S.len() - 1)] as f64;
    let planned = Duration::from_secs_f64(planned * (0.8 + 0.4 * jitter.clamp(0.0, 1.0)));
    let wait = planned.max(asked.unwrap_or_default().min(LONGEST));
    match planned_here(at) && asked.unwrap_or_default() <= HERE_MAX {
        true => Patience::Here(wait.min(HERE_MAX)),
        false => Patience::GiveBack(wait),
    }
}

/// Waits of the schedule that are spent in place.
const IN_PLACE: usize = 4;

fn planned_here(at: usize) -> bool {
    at < IN_PLACE
}

/// Why a provider is not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseClass {
    /// It asked to wait.
    RateLimited,
    /// It does not accept the credentials.
    Auth,
    /// There is no money left.
    Billing,
    /// It is overloaded.
    Overloaded,
}

impl PauseClass {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RateLimited,
        Self::Auth,
        Self::Billing,
        Self::Overloaded,
    ];

    /// The name that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::Overloaded => "overloaded",
        }
    }

    /// The class with this stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(failed: u32, given_back: u32) -> Patience {
        let waits = Waits { failed, given_back };
        decide(waits, None, 0.5)
    }

    #[test]
    fn waits_of_a_minute_are_spent_here_and_longer_ones_give_the_slot_back() {
        let here = |s| Patience::Here(Duration::from_secs(s));
        let back = |s| Patience::GiveBack(Duration::from_secs(s));
        assert_eq!([at(1, 0), at(4, 0)], [here(5), here(60)]);
        assert_eq!(
            [at(5, 0), at(1, 1), at(1, 2)],
            [back(300), back(600), back(900)]
        );
    }

    #[test]
    fn the_whole_schedule_is_21_waits_and_seven_and_a_half_hours() {
        let mut sum = Duration::ZERO;
        let mut count = 0;
        let mut add = |patience| match patience {
            Patience::Here(wait) | Patience::GiveBack(wait) => {
                sum += wait;
                count += 1;
                true
            }
            Patience::GiveUp => false,
        };
        (1..=5).for_each(|failed| assert!(add(at(failed, 0))));
        let mut given_back = 1;
        while add(at(1, given_back)) {
            given_back += 1;
        }
        assert_eq!((count, sum), (21, Duration::from_secs(27_105)));
    }

    #[test]
    fn a_provider_is_taken_at_its_word_within_a_day() {
        let asked = |s| {
            decide(
                Waits {
                    failed: 1,
                    given_back: 0,
                },
                Some(Duration::from_secs(s)),
                0.0,
            )
        };
        assert_eq!(asked(7), Patience::Here(Duration::from_secs(7)));
        assert_eq!(asked(1), Patience::Here(Duration::from_secs(4)));
        assert_eq!(asked(90), Patience::GiveBack(Duration::from_secs(90)));
        assert_eq!(asked(1_769_506_040), Patience::GiveBack(LONGEST));
    }
}
