//! What must not be told of an attempt: the secrets of the worker and of its agent's entry, taken out
//! of everything that is stored about it. What a person submitted, and the bytes of a change, stay
//! as they are: a reviewer approves bytes.

use std::path::Path;

use crate::config::agent_spec::AgentSpec;
use crate::config::credentials;
use crate::config::worker::WorkerSettings;
use crate::domain::attempt::{AttemptEnd, Started};
use crate::domain::limits;
use crate::domain::redact::{Redactor, Secret};
use crate::domain::usage::UsageReport;
use crate::store::finish::{Disposition, Finish};
use crate::telemetry;

use super::RunContext;
use super::drive::Driven;

/// The redactor of a worker's own secrets.
pub fn of_worker(settings: &WorkerSettings) -> Redactor {
    let mut own = credentials::of_url("DATABASE_URL", &settings.database_url);
    if let Some(url) = &settings.listen_url {
        own.extend(credentials::of_url("DATABASE_LISTEN_URL", url));
    }
    own.extend(credentials::of_environment());
    telemetry::keep_out(&own);
    Redactor::new(own)
}

/// The redactor of an attempt with this agent.
pub async fn of_attempt(context: &RunContext, spec: &AgentSpec) -> Redactor {
    let spec = spec.clone();
    extended(&context.own_secrets, move || {
        let of_agent = credentials::of_agent(&spec);
        telemetry::keep_out(&of_agent);
        of_agent
    })
    .await
}

/// The redactor of an agent that the host tries by itself, without a worker: the secrets of this
/// process, and those of the agent.
pub async fn of_host(spec: &AgentSpec) -> Redactor {
    let spec = spec.clone();
    extended(&Redactor::default(), move || {
        let mut gathered = credentials::of_environment();
        gathered.extend(credentials::of_agent(&spec));
        telemetry::keep_out(&gathered);
        gathered
    })
    .await
}

/// That of an attempt after its turn: agents renew the tokens in their HOME.
pub async fn renewed(redactor: &Redactor, spec: &AgentSpec, home: &Path) -> Redactor {
    let (spec, home) = (spec.clone(), home.to_owned());
    extended(redactor, move || {
        let of_home = credentials::of_home(&spec, &home);
        telemetry::keep_out_renewed(&of_home);
        of_home
    })
    .await
}

/// Off the runtime: files are read, and a search for many secrets takes a tenth of a second to make.
async fn extended(
    redactor: &Redactor,
    gather: impl FnOnce() -> Vec<Secret> + Send + 'static,
) -> Redactor {
    let before = redactor.clone();
    let made = crate::blocking::run(move || {
        let more = gather();
        let redactor = before.with(more.clone());
        let missed = more.iter().filter(|secret| !redactor.knows(secret)).count();
        (redactor, missed)
    });
    match made.await {
        Ok((made, missed)) => {
            if missed > 0 {
                tracing::warn!(missed, "an agent has more secrets than are looked for");
            }
            made
        }
        Err(error) => {
            tracing::error!(%error, "the secrets of an agent could not be gathered");
            redactor.clone()
        }
    }
}

/// What really runs. Its session stays: the next turn needs its exact name.
pub(super) fn clean_started(redactor: &Redactor, started: &mut Started) {
    started
        .command
        .iter_mut()
        .for_each(|word| redactor.clean(word));
    for text in [
        &mut started.version,
        &mut started.model,
        &mut started.mode_id,
        &mut started.resume_failed,
    ] {
        clean_option(redactor, text);
    }
}

/// Everything that the agent said of its turn, by the time that its own renewals are known.
pub(super) fn clean_driven(redactor: &Redactor, driven: &mut Driven) {
    clean_end(redactor, &mut driven.end);
    redactor.clean(&mut driven.exit.stderr_tail);
    clean_option(redactor, &mut driven.stop_reason);
    clean_option(redactor, &mut driven.model);
    clean_session(redactor, &mut driven.native_session_id);
    if let Some(report) = &mut driven.usage {
        clean_usage(redactor, report);
    }
}

/// Why an attempt ended, cut to what is stored of it: agents write lines of megabytes.
pub(super) fn clean_end(redactor: &Redactor, end: &mut AttemptEnd) {
    let (AttemptEnd::Failed { message, .. }
    | AttemptEnd::NotBegun { message, .. }
    | AttemptEnd::Yielded { message, .. }) = end
    else {
        return;
    };
    let most = limits::ERROR_TEXT_CHARS_MAX;
    let mut safe = redactor.head_chars(message, most).into_owned();
    if message.chars().nth(most).is_some() {
        safe.push('…');
    }
    *message = safe;
}

/// Everything that the end of an attempt stores, save the change itself.
pub(super) fn clean_finish(redactor: &Redactor, finish: &mut Finish) {
    if redactor.is_empty() {
        return;
    }
    clean_option(redactor, &mut finish.error);
    clean_option(redactor, &mut finish.output_summary);
    if let Disposition::Again { reason, .. } = &mut finish.disposition {
        redactor.clean(reason);
    }
    for (_, payload) in &mut finish.events {
        redactor.clean_value(payload);
    }
    let Some(facts) = &mut finish.facts else {
        return;
    };
    redactor.clean(&mut facts.exit.stderr_tail);
    clean_option(redactor, &mut facts.stop_reason);
    clean_session(redactor, &mut facts.native_session_id);
    if let Some(usage) = &mut facts.usage {
        clean_option(redactor, &mut usage.model);
        if let Some(report) = &mut usage.report {
            clean_usage(redactor, report);
        }
        if let Some(cost) = &mut usage.cost {
            redactor.clean(&mut cost.currency);
        }
    }
    if let Some(snapshot) = &mut facts.snapshot {
        let notices = snapshot.notices.iter_mut();
        notices.for_each(|notice| redactor.clean(notice));
    }
}

/// A name with a hole is none: rather no session than a wrong one.
fn clean_session(redactor: &Redactor, session: &mut Option<String>) {
    *session = session.take().filter(|id| !redactor.finds(id.as_bytes()));
}

fn clean_usage(redactor: &Redactor, report: &mut UsageReport) {
    clean_option(redactor, &mut report.model);
    report
        .raw
        .iter_mut()
        .for_each(|raw| redactor.clean_value(raw));
    if let Some(cost) = &mut report.cost {
        redactor.clean(&mut cost.currency);
    }
}

fn clean_option(redactor: &Redactor, text: &mut Option<String>) {
    if let Some(text) = text {
        redactor.clean(text);
    }
}
