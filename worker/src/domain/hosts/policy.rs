//! Which hosts an agent may reach, as the entry's `hosts` lists them:
//!
//! | rule | allows |
//! |---|---|
//! | `api.example.com` | this name, ports 443 and 80, on public addresses |
//! | `*.example.com` | every name below it (not itself), likewise |
//! | `api.example.com:8443` | this port only |
//! | `192.0.32.7`, `[2620:0:2d0:200::7]:443` | exactly this address |
//! | `127.0.0.1:11434`, `10.0.0.7:8080` | exactly this address; a private one needs its port |
//! | `localhost:4000` | 127.0.0.1 and ::1 of the worker's machine, this port |
//! | `private:git.corp.example:443` | this name, also when it leads to a private network |
//!
//! A name never leads to the worker's own machine by its loopback, to its link or to a cloud's
//! metadata, whatever its rule says; those are named by address. To another address of the machine
//! itself it leads only with `private:`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::{Place, place};
use super::host::{Host, HostError};
use crate::domain::limits;

/// Ports of a rule that names none.
const WEB_PORTS: [u16; 2] = [443, 80];

/// What `localhost` is here, whatever a resolver says (RFC 6761).
const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The hosts one agent may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// A service of the worker's own machine that a rule allows. Clients do not ask a proxy for
/// `localhost`, so the sandbox has to listen there itself and forward; see `relay::forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalService {
    /// Its port, here and in the sandbox.
    pub port: u16,
    /// What to ask the gateway for: `127.0.0.1:11434`.
    pub target: String,
}

/// A rule that says nothing, or too much.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}`: {message}")]
pub struct RuleError {
    /// As it was written.
    pub rule: String,
    /// What is wrong and what would be right.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// As it was written.
    text: String,
    who: Who,
    ports: Ports,
    may_be_private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Name(String),
    /// Every name that ends so; with the dot in front.
    Below(String),
    Address(IpAddr),
    Localhost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    Web,
    One(u16),
}

/// What a rule allows for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// These addresses, which a rule names; nothing is resolved.
    Addresses(Vec<IpAddr>),
    /// Public addresses of the name.
    Public,
    /// Public and private ones.
    PublicAndPrivate,
}

/// What no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No rule names the host.
    Host,
    /// A rule does, with other ports.
    Port,
}

impl Policy {
    /// The policy of these rules; the first bad one is the error.
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<Self, RuleError> {
        if let Some(beyond) = rules.get(limits::GATEWAY_RULES_MAX) {
            return Err(error(
                beyond.as_ref(),
                "there are too many rules; use `*.` for names with one ending",
            ));
        }
        let rules = rules.iter().map(|rule| Rule::parse(rule.as_ref()));
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Its rules as they were written.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| rule.text.as_str())
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The services of the worker's own machine among the rules.
    pub fn local_services(&self) -> Vec<LocalService> {
        let services = self.rules.iter().filter_map(|rule| {
            let Ports::One(port) = rule.ports else {
                return None;
            };
            let host = match &rule.who {
                Who::Localhost => Host::Name("localhost".to_owned()),
                Who::Address(address) if place(*address) == Place::Loopback => {
                    Host::Address(*address)
                }
                Who::Address(_) | Who::Name(_) | Who::Below(_) => return None,
            };
            let target = format!("{host}:{port}");
            Some(LocalService { port, target })
        });
        // Two names of one place need one listener.
        let mut found: Vec<LocalService> = Vec::new();
        for service in services {
            if !found.iter().any(|known| known.port == service.port) {
                found.push(service);
            }
        }
        found
    }

    /// What is allowed for this host and port.
    pub fn grant(&self, host: &Host, port: u16) -> Result<Grant, Denied> {
        let mut denied = Denied::Host;
        let mut addresses = Vec::new();
        let mut public = false;
        let mut private = false;
        for rule in &self.rules {
            let named = rule.names(host);
            if named == Named::No {
                continue;
            }
            if !rule.ports.include(port) {
                denied = Denied::Port;
                continue;
            }
            match named {
                Named::Addresses(found) => addresses.extend(found),
                Named::Yes if rule.may_be_private => private = true,
                Named::Yes => public = true,
                Named::No => {}
            }
        }
        if private {
            return Ok(Grant::PublicAndPrivate);
        }
        if public {
            return Ok(Grant::Public);
        }
        if addresses.is_empty() {
            return Err(denied);
        }
        addresses.dedup();
        Ok(Grant::Addresses(addresses))
    }
}

impl Grant {
    /// Whether a resolved address may be connected to.
    pub fn covers(&self, address: IpAddr) -> bool {
        match (self, place(address)) {
            (Self::Addresses(named), _) => named.contains(&address.to_canonical()),
            (Self::Public | Self::PublicAndPrivate, Place::Public) => true,
            (Self::PublicAndPrivate, Place::Private) => true,
            (Self::Public, Place::Private) => false,
            (_, Place::Loopback | Place::Local | Place::Nowhere) => false,
        }
    }
}

/// Whether a rule names a host.
#[derive(PartialEq, Eq)]
enum Named {
    No,
    Yes,
    Addresses(Vec<IpAddr>),
}

impl Rule {
    fn parse(rule: &str) -> Result<Self, RuleError> {
        let fault = |message: &str| Err(error(rule, message));
        let (text, may_be_private) = match rule.strip_prefix("private:") {
            Some(rest) => (rest, true),
            None => (rule, false),
        };
        if text.contains("://") || text.contains('/') {
            return fault("write the host alone, without a scheme or a path");
        }
        if text == "*" {
            return fault("would allow everything; write network = \"full\" for that");
        }
        let (rest, is_below) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if rest.contains('*') {
            return fault("a star stands for whole labels at the beginning, as in *.example.com");
        }
        let has_port = Host::with_port(rest, None) != Err(HostError::Port);
        let usual = if has_port { None } else { Some(WEB_PORTS[0]) };
        let (host, port) = Host::with_port(rest, usual).map_err(|e| error(rule, &e.to_string()))?;
        let ports = if has_port {
            Ports::One(port)
        } else {
            Ports::Web
        };
        let who = match host {
            Host::Name(name) if is_below => {
                if !name.contains('.') {
                    return fault("would allow a whole top-level domain; name at least two labels");
                }
                Who::Below(format!(".{name}"))
            }
            Host::Address(_) if is_below => {
                return fault("a star stands before a name, not an address");
            }
            Host::Name(name) if name == "localhost" => Who::Localhost,
            Host::Name(name) if name.ends_with(".localhost") => {
                return fault("write localhost with its port");
            }
            Host::Name(name) => Who::Name(name),
            Host::Address(address) => Who::Address(address),
        };
        if may_be_private && matches!(who, Who::Address(_) | Who::Localhost) {
            return fault("an address says itself that it is private; leave out `private:`");
        }
        let named_place = match who {
            Who::Address(address) => place(address),
            Who::Localhost => Place::Loopback,
            Who::Name(_) | Who::Below(_) if may_be_private => Place::Private,
            Who::Name(_) | Who::Below(_) => Place::Public,
        };
        if named_place == Place::Nowhere {
            return fault("no connection can go to this address");
        }
        if let (Place::Loopback, Ports::One(port)) = (named_place, ports)
            && (port < limits::UNPRIVILEGED_PORT || port == limits::GATEWAY_PORT)
        {
            return fault(
                "the sandbox listens at this port of its own for it, which has to be 1024 or more and not 3128",
            );
        }
        if named_place != Place::Public && ports == Ports::Web {
            return fault("a place that is not public needs its port, as in localhost:4000");
        }
        Ok(Self {
            text: rule.to_owned(),
            who,
            ports,
            may_be_private,
        })
    }

    fn names(&self, host: &Host) -> Named {
        match (&self.who, host) {
            (Who::Name(name), Host::Name(asked)) if name == asked => Named::Yes,
            (Who::Below(ending), Host::Name(asked)) if asked.ends_with(ending.as_str()) => {
                Named::Yes
            }
            (Who::Address(address), Host::Address(asked)) if address == asked => {
                Named::Addresses(vec![*address])
            }
            (Who::Address(address), Host::Name(asked))
                if asked == "localhost" && LOCALHOST.contains(address) =>
            {
                Named::Addresses(vec![*address])
            }
            (Who::Localhost, Host::Name(asked)) if asked == "localhost" => {
                Named::Addresses(LOCALHOST.to_vec())
            }
            (Who::Localhost, Host::Address(asked)) if LOCALHOST.contains(asked) => {
                Named::Addresses(vec![*asked])
            }
            (Who::Name(_) | Who::Below(_) | Who::Address(_) | Who::Localhost, _) => Named::No,
        }
    }
}

impl Ports {
    fn include(self, port: u16) -> bool {
        match self {
            Self::Web => WEB_PORTS.contains(&port),
            Self::One(one) => one == port,
        }
    }
}

fn error(rule: &str, message: &str) -> RuleError {
    RuleError {
        rule: rule
            .chars()
            .take(limits::GATEWAY_HOST_CHARS_SHOWN)
            .collect(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(rules: &[&str], asked: &str) -> Result<Grant, Denied> {
        let (host, port) = Host::with_port(asked, None).unwrap();
        Policy::parse(rules).unwrap().grant(&host, port)
    }

    #[test]
    fn a_name_is_allowed_on_the_ports_of_the_web_or_on_its_own() {
        let rules = ["API.example.com.", "git.example.com:8443"];
        assert_eq!(grant(&rules, "api.example.com:443"), Ok(Grant::Public));
        assert_eq!(grant(&rules, "api.EXAMPLE.com.:80"), Ok(Grant::Public));
        assert_eq!(grant(&rules, "api.example.com:22"), Err(Denied::Port));
        assert_eq!(grant(&rules, "git.example.com:8443"), Ok(Grant::Public));
        assert_eq!(grant(&rules, "git.example.com:443"), Err(Denied::Port));
    }

    #[test]
    fn names_that_only_look_alike_are_not_allowed() {
        let rules = ["example.com", "*.trusted.org", "192.0.32.7"];
        for asked in [
            "evil-example.com:443",
            "example.com.evil.org:443",
            "a.example.com:443",
            "example.co:443",
            "trusted.org:443",
            "eviltrusted.org:443",
            "192.0.32.8:443",
        ] {
            assert_eq!(grant(&rules, asked), Err(Denied::Host), "{asked}");
        }
        assert_eq!(grant(&rules, "a.b.trusted.org:443"), Ok(Grant::Public));
        assert!(grant(&rules, "192.0.32.7:443").is_ok());
    }

    #[test]
    fn the_own_machine_is_reached_by_its_address_or_localhost_only() {
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        for asked in [
            "127.0.0.1:11434",
            "localhost:11434",
            "[::ffff:127.0.0.1]:11434",
        ] {
            assert_eq!(
                grant(&["127.0.0.1:11434"], asked),
                Ok(Grant::Addresses(vec![v4])),
                "{asked}"
            );
        }
        assert_eq!(
            grant(&["127.0.0.1:11434"], "[::1]:11434"),
            Err(Denied::Host)
        );
        assert_eq!(
            grant(&["localhost:4001"], "localhost:4001"),
            Ok(Grant::Addresses(LOCALHOST.to_vec()))
        );
        assert_eq!(
            grant(&["localhost:4001"], "127.0.0.2:4001"),
            Err(Denied::Host)
        );
        assert_eq!(
            grant(&["localhost:4001"], "a.localhost:4001"),
            Err(Denied::Host)
        );
    }

    #[test]
    fn where_a_name_may_lead_depends_on_its_rule() {
        let covers = |grant: &Grant, address: &str| grant.covers(address.parse().unwrap());
        let private = grant(&["private:git.corp:443"], "git.corp:443").unwrap();
        assert!(covers(&private, "10.0.0.1") && covers(&private, "8.8.8.8"));
        assert!(!covers(&private, "127.0.0.1") && !covers(&private, "169.254.169.254"));
        assert!(!covers(&private, "100.100.100.200") && !covers(&private, "fd00:ec2::254"));
        let public = grant(&["git.corp"], "git.corp:443").unwrap();
        assert!(covers(&public, "8.8.8.8") && !covers(&public, "10.0.0.1"));
        assert!(!covers(&public, "::ffff:10.0.0.1") && !covers(&public, "64:ff9b::a00:1"));
    }

    #[test]
    fn a_rule_that_says_too_little_or_too_much_is_refused_with_the_fix() {
        for (rule, message) in [
            ("", "empty"),
            ("https://a.b", "without a scheme"),
            ("a.b/c", "without a scheme"),
            ("*", "full"),
            ("*.com", "top-level"),
            ("a.*.com", "star"),
            ("*a.com", "star"),
            ("*.127.0.0.1", "star"),
            ("localhost", "needs its port"),
            ("127.0.0.1", "needs its port"),
            ("10.0.0.1", "needs its port"),
            ("private:a.b", "needs its port"),
            ("private:10.0.0.1:80", "leave out"),
            ("private:localhost:80", "leave out"),
            ("0.0.0.0:80", "no connection"),
            ("a.b:0", "65535"),
            ("a.b:http", "65535"),
            ("::1", "brackets"),
            ("0x7f.1:80", "decimal"),
            ("user@a.b", "user name"),
            ("x.localhost:80", "localhost"),
            ("localhost:80", "1024 or more"),
            ("127.0.0.1:3128", "not 3128"),
        ] {
            let found = Policy::parse(&[rule]).expect_err(rule).to_string();
            assert!(found.contains(message) && found.contains(rule), "{found}");
        }
        assert!(Policy::parse(&vec!["a.b"; limits::GATEWAY_RULES_MAX + 1]).is_err());
    }

    #[test]
    fn services_of_the_own_machine_are_listed_once() {
        let policy = Policy::parse(&[
            "a.b",
            "localhost:4001",
            "127.0.0.1:4001",
            "[::1]:4002",
            "10.0.0.1:3",
        ])
        .unwrap();
        let found: Vec<_> = policy
            .local_services()
            .into_iter()
            .map(|s| s.target)
            .collect();
        assert_eq!(found, ["localhost:4001", "[::1]:4002"]);
    }
}
