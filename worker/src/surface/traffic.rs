//! How much a caller may ask: requests in a time, requests open at once, and wrong tokens of one
//! address. Everything is kept in this process, and bounded.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::Bytes;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::problem::Problem;
use crate::domain::limits;

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// The holder of a token, by its hash.
    Token([u8; 32]),
    /// Whoever calls from an address.
    Peer(IpAddr),
    /// All the others, when there are too many of them to be counted apart.
    Others,
}

impl Who {
    /// The caller at an address. A network of IPv6 is one caller: its addresses are free.
    pub(crate) fn at(address: Option<IpAddr>) -> Self {
        match address {
            Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Self::Peer(Ipv6Addr::from(network).into())
            }
            Some(address) => Self::Peer(address.to_canonical()),
            None => Self::Others,
        }
    }
}

/// So many requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; also how many at once after a pause.
    requests: NonZeroU32,
    /// In which time.
    per: Duration,
}

impl Rate {
    fn quota(self) -> Option<Quota> {
        let each = self.per / self.requests.get();
        Quota::with_period(each).map(|quota| quota.allow_burst(self.requests))
    }
}

/// `100/s`, `600/m`, or `0` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaybeRate(pub Option<Rate>);

impl FromStr for MaybeRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is written like 100/s or 600/m, or 0 for no limit".to_owned();
        if text == "0" {
            return Ok(Self(None));
        }
        let (requests, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per = match unit {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => return Err(wrong()),
        };
        let requests: u32 = requests.parse().map_err(|_| wrong())?;
        // More than that in a second is none, and less than a nanosecond apart no quota.
        let requests = NonZeroU32::new(requests).filter(|n| n.get() <= 1_000_000);
        let requests = requests.ok_or_else(wrong)?;
        Ok(Self(Some(Rate { requests, per })))
    }
}

/// A clock that a test may put forward.
#[derive(Clone, Debug)]
struct Ticks {
    started: Instant,
    skipped_ns: Arc<AtomicU64>,
}

impl Clock for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let skipped = Duration::from_nanos(self.skipped_ns.load(Ordering::Relaxed));
        Nanos::from(self.started.elapsed() + skipped)
    }
}

/// Token buckets by caller.
struct Buckets {
    limiter: RateLimiter<Who, HashMapStateStore<Who>, Ticks, NoOpMiddleware<Nanos>>,
    clock: Ticks,
}

impl Buckets {
    fn new(rate: Option<Rate>, clock: &Ticks) -> Option<Self> {
        let quota = rate.and_then(Rate::quota)?;
        Some(Self {
            limiter: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock: clock.clone(),
        })
    }

    /// Take one; the error is how long there is none.
    fn take(&self, who: &Who) -> Result<(), Duration> {
        if self.limiter.len() >= limits::HTTP_CALLERS_MAX {
            self.limiter.retain_recent();
        }
        let many = self.limiter.len() >= limits::HTTP_CALLERS_MAX;
        let who = match who {
            Who::Peer(_) if many => &Who::Others,
            who => who,
        };
        let taken = self.limiter.check_key(who);
        taken.map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

/// What is counted of the callers of one server.
pub struct Traffic {
    requests: Option<Buckets>,
    /// Wrong tokens.
    refusals: Option<Buckets>,
    /// Whose wrong tokens were too many, and until when.
    barred: Mutex<HashMap<Who, Nanos>>,
    open_max: usize,
    open: Arc<Mutex<HashMap<Who, usize>>>,
    /// Tokens that were right not long ago: no stranger's guesses keep their holders out.
    right: Mutex<HashSet<[u8; 32]>>,
    clock: Ticks,
}

impl Traffic {
    /// So many requests of each caller, and so many open at once; 0: without limit.
    pub fn new(rate: MaybeRate, open_max: usize) -> Self {
        let clock = Ticks {
            started: Instant::now(),
            skipped_ns: Arc::default(),
        };
        let wrong = rate.0.map(|_| Rate {
            requests: NonZeroU32::new(limits::HTTP_REFUSALS_PER_MINUTE).unwrap_or(NonZeroU32::MIN),
            per: Duration::from_secs(60),
        });
        Self {
            requests: Buckets::new(rate.0, &clock),
            refusals: Buckets::new(wrong, &clock),
            barred: Mutex::default(),
            open_max,
            open: Arc::default(),
            right: Mutex::default(),
            clock,
        }
    }

    /// Nothing is limited.
    pub fn unlimited() -> Self {
        Self::new(MaybeRate(None), 0)
    }

    /// As if so much time had gone by; for tests.
    pub fn skip(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.clock.skipped_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Let a request of a known caller in; the place is held until its answer has ended.
    pub(crate) fn enter(&self, who: &Who) -> Result<Option<Place>, Problem> {
        if let Some(requests) = &self.requests {
            requests
                .take(who)
                .map_err(|wait| limited("too many requests of this caller", wait))?;
        }
        if self.open_max == 0 {
            return Ok(None);
        }
        let mut open = lock(&self.open);
        let count = open.entry(who.clone()).or_default();
        if *count >= self.open_max {
            let detail = format!(
                "{} requests of this caller are open; end one first",
                self.open_max
            );
            let problem = limited("", Duration::from_secs(1));
            return Err(Problem {
                detail,
                code: "too_many_open",
                ..problem
            });
        }
        *count += 1;
        Ok(Some(Place {
            open: Arc::clone(&self.open),
            who: who.clone(),
        }))
    }

    /// Whether a token that is not known here may be looked up: not when its caller has been wrong too
    /// often, unless it was right before.
    pub(crate) fn may_try(&self, peer: &Who, hash: &[u8; 32]) -> Result<(), Problem> {
        let until = lock(&self.barred).get(peer).copied();
        let wait = until.map(|until| Duration::from(until.saturating_sub(self.clock.now())));
        match wait.filter(|wait| !wait.is_zero()) {
            Some(wait) if !lock(&self.right).contains(hash) => Err(too_wrong(wait)),
            _ => Ok(()),
        }
    }

    /// A token was wrong: it is a stranger's from now on.
    pub(crate) fn was_wrong(&self, peer: &Who, hash: &[u8; 32]) -> Result<(), Problem> {
        lock(&self.right).remove(hash);
        let Some(refusals) = &self.refusals else {
            return Ok(());
        };
        refusals.take(peer).map_err(|wait| {
            let now = self.clock.now();
            let mut barred = lock(&self.barred);
            if barred.len() >= limits::HTTP_CALLERS_MAX {
                barred.retain(|_, until| *until > now);
            }
            if barred.len() < limits::HTTP_CALLERS_MAX {
                barred.insert(peer.clone(), now + Nanos::from(wait));
            }
            too_wrong(wait)
        })
    }

    /// A token of the database was right.
    pub(crate) fn was_right(&self, hash: [u8; 32]) {
        let mut right = lock(&self.right);
        if right.len() >= limits::HTTP_CALLERS_MAX {
            right.clear();
        }
        right.insert(hash);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_wrong(wait: Duration) -> Problem {
    limited("too many wrong tokens from this address", wait)
}

fn limited(detail: &str, wait: Duration) -> Problem {
    let wait_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem {
        retry_after_s: Some(wait_s.max(1)),
        hint: Some("Wait as long as Retry-After says. An operator sets the limits: --rate-limit, --open-limit.".to_owned()),
        ..Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
    }
}

/// One of the requests that a caller may have open.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Mutex<HashMap<Who, usize>>>,
    who: Who,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.who) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.who);
            }
        }
    }
}

/// An answer that holds its caller's place to its end.
pub(crate) struct Held {
    body: Body,
    _place: Place,
}

impl Held {
    pub(crate) fn new(body: Body, place: Place) -> Self {
        let _place = place;
        Self { body, _place }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(rate: &str, open_max: usize) -> Traffic {
        Traffic::new(rate.parse().unwrap(), open_max)
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for wrong in ["", "5", "5/h", "x/s", "0/s", "1000001/s", "-1/s"] {
            assert!(wrong.parse::<MaybeRate>().is_err(), "{wrong}");
        }
        assert_eq!("0".parse(), Ok(MaybeRate(None)));
        assert!("1000000/s".parse::<MaybeRate>().unwrap().0.is_some());
    }

    #[test]
    fn each_caller_has_a_bucket_of_its_own_that_fills_again() {
        let traffic = traffic("3/m", 0);
        let (one, other) = (Who::Token([1; 32]), Who::Token([2; 32]));
        for _ in 0..3 {
            assert!(traffic.enter(&one).is_ok());
        }
        let refused = traffic.enter(&one).unwrap_err();
        assert_eq!(refused.code, "rate_limited");
        let wait = refused.retry_after_s.unwrap();
        assert!((15..=20).contains(&wait), "{wait}");
        assert!(traffic.enter(&other).is_ok());
        traffic.skip(Duration::from_secs(wait));
        assert!(traffic.enter(&one).is_ok());
        assert!(traffic.enter(&one).is_err());
    }

    #[test]
    fn wrong_tokens_are_limited_by_address_and_keep_nobody_out_who_was_right() {
        let traffic = traffic("1000/s", 0);
        let at = |address: &str| Who::at(Some(address.parse().unwrap()));
        let peer = at("2001:db8::1");
        assert_eq!(peer, at("2001:db8::ffff"), "a network is one caller");
        assert_ne!(peer, at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        traffic.was_right([7; 32]);
        for _ in 0..limits::HTTP_REFUSALS_PER_MINUTE {
            assert!(traffic.may_try(&peer, &[0; 32]).is_ok());
            assert!(traffic.was_wrong(&peer, &[0; 32]).is_ok());
        }
        let refused = traffic.was_wrong(&peer, &[0; 32]).unwrap_err();
        assert_eq!(refused.code, "rate_limited");
        assert!(traffic.may_try(&peer, &[0; 32]).is_err());
        assert!(traffic.may_try(&at("10.0.0.1"), &[0; 32]).is_ok());
        assert!(traffic.may_try(&peer, &[7; 32]).is_ok());
        assert!(
            traffic.was_wrong(&peer, &[7; 32]).is_err(),
            "it was revoked"
        );
        assert!(traffic.may_try(&peer, &[7; 32]).is_err());
        traffic.skip(Duration::from_secs(refused.retry_after_s.unwrap()));
        assert!(traffic.may_try(&peer, &[0; 32]).is_ok());
    }

    #[test]
    fn what_is_kept_of_strangers_is_bounded() {
        let traffic = traffic("1/m", 0);
        let requests = traffic.requests.as_ref().unwrap();
        for n in 0..limits::HTTP_CALLERS_MAX as u32 + 500 {
            let _either = requests.take(&Who::Peer(std::net::Ipv4Addr::from(n).into()));
        }
        assert!(requests.limiter.len() <= limits::HTTP_CALLERS_MAX + 1);
        traffic.skip(Duration::from_secs(3_600));
        assert!(requests.take(&Who::Others).is_ok());
        assert!(requests.limiter.len() <= 2, "who asks nothing is forgotten");
    }

    #[test]
    fn a_place_is_free_again_when_its_answer_has_ended() {
        let traffic = traffic("0", 2);
        let who = Who::Token([1; 32]);
        let first = traffic.enter(&who).unwrap();
        let _second = traffic.enter(&who).unwrap();
        assert_eq!(traffic.enter(&who).unwrap_err().code, "too_many_open");
        assert!(traffic.enter(&Who::Others).is_ok());
        drop(first);
        assert!(traffic.enter(&who).is_ok());
        assert_eq!(lock(&traffic.open).len(), 1, "nobody else is kept");
    }
}
