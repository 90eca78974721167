//! What the integration tests share.

pub mod db;
pub mod desk;
pub mod git_server;
pub mod llm;
pub mod native;
pub mod program;
pub mod proxy;
pub mod repo;
pub mod sandbox;
pub mod terminal;
pub mod worker;

use std::future::Future;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Wait until a condition holds, for at most `bound`; then fail and name it. The only place in the
/// tests that sleeps: a test waits for a fact, never for a time.
#[track_caller]
pub fn eventually<F, Fut>(what: &str, bound: Duration, condition: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    wait_for(what.to_owned(), bound, condition, caller)
}

async fn wait_for<F, Fut>(
    what: String,
    bound: Duration,
    mut condition: F,
    caller: &'static std::panic::Location<'static>,
) where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begun = Instant::now();
    let mut looks = 0u32;
    loop {
        // The condition itself may hang (a query on a lock): the bound covers that too.
        let left = bound.saturating_sub(begun.elapsed()).max(POLL);
        let look = tokio::time::timeout(left, condition()).await;
        looks += 1;
        match look {
            Ok(true) => return,
            Ok(false) if begun.elapsed() < bound => tokio::time::sleep(POLL).await,
            Ok(false) => panic!("{caller}: not within {bound:?}: {what} (looked {looks} times)"),
            Err(_) => {
                panic!("{caller}: look {looks} at \"{what}\" did not answer within {bound:?}")
            }
        }
    }
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn eventually_waits_for_the_fact() {
        let mut looks = 0;
        eventually("the third look", Duration::from_secs(5), || {
            looks += 1;
            let found = looks == 3;
            async move { found }
        })
        .await;
        assert_eq!(looks, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 30ms: pigs fly")]
    async fn eventually_names_what_did_not_happen() {
        eventually("pigs fly", Duration::from_millis(30), || async { false }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "did not answer within")]
    async fn eventually_ends_when_a_look_hangs() {
        eventually("an answer", Duration::from_millis(30), std::future::pending).await;
    }
}

/// Whether a process of this machine was started with this argument alone in its place.
pub fn is_an_argument(word: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|b| *b == 0).any(|arg| arg == word.as_bytes()))
}
