//! What is found of a repository that becomes a project: what its attempts will have, and lack.

use std::path::Path;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::domain::sandbox::Demand;
use crate::ops::OpError;
use crate::ops::doctor::{Finding, Verdict};
use crate::ops::project::Settings;
use crate::surface::cli::init::{Found, Surveyor};
use crate::workspace::{self, ProjectSpec, Survey, WorktreeMode};

const AREA: &str = "project";

/// Each attempt checks out so many files: more is felt.
const FILES_MANY: usize = 100_000;

/// A store of each worker holds so much: more is felt.
const OBJECT_BYTES_MANY: u64 = 2 << 30;

/// Ignored files that are named; there may be many.
const COPIES_SHOWN: usize = 5;

/// Looks by git, as a worker here would.
pub(super) fn surveyor() -> Box<dyn Surveyor> {
    Box::new(ByGit)
}

struct ByGit;

impl Surveyor for ByGit {
    fn survey<'a>(
        &'a self,
        dir: &'a Path,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Found, OpError>> {
        async move {
            let refused = |error: workspace::WorkspaceError| {
                OpError::invalid(error.message).code("no_repository")
            };
            let top = workspace::top_of(dir).map_err(refused)?;
            let name = top.file_name().unwrap_or_default();
            let spec = ProjectSpec {
                name: name.to_string_lossy().into_owned(),
                path: top.clone(),
                remote: None,
                target_ref: settings.target_ref.clone(),
                mode: WorktreeMode::Private,
                trusted: false,
                demand: Demand::Required,
                copy_files: Vec::new(),
                setup: None,
                teardown: None,
            };
            let survey = workspace::survey(&spec).await.map_err(refused)?;
            Ok(Found {
                findings: findings(&survey, settings),
                target_ref: survey.check.target_ref,
                top,
            })
        }
        .boxed()
    }
}

fn findings(survey: &Survey, settings: &Settings) -> Vec<Finding> {
    let check = &survey.check;
    let tip = check.tip.get(..10).unwrap_or(&check.tip);
    let branch = format!("{} at {tip}", check.target_ref);
    let mut found = vec![
        Finding::ok(AREA, "target", branch),
        worktree(settings),
        size(survey),
    ];
    if check.shallow {
        let cut = Finding::ok(AREA, "history", "cut off (a shallow clone)");
        found.push(cut.but(
            Verdict::Warn,
            "Agents see no older commits: git fetch --unshallow",
        ));
    }
    if check.checkout.is_some() {
        let count = survey.uncommitted;
        let committed = Finding::ok(AREA, "uncommitted", format!("{count} files"));
        found.push(match count {
            0 => committed,
            _ => committed.but(
                Verdict::Warn,
                "Agents begin at the commit: commit what they need.",
            ),
        });
        found.extend(copies(survey, settings));
    }
    found.push(match survey.remotes.as_slice() {
        [] => Finding::ok(AREA, "remote", "none: results stay in this repository"),
        some => Finding::ok(
            AREA,
            "remote",
            format!("{}: what is applied is yours to push", some.join(", ")),
        ),
    });
    found
}

fn worktree(settings: &Settings) -> Finding {
    let kind = settings.worktree.as_deref().unwrap_or("private");
    let found = Finding::ok(AREA, "worktree", format!("{kind}, one for each attempt"));
    match (kind, settings.trusted) {
        ("linked", None | Some(false)) => found.but(
            Verdict::Warn,
            "Without a sandbox it needs --trusted: such agents could change this repository.",
        ),
        _ => found,
    }
}

fn size(survey: &Survey) -> Finding {
    let (files, bytes) = (survey.files, survey.object_bytes);
    let mib = bytes.div_ceil(1 << 20);
    let found = Finding::ok(AREA, "size", format!("{files} files, {mib} MiB of objects"));
    match files >= FILES_MANY || bytes >= OBJECT_BYTES_MANY {
        true => found.but(
            Verdict::Warn,
            "Each attempt checks all of it out: give workers a fast disk, and few slots.",
        ),
        false => found,
    }
}

/// Settings of one machine that lie beside the code, which no attempt gets unless they are listed.
fn copies(survey: &Survey, settings: &Settings) -> Option<Finding> {
    let looks_local = |path: &&String| {
        let name = path.rsplit('/').next().unwrap_or("");
        name == ".env" || name == ".envrc" || name.starts_with(".env.") || name.ends_with(".local")
    };
    let local: Vec<&str> = survey
        .ignored
        .iter()
        .filter(looks_local)
        .map(String::as_str)
        .collect();
    if local.is_empty() {
        return None;
    }
    let shown = local.get(..COPIES_SHOWN).unwrap_or(&local).join(", ");
    let more = match local.len().saturating_sub(COPIES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let found = Finding::ok(AREA, "ignored files", format!("{shown}{more}"));
    Some(match &settings.copy_files {
        Some(globs) => {
            let with = format!("{}; copied: {}", found.found, globs.join(", "));
            Finding {
                found: with,
                ..found
            }
        }
        None => found.but(
            Verdict::Warn,
            "Agents do not get them: dispatch projects update PROJECT --copy FILE, if they may.",
        ),
    })
}
