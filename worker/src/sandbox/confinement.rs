//! How one attempt is confined: everything its processes are started with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::Uid;

use super::plan::Plan;
use super::uids::Owner;
use super::way_out::WayOut;
use super::{Means, Sandbox, exec, visible};
use crate::config::agent_spec::AgentSpec;
use crate::domain::hosts::Policy;
use crate::domain::limits::{CPU_SLACK_S, GATEWAY_PORT};
use crate::domain::sandbox::{Network, ResourceLimits, Rung};
use crate::gateway::proxy_variables;

/// The attempt's own directories, and what else it may read.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The worktree.
    pub tree: PathBuf,
    /// Its HOME.
    pub home: PathBuf,
    /// For temporary files.
    pub tmp: PathBuf,
    /// Repositories that its git borrows from.
    pub read: Vec<PathBuf>,
    /// Directories with programs.
    pub search_path: Vec<PathBuf>,
    /// Programs that are started beside the agent's own, absolute.
    pub programs: Vec<PathBuf>,
    /// Whether the worktree is a part of somebody else's repository, as a linked one is.
    pub linked: bool,
}

/// The confinement of one attempt. Cheap to clone; its user is the attempt's until the last clone
/// is gone.
#[derive(Clone, Debug)]
pub struct Confinement(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    plan: Plan,
    owner: Option<Owner>,
    limits: ResourceLimits,
    way_out: Option<Arc<WayOut>>,
    linked: bool,
}

impl Confinement {
    /// No rules, but the helper that leaves nothing behind.
    pub fn none(helper: PathBuf) -> Self {
        let plan = Plan {
            nested: true,
            ..Plan::of(Rung::None, helper)
        };
        Self(Arc::new(Inner {
            plan,
            owner: None,
            limits: ResourceLimits::default(),
            way_out: None,
            linked: false,
        }))
    }

    /// The confinement of a hook of an attempt with these means. Must be called inside the runtime.
    /// The error is one of the machine.
    pub fn of_hook(sandbox: &Sandbox, means: &Means, places: &Places) -> Result<Self, String> {
        let owner = means.owner.clone();
        let this = Self::of(sandbox, means.rung, owner, places, means.limits);
        let hosts = means.hosts.clone().unwrap_or_default();
        this.reaching(sandbox, means.network, &hosts)
    }

    /// What this rung makes of these places.
    pub(super) fn of(
        sandbox: &Sandbox,
        rung: Rung,
        owner: Option<Owner>,
        places: &Places,
        limits: ResourceLimits,
    ) -> Self {
        let wanted = visible::Wanted {
            lent: &places.read,
            search_path: places.search_path.clone(),
            home: sandbox.home.as_deref(),
            hidden: &sandbox.hidden,
            ..visible::Wanted::default()
        };
        Self::seeing(sandbox, rung, owner, places, limits, visible::find(&wanted))
    }

    /// The confinement of an attempt of this agent, whose program is this one. Must be called inside
    /// the runtime. The error is one of the machine or of the entry.
    pub fn of_agent(
        sandbox: &Sandbox,
        rung: Rung,
        owner: Option<Owner>,
        places: &Places,
        spec: &AgentSpec,
        program: &Path,
    ) -> Result<Self, String> {
        let home = sandbox.home.as_deref();
        let at_home = |path: &PathBuf| match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.clone(),
        };
        let mut lent = places.read.clone();
        lent.extend(spec.readable.iter().map(at_home));
        // Of the worker itself nothing but its program: what stands beside it may be its settings.
        let own = program == sandbox.helper;
        lent.extend(own.then(|| program.to_owned()));
        let key_files = spec
            .native
            .key_files()
            .filter_map(|file| file.canonicalize().ok());
        let hidden: Vec<PathBuf> = sandbox.hidden.iter().cloned().chain(key_files).collect();
        let mut programs = places.programs.clone();
        programs.extend((!own).then(|| program.to_owned()));
        let servers = spec.native.mcp.values().map(|server| &server.command);
        let commands = std::iter::once(&spec.command).chain(servers);
        let args: Vec<String> = commands.flat_map(|c| c.iter().skip(1).cloned()).collect();
        let wanted = visible::Wanted {
            programs: &programs,
            args: &args,
            search_path: places.search_path.clone(),
            lent: &lent,
            home,
            hidden: &hidden,
        };
        let seen = visible::find(&wanted);
        let this = Self::seeing(sandbox, rung, owner, places, spec.limits, seen);
        let this = this.nested(spec.nested_sandbox);
        this.reaching(sandbox, spec.network, &spec.hosts)
    }

    fn seeing(
        sandbox: &Sandbox,
        rung: Rung,
        owner: Option<Owner>,
        places: &Places,
        limits: ResourceLimits,
        visible: visible::Visible,
    ) -> Self {
        let mib = |mb: u64| mb.saturating_mul(1024 * 1024);
        // The kernel counts by user: only an own one, or an own namespace of them, is the attempt's.
        let counted = owner.is_some() || rung == Rung::Bubblewrap;
        let plan = Plan {
            bwrap: sandbox.bwrap.clone(),
            read: visible.read,
            lent: visible.lent,
            write: vec![places.tree.clone(), places.home.clone(), places.tmp.clone()],
            hidden: visible.hidden,
            tmp: places.tmp.clone(),
            owner: owner.as_ref().map(|owner| (owner.id, owner.id)),
            file_bytes_max: limits.file_mb.map(mib),
            pids_max: limits.pids.filter(|_| counted),
            // Later than the worker's own look, which says why it ends the attempt.
            cpu_s_max: limits.cpu_s.map(|s| s.saturating_add(CPU_SLACK_S)),
            ..Plan::of(rung, sandbox.helper.clone())
        };
        Self(Arc::new(Inner {
            plan,
            owner,
            limits,
            way_out: None,
            linked: places.linked,
        }))
    }

    fn changed(self, change: impl FnOnce(&mut Plan)) -> Self {
        let mut inner = Arc::unwrap_or_clone(self.0);
        change(&mut inner.plan);
        Self(Arc::new(inner))
    }

    /// The same with this network.
    fn reaching(self, sandbox: &Sandbox, network: Network, hosts: &Policy) -> Result<Self, String> {
        let this = self.changed(|plan| plan.network = network);
        match network {
            Network::Gateway => this.through_gateway(sandbox, hosts),
            Network::Full | Network::None => Ok(this),
        }
    }

    fn nested(self, nested: bool) -> Self {
        self.changed(|plan| plan.nested = nested)
    }

    /// The same whose way out is a gateway to these hosts.
    fn through_gateway(self, sandbox: &Sandbox, hosts: &Policy) -> Result<Self, String> {
        let way_out = Arc::new(WayOut::open(sandbox, hosts, self.owner())?);
        let mut inner = Arc::unwrap_or_clone(self.0);
        inner.plan.gateway = Some((way_out.socket.clone(), GATEWAY_PORT));
        let services = way_out.services.iter();
        inner.plan.services = services.map(|s| (s.port, s.target.clone())).collect();
        inner.way_out = Some(way_out);
        Ok(Self(Arc::new(inner)))
    }

    /// Variables that programs need in there.
    pub fn variables(&self) -> Vec<(String, String)> {
        let mut all = match &self.0.way_out {
            Some(_) => proxy_variables(GATEWAY_PORT),
            None => Vec::new(),
        };
        if self.0.linked && self.0.owner.is_some() {
            // The repository is another user's, which git refuses until it is told.
            for (name, value) in [
                ("COUNT", "1"),
                ("KEY_0", "safe.directory"),
                ("VALUE_0", "*"),
            ] {
                all.push((format!("GIT_CONFIG_{name}"), value.to_owned()));
            }
        }
        all
    }

    /// What the gateway refused until now, with what to do about it.
    pub fn refusals(&self) -> Vec<String> {
        let way_out = self.0.way_out.as_ref();
        way_out
            .map(|way_out| way_out.refusals())
            .unwrap_or_default()
    }

    /// The program that confines it.
    pub fn helper(&self) -> &Path {
        &self.0.plan.helper
    }

    /// How it is confined.
    pub fn rung(&self) -> Rung {
        self.0.plan.rung
    }

    /// The attempt's own user.
    pub fn owner(&self) -> Option<&Owner> {
        self.0.owner.as_ref()
    }

    /// What it may use up.
    pub fn limits(&self) -> ResourceLimits {
        self.0.limits
    }

    /// Directories whose space counts.
    pub fn writable(&self) -> &[PathBuf] {
        &self.0.plan.write
    }

    /// The program to start, with its arguments, so that this one runs confined.
    pub fn command(
        &self,
        program: &Path,
        args: &[OsString],
        cwd: &Path,
    ) -> Result<(PathBuf, Vec<OsString>), String> {
        if cfg!(not(target_os = "linux")) {
            return Ok((program.to_owned(), args.to_vec()));
        }
        let plan = Plan {
            cwd: cwd.to_owned(),
            ..self.0.plan.clone()
        };
        let text = serde_json::to_string(&plan)
            .map_err(|error| format!("a path of the sandbox is no text: {error}"))?;
        let mut all = vec![
            exec::WORD.into(),
            exec::SUPERVISE.into(),
            text.into(),
            program.into(),
        ];
        all.extend(args.iter().cloned());
        Ok((plan.helper, all))
    }
}

impl Sandbox {
    /// A user for an attempt on this rung, if it has one of its own.
    pub fn owner(&self, rung: Rung) -> Result<Option<Owner>, String> {
        let own = match rung {
            Rung::Bubblewrap => Uid::effective().is_root(),
            Rung::LandlockUid => true,
            Rung::Landlock | Rung::None => false,
        };
        let users = match (&self.users, own) {
            (_, false) => return Ok(None),
            (Some(users), true) => users,
            (None, true) => return Err("there are no users for attempts".to_owned()),
        };
        let taken = users.take();
        taken
            .map(Some)
            .map_err(|error| format!("cannot take a user for the attempt: {error}"))
    }
}
