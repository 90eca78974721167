//! Providers that want to be left alone, in the whole fleet: this worker hears of it, and gives no
//! task to an agent whose provider does.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::native::choose;
use crate::agent::native::gate::{Pause, ProviderGate};
use crate::config::agents::Catalogue;
use crate::domain::attempt::ExecutionPath;
use crate::store::listen::{Listener, Wakeup};
use crate::store::{Store, StoreError, pauses};

/// How often the pauses are looked at although nobody said that there are new ones.
const LOOK: Duration = Duration::from_secs(30);

/// Keep the gate as the database has it, until stopped.
pub async fn run(store: Store, listener: Listener, gate: ProviderGate, stop: CancellationToken) {
    let mut wakeups = listener.subscribe();
    loop {
        if let Err(error) = run_once(&store, &gate).await {
            tracing::debug!(%error, "the pauses of providers could not be read");
        }
        let look = tokio::time::sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut look => break,
                heard = wakeups.recv() => match heard {
                    Ok(Wakeup::Providers | Wakeup::Gap) => break,
                    Ok(_) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                        (&mut look).await;
                        break;
                    }
                }
            }
        }
    }
}

/// Read the pauses once.
pub async fn run_once(store: &Store, gate: &ProviderGate) -> Result<(), StoreError> {
    let listed = pauses::list(store).await?;
    let now = Instant::now();
    let all: HashMap<String, Pause> = listed
        .into_iter()
        .map(|pause| {
            let left = u64::try_from(pause.remaining_ms).unwrap_or(0);
            let known = Pause {
                until: now + Duration::from_millis(left),
                class: pause.class,
                message: pause.message,
            };
            (pause.provider, known)
        })
        .collect();
    gate.replace(all);
    Ok(())
}

/// Agents that nothing can be given to now, with why: all providers that their tasks could use want to
/// be left alone. While one does not, a task that needs another gives its slot back and waits for that.
/// `works`: whether the probe of an agent found that a provider does.
pub fn of_agents(
    catalogue: &Catalogue,
    gate: &ProviderGate,
    works: impl Fn(&str, &str) -> bool,
) -> BTreeMap<String, String> {
    // This is asked all the time, and to choose a provider reads files with keys.
    if !gate.has_pauses(Instant::now()) {
        return BTreeMap::new();
    }
    let native = catalogue
        .agents
        .values()
        .filter(|spec| spec.path == ExecutionPath::Native);
    native
        .filter_map(|spec| {
            let usable =
                |provider: &crate::config::native_spec::ProviderSpec| provider.key().is_ok();
            let chosen = choose::choose(spec, None, None, usable).ok()?;
            let name = &chosen.provider.name;
            let now = Instant::now();
            let pause = gate.pause_of(name, now)?;
            let mut others = spec
                .native
                .offered()
                .filter(|provider| works(&spec.name, &provider.name));
            if others.any(|other| gate.pause_of(&other.name, now).is_none()) {
                return None;
            }
            let why = format!(
                "provider {name} is paused ({}): {}",
                pause.class, pause.message
            );
            Some((spec.name.clone(), why))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_takes_tasks_as_long_as_one_of_its_providers_works() {
        let provider = |name: &str| {
            format!(
                "[providers.{name}]\napi = \"openai\"\nbase_url = \"http://{name}.example\"\ndefault_model = \"m\"\n"
            )
        };
        let text = format!(
            "{}{}[agents.n]\nlabel = \"n\"\npath = \"native\"\nnative.providers = [\"a\", \"b\"]\n",
            provider("a"),
            provider("b")
        );
        let catalogue = Catalogue::parse(&text).unwrap();
        let gate = ProviderGate::default();
        let pause = |name: &str| {
            let pause = Pause {
                until: Instant::now() + Duration::from_secs(60),
                class: "rate_limited".to_owned(),
                message: "429".to_owned(),
            };
            gate.pause(name, pause);
        };
        let withheld = |works: &[&str]| {
            let works = |agent: &str, name: &str| agent == "n" && works.contains(&name);
            of_agents(&catalogue, &gate, works).remove("n")
        };
        assert_eq!(withheld(&["a", "b"]), None);
        pause("a");
        assert_eq!(withheld(&["a", "b"]), None, "tasks may name a model of b");
        let why = withheld(&["a"]).unwrap();
        assert!(
            why.contains("provider a is paused (rate_limited): 429"),
            "{why}"
        );
        pause("b");
        assert!(withheld(&["a", "b"]).is_some());
    }
}
