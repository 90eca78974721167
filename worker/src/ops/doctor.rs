//! Whether everything is as it should be, and what to do where it is not.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Effect, Example, Method, Op, OpContext, OpError, OpErrorKind, Spec};
use crate::domain::scope::Scope;
use crate::store::catalogue;
use crate::store::health::{self, HealthFacts};

pub use crate::domain::finding::{Finding, Verdict};

/// How long the connection for LISTEN may take to come up.
const LISTEN_WAIT: Duration = Duration::from_secs(3);

/// The oldest transaction that is no worry.
const TRANSACTION_S_MAX: f64 = 300.0;

/// Look at the database, the fleet and this machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct ShowDoctor {
    /// Only what is about this agent
    #[arg(value_name = "AGENT")]
    pub agent: Option<String>,
}

/// All that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// The worst of the findings.
    pub verdict: Verdict,
    /// One a check.
    pub data: Vec<Finding>,
}

impl Diagnosis {
    /// What these come to.
    pub fn of(findings: Vec<Finding>) -> Self {
        let worst = findings.iter().map(|one| one.verdict).max();
        Self {
            verdict: worst.unwrap_or(Verdict::Ok),
            data: findings,
        }
    }
}

/// Looks at the machine that the operation runs on.
pub trait Examiner: Send + Sync {
    /// What a worker here would find.
    fn examine(&self) -> BoxFuture<'_, Vec<Finding>>;
}

impl Op for ShowDoctor {
    const SPEC: Spec = Spec {
        name: "doctor.show",
        method: Method::Get,
        path: "/doctor",
        effect: Effect::Read,
        idempotent: true,
        scope: Scope::Admin,
        summary: "Check database, fleet and machine, and say what to do where something is wrong",
    };
    type Output = Diagnosis;

    fn examples() -> Vec<Example> {
        vec![Example {
            about: "One agent",
            cli: &["opencode"],
            input: json!({"agent": "opencode"}),
        }]
    }

    async fn run(self, context: &OpContext) -> Result<Self::Output, OpError> {
        let mut findings = Vec::new();
        match self.agent {
            Some(name) => match agents(context, Some(&name)).await {
                Ok(found) => findings.extend(found),
                Err(error) if error.kind == OpErrorKind::Unavailable => {
                    findings.push(no_answer(error));
                }
                Err(error) => return Err(error),
            },
            None => {
                findings.extend(database(context).await);
                // Of one that does not answer, that is all there is to say.
                if findings.len() > 1 {
                    findings.extend(agents(context, None).await?);
                }
                if let Some(examiner) = &context.examiner {
                    findings.extend(examiner.examine().await);
                }
            }
        }
        Ok(Diagnosis::of(findings))
    }
}

const DATABASE: &str = "database";

/// A database that is not there, does not answer or has another schema.
fn no_answer(error: OpError) -> Finding {
    let usual = "Is DATABASE_URL right, and is the server up? A schema of another version: dispatch migrate.";
    let check = match error.code {
        "schema_mismatch" => "schema",
        _ => "connection",
    };
    let found = Finding::ok(DATABASE, check, error.message);
    found.but(
        Verdict::Fail,
        error.hint.unwrap_or_else(|| usual.to_owned()),
    )
}

async fn database(context: &OpContext) -> Vec<Finding> {
    const AREA: &str = DATABASE;
    let wanted = crate::store::migrate::wanted_version();
    let schema = match context.check().await {
        Err(error) => return vec![no_answer(error)],
        Ok(version) if version > wanted => {
            let found = format!("version {version}, newer than this program's {wanted}");
            let advice = "What runs goes on, and nothing older starts any more: bring the rest of the fleet to the newer release.";
            Finding::ok(AREA, "schema", found).but(Verdict::Warn, advice)
        }
        Ok(version) => Finding::ok(AREA, "schema", format!("version {version}")),
    };
    let mut findings = vec![schema];
    let asked = Utc::now();
    match health::facts(&context.store).await {
        Ok(facts) => {
            let between = asked + (Utc::now() - asked) / 2;
            findings.extend(of_facts(&facts, facts.now - between));
        }
        Err(error) => {
            let found = Finding::ok(AREA, "facts", error.to_string());
            findings.push(found.but(
                Verdict::Fail,
                "Is the login the owner's, or dispatch_worker's?",
            ));
        }
    }
    let listens = context.broker.listens(LISTEN_WAIT).await;
    let found = if listens {
        "notifications come"
    } else {
        "no notifications come"
    };
    findings.push(Finding::ok(AREA, "listen", found).unless(
        listens,
        Verdict::Warn,
        "Everything works by polling, later. Behind a pooler in transaction mode name the direct connection in DATABASE_LISTEN_URL.",
    ));
    findings
}

/// What the database says of itself and of the fleet, judged.
fn of_facts(facts: &HealthFacts, ahead: TimeDelta) -> Vec<Finding> {
    const AREA: &str = DATABASE;
    let ahead_s = ahead.num_milliseconds() as f64 / 1_000.0;
    let used = facts.connections as f64 / f64::from(facts.max_connections.max(1));
    vec![
        Finding::ok(AREA, "version", format!("Postgres {}", facts.version)).unless(
            facts.version_num >= 140_000,
            Verdict::Fail,
            "Postgres 14 or newer is needed.",
        ),
        Finding::ok(AREA, "clock", format!("{ahead_s:+.1} s to this machine's")).unless(
            ahead_s.abs() < 2.0,
            Verdict::Warn,
            "Leases go by the database's clock alone; times that people read are off. Run NTP on both.",
        ),
        Finding::ok(
            AREA,
            "connections",
            format!("{} of {}", facts.connections, facts.max_connections),
        )
        .unless(used < 0.8, Verdict::Warn, "Raise max_connections, or put PgBouncer before it."),
        Finding::ok(
            AREA,
            "oldest transaction",
            format!("{:.0} s", facts.oldest_transaction_s),
        )
        .unless(
            facts.oldest_transaction_s < TRANSACTION_S_MAX,
            Verdict::Warn,
            "It keeps vacuum from clearing the queue, which gets slow. Find it in pg_stat_activity; set idle_in_transaction_session_timeout.",
        ),
        Finding::ok(
            AREA,
            "forgotten holders",
            format!(
                "{} prepared transactions, {} replication slots without a reader",
                facts.prepared_transactions, facts.idle_slots
            ),
        )
        .unless(
            facts.prepared_transactions + facts.idle_slots == 0,
            Verdict::Warn,
            "They keep vacuum from clearing the queue, and disk full: end them (pg_prepared_xacts, pg_replication_slots).",
        ),
        Finding::ok("fleet", "workers", format!("{} live", facts.live_workers)).unless(
            facts.live_workers > 0,
            Verdict::Fail,
            "Nobody takes tasks. Start one: dispatch worker.",
        ),
        Finding::ok(
            "fleet",
            "agents",
            format!("{} of {} ready", facts.ready_agents, facts.known_agents),
        )
        .unless(
            facts.ready_agents > 0,
            Verdict::Fail,
            "No task can run. dispatch agents list says what each one lacks.",
        ),
        Finding::ok("fleet", "providers", format!("{} paused", facts.paused_providers)).unless(
            facts.paused_providers == 0,
            Verdict::Warn,
            "dispatch providers list says why and how long.",
        ),
        Finding::ok("fleet", "questions", format!("{} open", facts.open_questions)).unless(
            facts.open_questions == 0,
            Verdict::Warn,
            "Agents wait for an answer: dispatch permissions list.",
        ),
    ]
}

/// What the fleet offers of its agents, or of this one.
async fn agents(context: &OpContext, only: Option<&str>) -> Result<Vec<Finding>, OpError> {
    let all = catalogue::list(&context.store).await?;
    let wanted = all
        .iter()
        .filter(|one| only.is_none_or(|name| name == one.name));
    let findings: Vec<Finding> = wanted
        .map(|agent| {
            let version = agent.version.as_deref().unwrap_or("no version told");
            let found = format!("{}, {version}, {} workers", agent.status, agent.workers);
            let found = Finding::ok("agent", &agent.name, found);
            match agent.status.as_str() {
                "ready" | "loading" => found,
                _ => {
                    let why = agent.error.clone();
                    let usual = "No live worker offers it.".to_owned();
                    found.but(Verdict::Warn, why.unwrap_or(usual))
                }
            }
        })
        .collect();
    match (only, findings.is_empty()) {
        (Some(name), true) => Err(OpError::not_found(format!(
            "no catalogue has an agent {name:?}"
        ))
        .hint("dispatch agents list shows the agents of the fleet.")),
        _ => Ok(findings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> HealthFacts {
        HealthFacts {
            version: "15.8".to_owned(),
            version_num: 150_008,
            now: Utc::now(),
            connections: 10,
            max_connections: 100,
            oldest_transaction_s: 1.0,
            prepared_transactions: 0,
            idle_slots: 0,
            live_workers: 1,
            known_agents: 2,
            ready_agents: 1,
            paused_providers: 0,
            open_questions: 0,
        }
    }

    #[test]
    fn each_fault_is_found_alone_and_has_advice() {
        let faults = |facts: &HealthFacts, ahead_ms: i64| -> Vec<(String, Verdict)> {
            let found = of_facts(facts, TimeDelta::milliseconds(ahead_ms));
            let bad = found.into_iter().filter(|one| one.verdict != Verdict::Ok);
            bad.map(|one| {
                assert!(one.advice.is_some());
                (one.check, one.verdict)
            })
            .collect()
        };
        assert_eq!(faults(&healthy(), 1_900), []);
        let one = |check: &str, verdict| vec![(check.to_owned(), verdict)];
        assert_eq!(faults(&healthy(), -2_100), one("clock", Verdict::Warn));
        type Case = (fn(&mut HealthFacts), &'static str, Verdict);
        let cases: [Case; 8] = [
            (|f| f.version_num = 130_012, "version", Verdict::Fail),
            (|f| f.connections = 80, "connections", Verdict::Warn),
            (
                |f| f.oldest_transaction_s = 301.0,
                "oldest transaction",
                Verdict::Warn,
            ),
            (
                |f| f.prepared_transactions = 1,
                "forgotten holders",
                Verdict::Warn,
            ),
            (|f| f.live_workers = 0, "workers", Verdict::Fail),
            (|f| f.ready_agents = 0, "agents", Verdict::Fail),
            (|f| f.paused_providers = 1, "providers", Verdict::Warn),
            (|f| f.open_questions = 2, "questions", Verdict::Warn),
        ];
        for (spoil, check, verdict) in cases {
            let mut facts = healthy();
            spoil(&mut facts);
            assert_eq!(faults(&facts, 0), one(check, verdict));
        }
    }
}
