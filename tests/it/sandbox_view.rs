//! What a confined agent sees of the machine and can do to it, found out by one that tries, on every
//! rung that works here.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use dispatch_worker::domain::sandbox::Rung;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::repo::git;
use crate::harness::sandbox::{demand, rungs};
use crate::harness::worker::{FAKE, HELPER, Stage, gates, write};

/// With what is looked for, which must not stand in what the agent is told.
const CANARY: &str = "canary-";

/// The rungs that are one: without rules everything is seen.
async fn confining() -> Vec<Rung> {
    let mut rungs = rungs().await;
    rungs.retain(|rung| *rung != Rung::None);
    rungs
}

fn canary() -> String {
    format!("{CANARY}{}", uuid::Uuid::new_v4().simple())
}

fn entry(name: &str, rung: Rung, more: &str) -> String {
    format!(
        "[agents.{name}]\nlabel = \"{name}\"\npath = \"acp\"\ncommand = [\"{FAKE}\", \"acp\"]\n\
         sandbox = \"{}\"\nslots = 4\nkill_grace = \"200ms\"\n{more}\n",
        demand(rung)
    )
}

/// A file of the change that a task made.
async fn file_of(stage: &Stage, task: i64, path: &str) -> String {
    let query = "SELECT result_commit FROM pending_changes WHERE task_id = ";
    let commit = stage.text(&format!("{query}{task}")).await;
    git(
        &results(stage),
        &["cat-file", "blob", &format!("{commit}:{path}")],
    )
}

fn results(stage: &Stage) -> PathBuf {
    let stores = std::fs::read_dir(stage.data.path().join("work/stores"));
    let store = stores.unwrap().flatten().next().unwrap();
    store.path().join("results.git")
}

/// Look at everything that may hold something, these processes among it, and say it.
fn search(worker: i32, processes: &str, dirs: &[&Path], files: &[&Path]) -> String {
    let list = |paths: &[&Path]| {
        let all = paths.iter().map(|path| format!("'{}'", path.display()));
        all.collect::<Vec<_>>().join(" ")
    };
    format!(
        r#"
        env
        for file in {files}; do cat "$file" "/proc/{worker}/root$file" /proc/1/root"$file"; done
        grep -rhsao '{CANARY}[0-9a-f]*' {dirs}
        for p in {processes}; do
            cat "$p/environ"
            echo
            for fd in "$p"/fd/*; do
                [ -f "$fd" ] && head -c 1000000 "$fd" | grep -ao '{CANARY}[0-9a-f]*'
            done
            [ "$(readlink "$p/cwd")" = / ] || grep -rhsao '{CANARY}[0-9a-f]*' "$p/cwd/"
        done
        cat /proc/{worker}/mem /proc/{worker}/maps | grep -ao '{CANARY}[0-9a-f]*'
        git log -p --all
        git cat-file --batch-all-objects --batch
        for repository in {dirs}; do
            find "$repository" -name results.git | while read store; do
                git -c safe.directory='*' --git-dir="$store" log -p --all
            done
        done
        "#,
        files = list(files),
        dirs = list(dirs),
    )
}

/// What an agent on this rung finds.
async fn found(rung: Rung) -> Vec<&'static str> {
    let stage = Stage::new().await;
    let data = stage.data.path();
    let home = data.join("operator");
    let secrets: Vec<String> = std::iter::repeat_with(canary).take(7).collect();
    let [
        key,
        in_home,
        in_catalogue,
        of_victim,
        of_result,
        in_open_file,
        for_tmp,
    ] = &secrets[..]
    else {
        unreachable!()
    };
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::write(home.join(".ssh/id_ed25519"), in_home).unwrap();
    std::fs::write(data.join("open"), in_open_file).unwrap();
    let more = format!("env = {{ VICTIM_KEY = \"{in_catalogue}\" }}");
    let catalogue = entry("spy", rung, "") + &entry("victim", rung, &more);
    let home_text = home.to_str().unwrap();
    let environment = [("WORKER_API_KEY", key.as_str()), ("HOME", home_text)];
    let flags = ["--sandbox", rung.as_str()];
    let mut worker = Program::worker_in(&stage, "w", &catalogue, &flags, &environment).await;
    let pid = worker.pid();
    // One that is done, and one whose files lie there.
    let done = stage
        .submit("victim", &json!([write("result.txt", of_result)]))
        .await;
    stage.reaches(done, "completed").await;
    let keep = format!("echo {for_tmp} >$TMPDIR/kept; echo {for_tmp} >$HOME/kept");
    let steps = json!([
        write("mine.txt", of_victim), { "sh": keep }, { "say": "working\n" }, { "hang": true },
    ]);
    let victim = stage.speaking("victim", &steps).await;
    let catalogue = data.join("w.toml");
    let key_file = home.join(".ssh/id_ed25519");
    let dirs = [data, home.as_path(), stage.ground.dir.path()];
    // Without rules it would read all of the machine and end its worker.
    let (processes, harm) = match rung {
        Rung::None => (format!("/proc/{pid}"), String::new()),
        _ => (
            "/proc/[0-9]* /proc/self/task/*".to_owned(),
            format!(
                "grep -rhsao '{CANARY}[0-9a-f]*' /dev/shm /run /var/tmp /tmp
                prlimit --pid {pid} --cpu=1:1 && echo can be killed
                kill -0 {pid} && echo can be killed
                kill -9 {pid} && echo was killed"
            ),
        ),
    };
    let files = [catalogue.as_path(), &key_file, &data.join("open")];
    let look = search(pid, &processes, &dirs, &files) + &harm;
    let look = format!("({look}) >loot.txt 2>&1");
    let spy = stage.submit("spy", &json!([{ "sh": look }])).await;
    stage.reaches(spy, "completed").await;
    let loot = file_of(&stage, spy, "loot.txt").await;
    // It did look.
    for seen in ["DISPATCH_ATTEMPT=", "+two"] {
        assert!(loot.contains(seen), "{rung}: no {seen}");
    }
    let events = "SELECT string_agg(e::text, ' ') FROM events AS e WHERE task_id =";
    let told = stage.text(&format!("{events} {spy}")).await;
    let named = [
        "the worker's environment",
        "its HOME",
        "the catalogue",
        "another worktree",
        "another result",
        "its data",
        "another's temporary files",
    ];
    let mut found = Vec::new();
    for (secret, of) in secrets.iter().zip(named) {
        if loot.contains(secret.as_str()) || told.contains(secret.as_str()) {
            found.push(of);
        }
    }
    assert!(
        !loot.contains("killed\n"),
        "{rung}: the worker can be signalled"
    );
    assert_eq!(
        stage.status(victim, "state").await.as_deref(),
        Some("running")
    );
    stage.text(&format!("SELECT cancel_task({victim})")).await;
    stage.reaches(victim, "cancelled").await;
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(worker.ended().await.code(), Some(0), "{rung}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_no_secret_of_anybody_and_cannot_harm_its_worker() {
    for rung in rungs().await {
        let found = found(rung).await;
        match rung {
            // It does know where to look.
            Rung::None => assert_eq!(found.len(), 7, "{found:?}"),
            _ => assert_eq!(found, Vec::<&str>::new(), "{rung}"),
        }
    }
}

/// Ways to change a file or a directory that is there.
fn spoil(places: &[PathBuf], name: &str) -> String {
    let mut script = String::new();
    for place in places {
        let place = place.display();
        script.push_str(&format!(
            "if [ -d '{place}' ]; then echo x >'{place}/{name}'; mkdir '{place}/{name}.d'; \
             ln -s / '{place}/{name}.l'; mkfifo '{place}/{name}.p'; else \
             chmod 777 '{place}'; echo x >>'{place}'; true >'{place}'; mv '{place}' '{place}.{name}'; fi\n"
        ));
    }
    script
}

async fn an_agent_changes_nothing(rung: Rung) {
    let stage = Stage::new().await;
    let worker = stage
        .worker_with(
            &(entry("vandal", rung, "") + &entry("victim", rung, "")),
            |settings| settings.sandbox = Some(rung),
        )
        .await;
    let steps = json!([{ "cwd": "where.txt" }, { "say": "working\n" }, { "hang": true }]);
    let victim = stage.speaking("victim", &steps).await;
    let worktrees = stage.data.path().join("work/worktrees");
    let other = std::fs::read_dir(&worktrees).unwrap().flatten().next();
    let other = other.unwrap().path();
    let name = format!("vandal-{}", uuid::Uuid::new_v4().simple());
    let repo = &stage.ground.repo;
    let inside: Vec<PathBuf> = [
        repo.clone(),
        repo.join(".git"),
        repo.join(".git/hooks"),
        stage.ground.dir.path().to_owned(),
        stage.data.path().to_owned(),
        stage.data.path().join("work"),
        worktrees.clone(),
        other.clone(),
        results(&stage),
        results(&stage).join("objects"),
        stage.data.path().join("homes"),
        Path::new(HELPER).parent().unwrap().to_owned(),
    ]
    .into();
    let system = [
        "/",
        "/etc",
        "/usr",
        "/usr/bin",
        "/usr/local/bin",
        "/var/lib",
        "/var/tmp",
        "/tmp",
        "/dev",
        "/dev/shm",
        "/run",
        "/home",
        "/root",
        "/opt",
        "/sys/fs/cgroup",
        "/proc/sys/kernel",
    ];
    let mut places: Vec<PathBuf> = system.iter().map(PathBuf::from).collect();
    places.extend(inside);
    places.push(std::env::temp_dir());
    let files = [
        repo.join("a.txt"),
        repo.join(".git/config"),
        repo.join(".git/HEAD"),
        other.join("meta.json"),
        PathBuf::from(HELPER),
        PathBuf::from(FAKE),
        PathBuf::from("/etc/hostname"),
        PathBuf::from("/etc/passwd"),
    ];
    let before: Vec<_> = files.iter().map(facts).collect();
    places.extend(files.clone());
    let script = format!("({}) >said.txt 2>&1", spoil(&places, &name));
    let vandal = stage.submit("vandal", &json!([{ "sh": script }])).await;
    stage.reaches(vandal, "completed").await;
    let said = file_of(&stage, vandal, "said.txt").await;
    for place in places.iter().filter(|place| place.is_dir()) {
        for suffix in ["", ".d", ".l", ".p"] {
            let made = place.join(format!("{name}{suffix}"));
            let there = std::fs::symlink_metadata(&made).is_ok();
            assert!(!there, "{rung}: {} was made", made.display());
        }
    }
    let after: Vec<_> = files.iter().map(facts).collect();
    // Landlock has no rule for modes: without a user of its own, an agent can change those of files
    // that are the worker's user's.
    let modes = rung != Rung::Landlock;
    let shown = |all: &[Facts]| -> Vec<Facts> {
        let shown = all.iter().map(|facts| Facts {
            mode: facts.mode.filter(|_| modes),
            ..facts.clone()
        });
        shown.collect()
    };
    assert_eq!(shown(&before), shown(&after), "{rung}: {said}");
    let denied = ["denied", "ead-only", "onexistent", "No such file"];
    let refused = said
        .lines()
        .filter(|line| denied.iter().any(|word| line.contains(word)));
    assert!(refused.count() >= places.len(), "{rung}: it tried: {said}");
    stage.text(&format!("SELECT cancel_task({victim})")).await;
    stage.reaches(victim, "cancelled").await;
    worker.stop().await;
}

/// Enough to see any change.
#[derive(Clone, Debug, PartialEq)]
struct Facts {
    path: PathBuf,
    written: Option<(u64, u64, i64)>,
    /// With when it was changed.
    mode: Option<(u32, i64, i64)>,
}

fn facts(path: &PathBuf) -> Facts {
    use std::os::unix::fs::MetadataExt;
    let facts = std::fs::symlink_metadata(path).ok();
    Facts {
        path: path.clone(),
        written: facts.as_ref().map(|f| (f.ino(), f.len(), f.mtime())),
        mode: facts.map(|f| (f.mode(), f.ctime(), f.ctime_nsec())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_nowhere_but_in_its_own_directories() {
    for rung in confining().await {
        an_agent_changes_nothing(rung).await;
    }
}

/// Services of the machine, each of which counts as reached when somebody came.
struct Services {
    tcp: TcpListener,
    udp: UdpSocket,
    path: UnixListener,
    abstract_: UnixListener,
    datagrams: UnixDatagram,
    addresses: Vec<String>,
}

impl Services {
    fn new(dir: &Path) -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let name = format!("dispatch-test-{}", uuid::Uuid::new_v4().simple());
        let abstract_name = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let path_name = dir.join("service.sock");
        let datagrams = dir.join("datagrams.sock");
        let port = |address: SocketAddr| address.port();
        let mut addresses = vec![
            format!("unix:{}", path_name.display()),
            format!("pair:{}", datagrams.display()),
            format!("abstract:{name}"),
        ];
        for host in hosts() {
            addresses.push(format!("tcp:{host}:{}", port(tcp.local_addr().unwrap())));
            addresses.push(format!("udp:{host}:{}", port(udp.local_addr().unwrap())));
        }
        let this = Self {
            tcp,
            udp,
            path: UnixListener::bind(path_name).unwrap(),
            abstract_: UnixListener::bind_addr(&abstract_name).unwrap(),
            datagrams: UnixDatagram::bind(datagrams).unwrap(),
            addresses,
        };
        this.datagrams.set_nonblocking(true).unwrap();
        this.tcp.set_nonblocking(true).unwrap();
        this.udp.set_nonblocking(true).unwrap();
        this.path.set_nonblocking(true).unwrap();
        this.abstract_.set_nonblocking(true).unwrap();
        this
    }

    /// Who had a visitor since the last look.
    fn visited(&self) -> Vec<&'static str> {
        let mut visited = Vec::new();
        for (name, came) in [
            ("tcp", self.tcp.accept().is_ok()),
            ("udp", self.udp.recv(&mut [0; 16]).is_ok()),
            ("unix", self.path.accept().is_ok()),
            ("pair", self.datagrams.recv(&mut [0; 16]).is_ok()),
            ("abstract", self.abstract_.accept().is_ok()),
        ] {
            if came {
                visited.push(name);
            }
        }
        visited
    }
}

/// Loopback, and the address by which others know the machine, if it has one.
fn hosts() -> Vec<String> {
    let mut hosts = vec!["127.0.0.1".to_owned()];
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Sends nothing: it only asks which way it would go. The address is for documentation.
    if probe.connect("192.0.2.1:9").is_ok()
        && let Ok(SocketAddr::V4(own)) = probe.local_addr()
    {
        hosts.push(own.ip().to_string());
    }
    hosts
}

fn reach(addresses: &[String]) -> Value {
    json!([{ "reach": { "to": addresses, "write": "reached.txt" } }])
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_no_service_of_the_machine_is_reached_and_with_one_those_of_the_network_are()
 {
    for rung in confining().await {
        let stage = Stage::new().await;
        let services = Services::new(stage.data.path());
        let catalogue = entry("closed", rung, "network = \"none\"")
            + &entry("open", rung, "network = \"full\"");
        let worker = stage
            .worker_with(&catalogue, |settings| settings.sandbox = Some(rung))
            .await;
        let task = stage.submit("closed", &reach(&services.addresses)).await;
        stage.reaches(task, "completed").await;
        let told = file_of(&stage, task, "reached.txt").await;
        assert_eq!(services.visited(), Vec::<&str>::new(), "{rung}: {told}");
        assert_eq!(told.lines().count(), services.addresses.len(), "{told}");
        // Sockets of the machine's programs are not of the network: they are closed always.
        let task = stage.submit("open", &reach(&services.addresses)).await;
        stage.reaches(task, "completed").await;
        let told = file_of(&stage, task, "reached.txt").await;
        assert_eq!(services.visited(), ["tcp", "udp"], "{rung}: {told}");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn through_the_gateway_the_listed_service_is_reached_and_a_refusal_says_what_to_list() {
    if !confining().await.contains(&Rung::Bubblewrap) {
        return println!("no bubblewrap: nothing else holds an agent to a gateway");
    }
    let stage = Stage::new().await;
    let (listed, other) = (gates(), gates());
    let (listed, other) = (Services::new(listed.path()), Services::new(other.path()));
    let port = listed.tcp.local_addr().unwrap().port();
    let other_port = other.tcp.local_addr().unwrap().port();
    let more = format!("network = \"gateway\"\nhosts = [\"127.0.0.1:{port}\"]");
    let worker = stage
        .worker_with(&entry("acp", Rung::Bubblewrap, &more), |_| {})
        .await;
    let ask = format!(
        "CONNECT 127.0.0.1:{other_port} HTTP/1.1\\r\\nHost: 127.0.0.1:{other_port}\\r\\n\\r\\n"
    );
    let proxy = "exec 3<>/dev/tcp/${http_proxy##*//}; ";
    let proxy = proxy.replace("${http_proxy##*//}", "127.0.0.1/3128");
    let through = format!("bash -c '{proxy} printf \"{ask}\" >&3; head -n 1 <&3 >refused.txt'");
    // A connection that ends at once may be over before the gateway has made its own: this one is answered.
    let listed_ask = ask.replace(&format!(":{other_port}"), &format!(":{port}"));
    let answered =
        format!("bash -c '{proxy} printf \"{listed_ask}\" >&3; head -n 1 <&3 >allowed.txt'");
    let all: Vec<String> = listed
        .addresses
        .iter()
        .chain(&other.addresses)
        .cloned()
        .collect();
    let mut steps = reach(&all);
    for sh in [&through, &answered] {
        steps.as_array_mut().unwrap().push(json!({ "sh": sh }));
    }
    let task = stage.submit("acp", &steps).await;
    stage.reaches(task, "completed").await;
    let told = file_of(&stage, task, "reached.txt").await;
    let allowed = file_of(&stage, task, "allowed.txt").await;
    assert!(allowed.contains(" 200 "), "{allowed}");
    assert_eq!(listed.visited(), ["tcp"], "{told}");
    assert_eq!(other.visited(), Vec::<&str>::new(), "{told}");
    let refused = file_of(&stage, task, "refused.txt").await;
    assert!(refused.contains("403"), "{refused}");
    let stream = stage.stream(task).await;
    let notices = stream.iter().filter(|(kind, _)| kind == "notice");
    let texts: Vec<String> = notices.map(|(_, payload)| payload.to_string()).collect();
    let named = |text: &&String| text.contains("hosts") && text.contains(&format!(":{other_port}"));
    assert_eq!(texts.iter().filter(named).count(), 1, "{texts:?}");
    worker.stop().await;
}

/// The variables of a terminal are the agent's to choose; the helper that confines it is not theirs.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_sets_for_its_terminal_has_no_effect_on_what_confines_it() {
    for rung in confining().await {
        let stage = Stage::new().await;
        let catalogue = entry("acp", rung, "acp.offer_terminal = true");
        let worker = stage
            .worker_with(&catalogue, |settings| settings.sandbox = Some(rung))
            .await;
        // The loader tells what it does into a file, with the rights of the process that it loads.
        let outside = gates();
        let told_outside = outside.path().join("told");
        let terminal = |name: &str, output: &str| {
            let env = json!([
                { "name": "LD_DEBUG", "value": "files" },
                { "name": "LD_DEBUG_OUTPUT", "value": output },
            ]);
            let create = json!({ "command": "true", "env": env });
            [
                json!({ "request": { "method": "terminal/create", "params": create } }),
                json!({ "request": { "method": "terminal/wait_for_exit",
                    "params": { "terminalId": name } } }),
            ]
        };
        let mut steps = terminal("t1", "told").to_vec();
        steps.extend(terminal("t2", told_outside.to_str().unwrap()));
        steps.push(json!({ "sh": "cat told.* >all.txt; rm told.*" }));
        let task = stage.submit("acp", &json!(steps)).await;
        stage.reaches(task, "completed").await;
        let told = file_of(&stage, task, "all.txt").await;
        assert!(
            told.contains("initialize program: /bin/sh"),
            "{rung}: {told}"
        );
        assert!(!told.contains("initialize program: /proc"), "{rung}");
        let helper = Path::new(HELPER).file_name().unwrap().to_str().unwrap();
        for program in ["bwrap", helper, "run/dispatch/exec"] {
            assert!(!told.contains(program), "{rung}: {program}: {told}");
        }
        let outside = std::fs::read_dir(outside.path()).unwrap().flatten();
        let names: Vec<_> = outside.map(|entry| entry.file_name()).collect();
        assert_eq!(names, Vec::<std::ffi::OsString>::new(), "{rung}");
        worker.stop().await;
    }
}
