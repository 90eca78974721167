//! What was refused, told to whoever watches: each thing once, and not without end.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::limits;

/// A connection that an agent wanted and did not get.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The host, as far as it could be read; plain ASCII, cut.
    pub host: String,
    /// Its port, when it could be read.
    pub port: Option<u16>,
    /// Why not.
    pub reason: Reason,
}

/// Why a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No rule names the host.
    NotListed,
    /// A rule names the host, with other ports.
    OtherPort,
    /// The name leads only to addresses that its rule does not cover; this is one.
    NotPublic(IpAddr),
    /// The host is spelled in a way that is not accepted.
    Spelling(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed => f.write_str("no rule allows this host"),
            Self::OtherPort => f.write_str("the host is allowed, but not this port"),
            Self::NotPublic(_) => f.write_str("the name does not lead to a public address"),
            Self::Spelling(why) => f.write_str(why),
        }
    }
}

impl Refusal {
    /// What the agent is told, with the fix for its operator. The address behind a name is not
    /// among it: that is not the agent's to know.
    pub(crate) fn words(&self) -> String {
        let Self { host, port, reason } = self;
        let place = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let fix = match reason {
            Reason::NotListed | Reason::OtherPort => {
                format!(
                    "To allow it, add \"{place}\" to `hosts` of the agent's entry in agents.toml."
                )
            }
            Reason::NotPublic(_) => format!(
                "If it is meant to be in a private network, write \"private:{place}\" in `hosts` of \
                 the agent's entry in agents.toml; a service of the worker's machine is listed by \
                 its address."
            ),
            Reason::Spelling(_) => {
                "Write the host as `hosts` of the agent's entry in agents.toml does.".to_owned()
            }
        };
        format!("dispatch: {place} was refused: {reason}. {fix}\n")
    }
}

/// Told of each refusal, from the gateway's own tasks: it must not block.
pub type Observer = Arc<dyn Fn(Refusal) + Send + Sync>;

/// Tells each refusal once.
pub(super) struct Refusals {
    observer: Observer,
    told: Mutex<HashSet<Refusal>>,
}

/// Whether a refusal was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Now.
    Now,
    /// Before.
    Before,
    /// Never: there were too many.
    Never,
}

impl Refusals {
    pub(super) fn new(observer: Observer) -> Self {
        Self {
            observer,
            told: Mutex::default(),
        }
    }

    pub(super) fn tell(&self, refusal: &Refusal) -> Told {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains(refusal) {
            return Told::Before;
        }
        if told.len() >= limits::GATEWAY_REFUSALS_TOLD_MAX {
            return Told::Never;
        }
        told.insert(refusal.clone());
        drop(told);
        (self.observer)(refusal.clone());
        Told::Now
    }
}

/// A host for people, from whatever was sent. What is longer than names can be is not shown: half of
/// it may be half of a secret, which nobody would know.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    match text.chars().count() {
        length if length > limits::GATEWAY_HOST_CHARS_SHOWN => {
            format!("(a name of {length} characters)")
        }
        _ => text.chars().map(plain).collect(),
    }
}
