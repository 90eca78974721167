//! How many attempts may run: in all, and per agent. A slot is free again only when the attempt's
//! end is stored and its processes are gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::store::claims::Demand;

/// The slots of a worker. Cheap to clone.
#[derive(Clone)]
pub struct Slots(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    total: u32,
    used: u32,
    /// Somebody wants no more taken.
    held: bool,
    agents: BTreeMap<String, AgentSlots>,
}

#[derive(Clone, Copy, Default)]
struct AgentSlots {
    slots: u32,
    used: u32,
    ready: bool,
}

/// One taken slot; dropping it frees it.
pub struct SlotGuard {
    slots: Slots,
    agent: String,
}

impl Slots {
    /// `total` slots; agents come with `offer`.
    pub fn new(total: u32) -> Self {
        let state = State {
            total,
            ..State::default()
        };
        Self(Arc::new(Inner {
            state: Mutex::new(state),
            freed: Notify::new(),
        }))
    }

    /// Set what agents may run now: name, slots, and whether the last probe found it ready.
    pub fn offer(&self, agents: impl IntoIterator<Item = (String, u32, bool)>) {
        let mut state = self.state();
        for known in state.agents.values_mut() {
            known.ready = false;
        }
        for (name, slots, ready) in agents {
            let entry = state.agents.entry(name).or_default();
            entry.slots = slots;
            entry.ready = ready;
        }
        drop(state);
        // A permit is stored: the poller may be between its look and its wait.
        self.0.freed.notify_one();
    }

    /// Take nothing more, or again. Says whether that is news.
    pub fn hold(&self, held: bool) -> bool {
        let mut state = self.state();
        let news = state.held != held;
        state.held = held;
        drop(state);
        if news {
            self.0.freed.notify_one();
        }
        news
    }

    /// Whether nothing more is taken.
    pub fn is_held(&self) -> bool {
        self.state().held
    }

    /// What could be started now, and how many in all.
    pub fn demand(&self) -> (Vec<Demand>, u32) {
        let state = self.state();
        if state.held {
            return (Vec::new(), 0);
        }
        let free = state.total.saturating_sub(state.used);
        let demand: Vec<Demand> = state
            .agents
            .iter()
            .filter(|(_, a)| a.ready && a.slots > a.used)
            .map(|(name, a)| Demand {
                agent: name.clone(),
                free: i32::try_from((a.slots - a.used).min(free)).unwrap_or(i32::MAX),
            })
            .filter(|d| d.free > 0)
            .collect();
        let wanted: u32 = demand.iter().map(|d| d.free.unsigned_abs()).sum();
        (demand, wanted.min(free))
    }

    /// Take a slot for a claimed task.
    pub fn take(&self, agent: &str) -> SlotGuard {
        let mut state = self.state();
        state.used += 1;
        match state.agents.get_mut(agent) {
            Some(known) => known.used += 1,
            None => state.agents.entry(agent.to_owned()).or_default().used = 1,
        }
        drop(state);
        SlotGuard {
            slots: self.clone(),
            agent: agent.to_owned(),
        }
    }

    /// Slots in all, and how many are in use.
    pub fn usage(&self) -> (u32, u32) {
        let state = self.state();
        (state.total, state.used)
    }

    /// Resolves when a slot was freed or the offer changed.
    pub async fn changed(&self) {
        self.0.freed.notified().await;
    }

    fn free(&self, agent: &str) {
        let mut state = self.state();
        state.used = state.used.saturating_sub(1);
        if let Some(entry) = state.agents.get_mut(agent) {
            entry.used = entry.used.saturating_sub(1);
        }
        drop(state);
        // One stored permit is enough: the poller looks at all slots at once.
        self.0.freed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while counting leaves counts that are still right.
        self.0
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        self.slots.free(&self.agent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_never_gets_more_than_its_slots_nor_the_worker_more_than_its_own() {
        let slots = Slots::new(3);
        slots.offer([
            ("a".to_owned(), 2, true),
            ("b".to_owned(), 9, true),
            ("c".to_owned(), 9, false),
        ]);
        let (demand, total) = slots.demand();
        let wanted = [("a", 2), ("b", 3)].map(|(agent, free)| Demand {
            agent: agent.into(),
            free,
        });
        assert_eq!((demand, total), (wanted.to_vec(), 3));
        let first = slots.take("a");
        let _second = slots.take("a");
        let (demand, total) = slots.demand();
        assert_eq!(
            (demand, total),
            (
                vec![Demand {
                    agent: "b".into(),
                    free: 1
                }],
                1
            )
        );
        drop(first);
        assert_eq!(slots.demand().1, 2);
    }
}
