//! Requests of an agent to the gateway, and the rules they are judged by.

use std::net::IpAddr;

use crate::domain::hosts::Policy;
use crate::gateway::{Asked, ask};

/// Two lines of rules, an empty line, and the head of a request. What is let through is one request,
/// to a host that a rule spells out, and what the server gets is no more than that.
pub fn gateway_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rules, _) = text.split_once("\n\n").unwrap_or((&text, ""));
    let at = data.windows(2).position(|two| two == b"\n\n");
    let head = at.and_then(|at| data.get(at + 2..)).unwrap_or_default();
    let rules: Vec<&str> = rules.lines().take(4).collect();
    let policy = match Policy::parse(&rules) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(Policy::parse(&rules).as_ref(), Ok(&policy));
    for service in policy.local_services() {
        assert!(service.port > 0 && service.target.ends_with(&format!(":{}", service.port)));
    }
    let asked = ask(&policy, head);
    if let Some(asked) = &asked {
        judge(asked, &rules, head);
    }
    // A rule is not about how the host is spelled.
    let louder: Vec<String> = rules.iter().map(|rule| loud(rule)).collect();
    if let Ok(louder) = Policy::parse(&louder) {
        let again = ask(&louder, head);
        assert_eq!(
            asked.map(|asked| asked.allowed),
            again.map(|asked| asked.allowed)
        );
    }
}

fn loud(rule: &str) -> String {
    match rule.strip_prefix("private:") {
        Some(rest) => format!("private:{}", rest.to_ascii_uppercase()),
        None => rule.to_ascii_uppercase(),
    }
}

fn judge(asked: &Asked, rules: &[&str], head: &[u8]) {
    let host = asked.host.as_str();
    assert!(asked.port > 0);
    assert!(!host.contains(['@', '/', '\\', '#', '?', '%', ' ', '*']));
    assert_eq!(host, host.to_lowercase());
    let bare = host.trim_matches(['[', ']']);
    if let Ok(address) = bare.parse::<IpAddr>() {
        assert_eq!(
            address,
            address.to_canonical(),
            "an IPv4 address in disguise"
        );
    } else {
        let last = host.rsplit('.').next().unwrap_or_default();
        assert!(!last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit()));
    }
    if let Some(sent) = &asked.sent {
        one_request(sent, host, head);
    }
    if !asked.allowed {
        return;
    }
    let plain = rules
        .iter()
        .filter(|rule| rule.is_ascii())
        .map(|rule| rule.to_ascii_lowercase());
    let mut all_plain = rules.iter().all(|rule| rule.is_ascii());
    let named = plain
        .map(|rule| rule.trim_start_matches("private:").to_owned())
        .any(|rule| {
            let (name, port) = match rule.rfind(':') {
                Some(at)
                    if rule.ends_with(|c: char| c.is_ascii_digit()) && !rule.ends_with(']') =>
                {
                    rule.split_at(at)
                }
                _ => (rule.as_str(), ""),
            };
            // Written out as numbers in more than one way; compared as addresses elsewhere.
            if name.starts_with('[')
                || host.starts_with('[')
                || name == "localhost"
                || host == "localhost"
            {
                all_plain = false;
            }
            let name = name.trim_end_matches('.');
            let fits = match name.strip_prefix('*') {
                Some(ending) => host.ends_with(ending) && host.len() > ending.len(),
                None => host == name,
            };
            let ports = if port.is_empty() {
                vec![443, 80]
            } else {
                port[1..].parse().into_iter().collect()
            };
            fits && ports.contains(&asked.port)
        });
    assert!(
        named || !all_plain,
        "{host}:{} is allowed by {rules:?}",
        asked.port
    );
}

/// As a server would read it: one head, one host, one length, nothing after it.
fn one_request(sent: &[u8], host: &str, head: &[u8]) {
    let text = String::from_utf8_lossy(sent).to_ascii_lowercase();
    assert!(text.ends_with("\r\n\r\n"));
    assert_eq!(
        text.matches("\r\n\r\n").count(),
        1,
        "a second request in {text:?}"
    );
    assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
    assert_eq!(text.matches('\r').count(), text.matches("\r\n").count());
    assert!(!text.contains('\0'));
    let lines: Vec<&str> = text.trim_end().split("\r\n").collect();
    let count = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(count("host:"), 1);
    assert_eq!(count("connection:"), 1);
    assert!(text.contains("\r\nconnection: close\r\n"));
    let own = lines.get(1).copied().unwrap_or_default();
    assert!(
        own == format!("host: {host}") || own.starts_with(&format!("host: {host}:")),
        "{own}"
    );
    assert!(count("content-length:") + count("transfer-encoding:") <= 1);
    for hop in [
        "proxy-",
        "keep-alive:",
        "upgrade:",
        "te:",
        "trailer:",
        "expect:",
    ] {
        assert!(hop == "proxy-" || count(hop) == 0, "{hop} goes on");
    }
    assert_eq!(count("proxy-authorization:"), 0);
    assert!(sent.len() <= head.len() + 128, "more than came");
}
